//! The event contract, kept by SQLite.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

use std::sync::Arc;

use chrono::DateTime;
use psp_domain::{Event, EventKind, MessageId};
use psp_sqlite::{SqliteOptions, SqliteStore};
use psp_testkit::Ports;
use psp_testkit::clock::FixedClock;
use psp_testkit::contract::events::EventCase;
use sqlx::{Connection, Row, SqliteConnection};

async fn case() -> EventCase {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(FixedClock::default());
    let url = format!("sqlite://{}", dir.path().join("psp.db").display());
    let store = SqliteStore::open(SqliteOptions::new(url.clone()), clock.clone()).await.unwrap();
    EventCase { ports: Ports::of(store, clock, dir), read: Box::new(move || Box::pin(events(url.clone()))) }
}

/// Every row of the outbox that is an event.
async fn events(url: String) -> Vec<Event> {
    let mut connection = SqliteConnection::connect(&url).await.unwrap();
    let sql =
        "SELECT id, kind, aggregate_id, sequence, customer_id, sent_at, body FROM outbox WHERE sequence IS NOT NULL";
    let rows = sqlx::query(sql).fetch_all(&mut connection).await.unwrap();
    let event = |row: &sqlx::sqlite::SqliteRow| Event {
        id: MessageId(row.get("id")),
        kind: EventKind::from_name(row.get("kind")).unwrap(),
        aggregate_id: row.get("aggregate_id"),
        sequence: row.get("sequence"),
        customer_id: row.get::<&str, _>("customer_id").parse().unwrap(),
        occurred_at: DateTime::from_timestamp_millis(row.get("sent_at")).unwrap(),
        data: row.get("body"),
    };
    rows.iter().map(event).collect()
}

psp_testkit::event_contract!(self::case);
