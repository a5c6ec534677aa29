//! The event contract, kept by Postgres.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

use std::sync::Arc;

use psp_domain::{Event, EventKind, MessageId};
use psp_postgres::{PgOptions, PgStore};
use psp_testkit::Ports;
use psp_testkit::clock::FixedClock;
use psp_testkit::contract::events::EventCase;
use psp_testkit::servers;
use sqlx::postgres::PgRow;
use sqlx::{Connection, PgConnection, Row};

async fn case() -> EventCase {
    let (database, clock) = (servers::database().await, Arc::new(FixedClock::default()));
    let url = database.url.clone();
    let store = PgStore::open(PgOptions::new(url.as_str()), clock.clone()).await.unwrap();
    EventCase { ports: Ports::of(store, clock, database), read: Box::new(move || Box::pin(events(url.clone()))) }
}

/// Every row of the outbox that is an event.
async fn events(url: String) -> Vec<Event> {
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let rows = sqlx::query("SELECT * FROM outbox WHERE sequence IS NOT NULL").fetch_all(&mut connection).await.unwrap();
    let event = |row: &PgRow| Event {
        id: MessageId(row.get("id")),
        kind: EventKind::from_name(row.get("kind")).unwrap(),
        aggregate_id: row.get("aggregate_id"),
        sequence: row.get("sequence"),
        customer_id: row.get::<&str, _>("customer_id").parse().unwrap(),
        occurred_at: row.get("sent_at"),
        data: row.get("body"),
    };
    rows.iter().map(event).collect()
}

psp_testkit::event_contract!(self::case);
