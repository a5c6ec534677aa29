//! The contract suites over Postgres with SQS as its queue: a relay moves what commits send.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_sqs::config::{Credentials, Region};
use psp_domain::QueueName;
use psp_postgres::{PgOptions, PgStore};
use psp_sqs::{SqsOptions, SqsQueue};
use psp_testkit::Ports;
use psp_testkit::clock::FixedClock;
use psp_testkit::servers;
use psp_worker::RelayOptions;
use tokio_util::sync::CancellationToken;

async fn sqs() -> Ports {
    let (database, place) = (servers::database().await, servers::sqs().await);
    let clock = Arc::new(FixedClock::default());
    let store = PgStore::open(PgOptions::new(database.url.as_str()), clock.clone()).await.unwrap();
    let mut options = SqsOptions::new(place.prefix.as_str());
    options.visibility_timeout = Duration::from_secs(3);
    let credentials = Credentials::new("test", "test", None, None, "test");
    let config = psp_sqs::config().endpoint_url(place.endpoint).region(Region::new("us-east-1"));
    let config = config.credentials_provider(credentials).load().await;
    SqsQueue::create(&config, &options).await.unwrap();
    let queue = SqsQueue::open(&config, options, clock.clone()).await.unwrap();
    let stop = CancellationToken::new();
    for name in QueueName::ALL {
        let (outbox, broker) = (Arc::clone(&store) as _, Arc::clone(&queue) as _);
        tokio::spawn(psp_worker::relay(outbox, broker, name, RelayOptions::default(), stop.clone()));
    }
    let mut ports = Ports::of(store, clock, (database, stop.drop_guard()));
    ports.queue = queue.clone();
    ports.dead_letters = queue;
    // An event that follows one of another queue may wait for the second in which its relay looks again.
    ports.broker_latency = Some(Duration::from_secs(2));
    ports
}

mod store {
    psp_testkit::store_contract!(super::sqs);
}

mod queue {
    psp_testkit::queue_contract!(super::sqs);
}
