//! The contracts, kept by SQLite.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

use std::sync::Arc;

use psp_sqlite::{SqliteOptions, SqliteStore};
use psp_testkit::Ports;
use psp_testkit::clock::FixedClock;

async fn ports() -> Ports {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(FixedClock::default());
    let url = format!("sqlite://{}", dir.path().join("psp.db").display());
    let store = SqliteStore::open(SqliteOptions::new(url), clock.clone()).await.unwrap();
    Ports::of(store, clock, dir)
}

mod store {
    psp_testkit::store_contract!(super::ports);
}

mod sealed_cards {
    psp_testkit::sealed_cards_contract!(super::ports);
}

mod queue {
    psp_testkit::queue_contract!(super::ports);
    psp_testkit::table_queue_contract!(super::ports);
}

mod webhooks {
    psp_testkit::webhook_contract!(super::ports);
}

mod event_store {
    psp_testkit::event_store_contract!(super::ports);
}
