//! What every store does.

#![expect(missing_docs, reason = "the names of tests are sentences, and their factories async")]

mod attempts;
mod callbacks;
mod gateways;
mod keys;
mod kinds;
mod looks;
mod orders;
mod races;
mod reads;
mod refunds;
mod settlement;
mod sweeps;
mod tokens;
mod writes;

pub use attempts::*;
pub use callbacks::*;
pub use gateways::*;
pub use keys::*;
pub use kinds::*;
pub use looks::*;
pub use orders::*;
pub use races::*;
pub use reads::*;
pub use refunds::*;
pub use settlement::*;
pub use sweeps::*;
pub use tokens::*;
pub use writes::*;

use psp_domain::ports::{Clock, Message, SettlementChunk, SettlementProgress};
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
            a_change_with_a_taken_key_or_a_stale_version_writes_neither
            an_expired_idempotency_key_is_free_again
            expired_idempotency_keys_are_purged_a_few_at_a_time
            a_record_is_kept_where_its_key_is_free
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
            attempts_are_written_with_their_transaction_and_its_card_is_kept
            the_end_of_authorization_is_written_with_its_attempt
            each_transaction_is_loaded_with_its_own_attempts
            a_stale_version_writes_no_attempt
            the_same_attempts_again_have_one_effect
            attempts_that_moved_on_are_stale_and_not_applied
            an_attempt_may_change_without_changing_its_state
            attempts_of_one_batch_are_taken_in_order_and_a_refused_one_harms_no_other
            a_large_batch_of_attempts_is_written_whole
            a_race_to_open_an_attempt_has_one_winner
            a_race_of_an_attempt_and_a_cancellation_has_one_winner
            attempts_delivered_to_many_at_once_have_one_effect
            a_sweep_asks_for_what_is_due_and_for_nothing_else
            a_sweep_takes_the_longest_due_first_and_no_more_than_its_limit
            a_sweep_asks_again_after_as_long_as_the_attempt_is_old_within_bounds
            a_sweep_moves_no_version
            sweeps_at_once_take_each_attempt_once
            attempts_that_may_have_charged_are_counted_once_they_are_old
            transactions_whose_message_was_lost_are_found_oldest_first
            a_callback_is_stored_with_its_message
            a_callback_that_comes_twice_is_stored_once
            a_callback_that_comes_to_many_at_once_is_stored_once
            a_transaction_has_a_bounded_number_of_callbacks
            a_callback_keeps_its_first_outcome
            callbacks_are_found_by_their_outcome_newest_first
            a_card_is_found_by_its_token_until_it_expires
            a_card_is_found_by_its_customer_only
            expired_cards_are_purged_a_few_at_a_time
            a_token_is_spent_with_its_payment
            a_payment_with_a_spent_token_writes_nothing
            a_payment_with_a_taken_key_spends_no_token
            the_same_payment_with_a_token_again_has_one_effect
            a_token_is_spent_once_in_a_batch
            a_race_for_a_token_has_one_winner
            a_card_is_kept_with_its_key
            a_card_with_a_taken_key_is_not_kept
            the_same_card_with_its_key_again_has_one_effect
            a_race_for_the_key_of_a_card_has_one_winner
            gateways_and_routes_come_back_as_they_were_put
            a_gateway_that_is_put_again_has_another_address_and_nothing_else
            a_route_is_named_by_its_gateway_and_criteria
            what_a_process_says_of_gateways_replaces_what_it_said_before
            transactions_of_every_kind_and_method_come_back_as_they_were
            a_list_holds_one_kind
            deposits_and_withdrawals_are_paid_at_once_and_owe_nothing
            a_refund_goes_from_request_to_settlement
            a_failed_refund_changes_no_payable
            a_refund_is_loaded_with_all_that_its_end_needs
            a_customer_sees_its_own_refunds_only
            a_refund_with_a_taken_key_writes_nothing
            refunds_of_one_batch_are_taken_in_order_and_a_refused_one_harms_no_other
            a_refund_delivered_to_many_at_once_has_one_effect
            a_race_of_refunds_has_one_winner
            a_race_to_end_a_refund_has_one_winner
            settlement_moves_the_version_of_what_waits_for_a_refund
            refunds_and_settlement_at_once_lose_nothing
            a_sweep_asks_for_refunds_that_are_due_and_for_nothing_else
            a_sweep_takes_the_longest_due_refunds_first_and_no_more_than_its_limit
            a_sweep_asks_again_after_as_long_as_the_refund_is_old_within_bounds
            sweeps_at_once_take_each_refund_once
            refunds_that_are_pending_are_counted_once_they_are_old
            an_order_is_read_back_with_its_message_and_counted
            orders_go_through_their_states
            an_order_and_its_payment_are_written_together_or_not_at_all
            an_order_that_is_there_is_a_duplicate_and_the_same_again_is_applied
            an_order_with_a_taken_key_is_not_written
            orders_of_one_batch_are_taken_in_order_and_a_refused_one_harms_no_other
            an_order_delivered_to_many_at_once_has_one_effect
            a_race_of_outcomes_of_an_order_has_one_winner
            counts_are_what_a_recount_finds
            a_customer_sees_its_own_orders_only
            orders_that_wait_are_found_with_how_far_their_payments_are
            orders_that_were_cancelled_are_found_by_when_and_with_what_is_kept
            pages_of_orders_and_their_payments_are_newest_first_without_gaps_or_repeats
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

/// The messages that can be received, which are done then; a relay may have to bring them to a broker first.
async fn received(ports: &Ports, queue: QueueName) -> Vec<Message> {
    let (mut messages, wait) = (Vec::new(), ports.broker_latency);
    loop {
        let more = ports.queue.receive(queue, 1000, wait.unwrap_or_default()).await.unwrap();
        ports.queue.ack(&more).await.unwrap();
        let is_all = more.is_empty() || wait.is_none();
        messages.extend(more.into_iter().map(|delivery| delivery.message));
        if is_all {
            return messages;
        }
    }
}

/// How many messages can be received, which are done then.
async fn messages(ports: &Ports, queue: QueueName) -> usize {
    received(ports, queue).await.len()
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
