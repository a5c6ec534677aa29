//! What every store does.

#![expect(missing_docs, reason = "the names of tests are sentences, and their factories async")]

mod keys;
mod races;
mod reads;
mod settlement;
mod writes;

pub use keys::*;
pub use races::*;
pub use reads::*;
pub use settlement::*;
pub use writes::*;

use std::time::Duration;

use psp_domain::ports::{Clock, SettlementChunk, SettlementProgress};
use psp_domain::usecases::SettlePayables;
use psp_domain::{
    Currency, PageRequest, Payable, Position, QueueName, SealedCard, Transaction, TransactionId, Verdict,
};

use super::PATIENCE;
use crate::{Ports, fixtures};

/// Runs the store contract over the ports that an async function makes.
#[macro_export]
macro_rules! store_contract {
    ($make:path) => {
        $crate::contract_tests! { $make, $crate::contract::store,
            a_created_transaction_can_be_read_and_its_message_received
            a_batch_does_the_same_as_its_change_sets_one_at_a_time
            a_large_batch_is_written_whole
            an_empty_batch_has_no_verdicts
            the_same_change_set_again_has_one_effect
            a_stale_version_writes_nothing
            an_update_of_a_transaction_that_does_not_exist_is_stale
            a_taken_installment_is_a_duplicate_and_writes_nothing
            change_sets_for_one_transaction_in_one_batch_are_taken_in_order
            a_refused_change_set_harms_no_other_of_its_batch
            the_sealed_card_is_gone_once_authorization_ended
            an_idempotency_key_is_taken_once
            an_expired_idempotency_key_is_free_again
            expired_idempotency_keys_are_purged_a_few_at_a_time
            a_customer_sees_its_own_rows_only
            pages_are_newest_first_without_gaps_or_repeats
            pages_of_payables_are_newest_first_without_gaps_or_repeats
            balances_are_the_sums_of_the_payables
            balances_of_currencies_are_kept_apart
            a_race_of_outcomes_has_one_winner
            a_race_of_approvals_makes_each_payable_once
            a_change_set_delivered_to_many_at_once_has_one_effect
            a_race_for_an_idempotency_key_has_one_winner
            settlement_pays_what_is_due_and_nothing_else
            settlement_finishes_a_transaction_with_its_last_installment
            settlement_counts_each_currency
            two_runs_at_once_pay_once
            chunks_settled_by_many_at_once_finish_each_transaction_once
            a_settlement_run_is_cut_into_chunks_with_a_message_each
            a_settlement_run_has_a_bounded_number_of_chunks
            a_settlement_run_that_does_not_exist_is_none
        }
    };
}

async fn create(ports: &Ports, customer: &str, minor: i64, installments: u8) -> Transaction {
    let new = fixtures::payment(customer, minor, installments);
    let (transaction, change) = fixtures::create(&new, ports.clock.now());
    assert_eq!(ports.store.apply(change).await.unwrap(), Verdict::Applied);
    transaction
}

async fn approved(ports: &Ports, customer: &str, minor: i64, installments: u8) -> Transaction {
    let transaction = create(ports, customer, minor, installments).await;
    let change = fixtures::approve(&transaction, ports.clock.now());
    assert_eq!(ports.store.apply(change).await.unwrap(), Verdict::Applied);
    transaction
}

async fn load(ports: &Ports, t: &Transaction) -> Transaction {
    ports.transactions.find(&t.customer_id, t.id).await.unwrap().expect("the transaction")
}

async fn payables(ports: &Ports, customer: &str) -> Vec<Payable> {
    let customer = fixtures::customer(customer);
    let mut all = Vec::new();
    let mut page = PageRequest::default();
    loop {
        let part = ports.payables.list(&customer, page).await.unwrap();
        all.extend(part.items);
        let Some(next) = part.next else { return all };
        page = PageRequest::new(Position::After(next), PageRequest::MAX_LIMIT).unwrap();
    }
}

async fn balance(ports: &Ports, customer: &str) -> (i64, i64) {
    let balance = ports.balances.balance(&fixtures::customer(customer), Currency::BRL).await.unwrap();
    (balance.available.minor(), balance.waiting_funds.minor())
}

/// How many messages can be received; a relay may have to bring them to a broker first.
async fn messages(ports: &Ports, queue: QueueName) -> usize {
    let Some(wait) = ports.broker_latency else {
        return ports.queue.receive(queue, 1000, Duration::ZERO).await.unwrap().len();
    };
    let mut count = 0;
    loop {
        match ports.queue.receive(queue, 1000, wait).await.unwrap().len() {
            0 => return count,
            more => count += more,
        }
    }
}

/// What is kept of a transaction's card.
async fn sealed_card(ports: &Ports, id: TransactionId) -> Option<SealedCard> {
    let loaded = ports.transactions.load_for_authorization(&[id]).await.unwrap();
    loaded.into_iter().next().expect("the transaction").card
}

/// Settles every chunk of a run for what is due in that many days.
async fn settle(ports: &Ports, days: u64, chunk_size: u32) -> SettlementProgress {
    let date = (ports.clock.now() + chrono::Days::new(days)).date_naive();
    let settle = SettlePayables::new(ports.settlement.clone(), ports.sources());
    let run = settle.plan(Some(date), chunk_size).await.unwrap();
    let mut payables = 0;
    for number in 1..=run.chunks {
        let chunk = SettlementChunk { run_id: run.id, number };
        let settled = settle.settle(chunk).await.unwrap().expect("the chunk");
        assert!(settled.payables <= u64::from(chunk_size), "{settled:?}");
        payables += settled.payables;
        let progress = settle.progress(run.id).await.unwrap().expect("the run");
        assert_eq!((progress.settled_chunks, progress.payables), (number, payables));
        assert_eq!(settle.settle(chunk).await.unwrap().expect("the chunk").payables, 0, "again: nothing");
    }
    settle.progress(run.id).await.unwrap().expect("the run")
}
