//! The contract suites over Postgres.

use std::sync::Arc;

use psp_postgres::{PgOptions, PgStore};
use psp_testkit::Ports;
use psp_testkit::clock::FixedClock;
use psp_testkit::servers;

async fn postgres() -> Ports {
    let database = servers::database().await;
    let clock = Arc::new(FixedClock::default());
    let store = PgStore::open(PgOptions::new(database.url.as_str()), clock.clone()).await.expect("a store");
    Ports::of(store, clock, database)
}

mod store {
    psp_testkit::store_contract!(super::postgres);
}

mod sealed_cards {
    psp_testkit::sealed_cards_contract!(super::postgres);
}

mod queue {
    psp_testkit::queue_contract!(super::postgres);
    psp_testkit::table_queue_contract!(super::postgres);
}

mod webhooks {
    psp_testkit::webhook_contract!(super::postgres);
}

mod event_store {
    psp_testkit::event_store_contract!(super::postgres);
}
