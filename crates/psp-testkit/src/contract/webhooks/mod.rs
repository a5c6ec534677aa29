//! What every store does with webhook endpoints and the deliveries to them.

#![expect(missing_docs, reason = "the names of tests are sentences, and their factories async")]

mod claims;
mod conclusions;
mod endpoints;
mod fan_out;
mod keys;
mod starting_anew;

pub use claims::*;
pub use conclusions::*;
pub use endpoints::*;
pub use fan_out::*;
pub use keys::*;
pub use starting_anew::*;

use std::time::Duration;

use chrono::{DateTime, Utc};
use psp_domain::ports::{Clock, DeliveryClaim, EndpointVerdict};
use psp_domain::{
    ConcludedDelivery, DeliveryAttempt, DeliveryStatus, DeliveryVerdict, DueDelivery, EndpointId, EndpointStatus,
    Event, EventKind, MessageId, Verdict, WebhookDelivery, WebhookEndpoint,
};

use crate::{Ports, fixtures};

/// Runs the contract of endpoints and deliveries over the ports that an async function makes.
#[macro_export]
macro_rules! webhook_contract {
    ($make:path) => {
        $crate::contract_tests! { $make, $crate::contract::webhooks,
            an_endpoint_is_read_as_it_was_written
            a_customer_sees_its_own_endpoints_only
            pages_of_endpoints_are_newest_first
            all_endpoints_are_walked_by_their_ids
            an_update_expects_a_version
            an_update_of_an_endpoint_that_is_gone_is_stale
            a_race_of_updates_has_one_winner
            a_customer_has_so_many_endpoints_and_no_more
            a_race_of_new_endpoints_keeps_to_the_limit
            enabling_clears_since_when_it_fails_and_disabling_does_not
            an_endpoint_fails_on_when_it_changes_unless_its_url_does
            a_write_of_an_endpoint_takes_its_key
            a_write_with_a_taken_key_changes_no_endpoint
            a_write_that_is_refused_takes_no_key
            a_race_for_the_key_of_an_endpoint_has_one_winner
            events_become_deliveries_to_the_endpoints_that_ask_for_them
            deliveries_go_to_the_customers_own_endpoints
            a_disabled_endpoint_gets_none_of_the_events_meanwhile
            a_large_batch_is_delivered_whole
            a_change_set_that_comes_twice_is_delivered_once
            a_refused_change_set_is_not_delivered
            settlement_is_delivered_once
            the_events_of_an_update_are_delivered_to_the_others
            a_commit_wakes_who_delivers
            one_busy_endpoint_leaves_room_for_the_others
            the_longest_due_endpoint_comes_first
            a_claim_takes_no_more_than_it_asks_for
            excepted_endpoints_are_passed_over
            what_is_leased_is_claimed_again_after_its_lease
            nothing_is_claimed_before_it_is_due
            what_waits_for_a_disabled_endpoint_waits_on
            what_waits_for_a_deleted_endpoint_is_never_claimed
            what_waits_for_a_deleted_endpoint_is_gone
            claimers_at_once_never_get_the_same_delivery
            a_delivered_event_is_final_and_shows_its_attempt
            a_failed_attempt_is_made_again_when_it_is_due
            attempts_are_numbered_and_tries_counted
            the_end_of_the_schedule_is_final
            concluding_under_a_lost_lease_changes_nothing
            concluding_twice_counts_once
            a_batch_of_conclusions_is_taken_one_by_one
            an_endpoint_fails_since_its_first_failure_after_a_success
            the_last_word_of_a_large_batch_says_since_when_an_endpoint_fails
            conclusions_leave_the_version_of_endpoints_alone
            a_customer_sees_its_own_deliveries_only
            redelivering_starts_anew_whatever_became_of_it
            redelivering_leaves_what_is_due_or_attempted_just_now_alone
            redelivering_starts_what_waits_for_a_later_attempt
            redelivering_passes_over_disabled_endpoints
            redelivering_to_one_endpoint_leaves_the_others_alone
            the_last_attempts_and_the_newest_deliveries_are_shown
            another_customers_event_is_not_redelivered
            the_backlog_counts_what_waits_for_enabled_endpoints
        }
    };
}

/// How long a claim leases.
const LEASE: Duration = Duration::from_mins(1);

