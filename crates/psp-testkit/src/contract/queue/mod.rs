//! What every queue does.

#![expect(missing_docs, reason = "the names of tests are sentences, and their factories async")]

mod dead_letters;
mod leases;
mod receiving;

pub use dead_letters::*;
pub use leases::*;
pub use receiving::*;

use std::time::Duration;

use psp_domain::ports::{Delivery, IdGenerator, Message, UuidV7Generator};
use psp_domain::{MessageId, QueueName};

use super::PATIENCE;
use crate::Ports;

const QUEUE: QueueName = QueueName::PayablesSettlement;

/// Runs the queue contract over the ports that an async function makes.
#[macro_export]
macro_rules! queue_contract {
    ($make:path) => {
        $crate::contract_tests! { $make, $crate::contract::queue,
            what_is_sent_is_received_once_while_it_is_leased
            what_is_not_acknowledged_comes_again
            a_retry_comes_after_its_delay
            extending_keeps_a_message_invisible
            an_outdated_receipt_has_no_effect
            a_message_received_too_often_is_a_dead_letter
            a_message_retried_too_often_is_a_dead_letter_with_its_reason
            a_dead_letter_can_be_listed_replayed_and_discarded
            dead_letters_are_listed_oldest_first_a_page_at_a_time
            depths_count_what_is_pending_and_what_is_dead
            poison_stops_no_other_message
            messages_come_oldest_first_and_no_more_than_asked_for
            receiving_from_an_empty_queue_waits_no_longer_than_told
            a_waiting_receiver_is_woken_by_a_send
            a_waiting_receiver_is_woken_by_a_commit
            receivers_at_once_never_get_the_same_message
            an_acknowledgement_of_many_passes_over_outdated_receipts
            the_queues_do_not_mix
        }
    };
}

/// Runs what a queue keeps beyond the queue contract when it is a table.
#[macro_export]
macro_rules! table_queue_contract {
    ($make:path) => {
        $crate::contract_tests! { $make, $crate::contract::queue,
            the_same_message_sent_twice_is_there_once
        }
    };
}

fn message(body: &str) -> Message {
    Message {
        id: MessageId(UuidV7Generator.next_id()),
        queue: QUEUE,
        kind: "test".into(),
        aggregate_id: UuidV7Generator.next_id(),
        body: body.into(),
    }
}

async fn send(ports: &Ports, body: &str) -> Message {
    let message = message(body);
    ports.queue.send(vec![message.clone()]).await.unwrap();
    message
}

/// What can be received now.
async fn receive(ports: &Ports) -> Vec<Delivery> {
    ports.queue.receive(QUEUE, 10, Duration::ZERO).await.unwrap()
}

async fn receive_one(ports: &Ports) -> Delivery {
    let mut received = receive(ports).await;
    assert_eq!(received.len(), 1);
    received.remove(0)
}

/// What comes once that time has passed: the test's clock moves, and a broker is waited for.
async fn receive_after(ports: &Ports, time: Duration) -> Vec<Delivery> {
    ports.clock.advance(time);
    let wait = ports.broker_latency.map_or(Duration::ZERO, |latency| time + latency);
    ports.queue.receive(QUEUE, 10, wait).await.unwrap()
}

/// What comes once the leases of what was received have run out.
async fn receive_after_leases(ports: &Ports) -> Vec<Delivery> {
    receive_after(ports, ports.queue.visibility_timeout() + Duration::from_millis(1)).await
}

async fn receive_one_after_leases(ports: &Ports) -> Delivery {
    let mut received = receive_after_leases(ports).await;
    assert_eq!(received.len(), 1);
    received.remove(0)
}