/// Writes an endpoint that asks for these kinds of events.
async fn endpoint(ports: &Ports, customer: &str, kinds: &[EventKind]) -> WebhookEndpoint {
    let endpoint = fixtures::endpoint(customer, kinds, ports.clock.now());
    assert_eq!(ports.endpoints.insert_endpoint(&endpoint, None).await.unwrap(), EndpointVerdict::Written);
    endpoint
}

/// Writes a payment: one event, `transaction.created`.
async fn event(ports: &Ports, customer: &str) -> Event {
    let (_, created) = fixtures::create(&fixtures::payment(customer, 2500, 1), ports.clock.now());
    let event = created.events[0].clone();
    assert_eq!(ports.store.apply(created).await.unwrap(), Verdict::Applied);
    event
}

/// Writes the endpoint with that status.
async fn set_status(ports: &Ports, endpoint: &WebhookEndpoint, status: EndpointStatus) -> WebhookEndpoint {
    let found = find(ports, endpoint).await;
    let next = WebhookEndpoint { status, version: found.version + 1, ..found.clone() };
    let verdict = ports.endpoints.update_endpoint(&next, found.version, &[], None).await.unwrap();
    assert_eq!(verdict, EndpointVerdict::Written);
    next
}

/// The endpoint as it is stored.
async fn find(ports: &Ports, endpoint: &WebhookEndpoint) -> WebhookEndpoint {
    ports.endpoints.find_endpoint(&endpoint.customer_id, endpoint.id).await.unwrap().expect("the endpoint")
}

/// A claim of everything that is due.
fn everything(ports: &Ports) -> DeliveryClaim<'static> {
    let now = ports.clock.now();
    DeliveryClaim { now, max: 1_000, per_endpoint: 1_000, except: &[], leased_until: now + LEASE }
}

/// Claims everything that is due.
async fn claim(ports: &Ports) -> Vec<DueDelivery> {
    ports.deliveries.claim_deliveries(everything(ports)).await.unwrap()
}

/// Claims the only delivery that is due.
async fn claim_one(ports: &Ports) -> DueDelivery {
    let claimed = claim(ports).await;
    let [delivery] = &*claimed else { panic!("{} are due", claimed.len()) };
    delivery.clone()
}

/// What an attempt that starts now comes to.
fn conclusion(ports: &Ports, due: &DueDelivery, verdict: DeliveryVerdict) -> ConcludedDelivery {
    conclusion_at(due, verdict, ports.clock.now())
}

fn conclusion_at(due: &DueDelivery, verdict: DeliveryVerdict, started_at: DateTime<Utc>) -> ConcludedDelivery {
    let is_delivered = verdict == DeliveryVerdict::Delivered;
    let attempt = DeliveryAttempt {
        number: due.attempts + 1,
        started_at,
        duration_ms: 12,
        status: is_delivered.then_some(204),
        error: (!is_delivered).then(|| "timeout".to_owned()),
        answer: "{}".into(),
    };
    let (event_id, endpoint_id, lease) = (due.event.id, due.endpoint.id, due.lease);
    ConcludedDelivery { event_id, endpoint_id, lease, attempt, verdict }
}

/// Concludes one delivery; returns its attempt.
async fn conclude(ports: &Ports, due: &DueDelivery, verdict: DeliveryVerdict) -> DeliveryAttempt {
    let concluded = conclusion(ports, due, verdict);
    ports.deliveries.conclude_deliveries(std::slice::from_ref(&concluded)).await.unwrap();
    concluded.attempt
}

/// The deliveries of an event.
async fn deliveries(ports: &Ports, event: &Event) -> Vec<WebhookDelivery> {
    ports.deliveries.deliveries_of(&event.customer_id, event.id).await.unwrap()
}

/// The only delivery of an event.
async fn delivery(ports: &Ports, event: &Event) -> WebhookDelivery {
    let own = deliveries(ports, event).await;
    let [delivery] = &*own else { panic!("{} deliveries", own.len()) };
    delivery.clone()
}

/// Which event is delivered where, in a total order.
fn places(deliveries: &[DueDelivery]) -> Vec<(MessageId, EndpointId)> {
    let mut places: Vec<_> = deliveries.iter().map(|due| (due.event.id, due.endpoint.id)).collect();
    places.sort_unstable();
    places
}

fn is_pending(delivery: &WebhookDelivery) -> bool {
    delivery.status == DeliveryStatus::Pending
}
