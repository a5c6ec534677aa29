//! What every store does when events are listed, replayed and purged.

#![expect(missing_docs, reason = "the names of tests are sentences, and their factories async")]

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use psp_domain::ports::{Clock, DeliveryClaim, EndpointVerdict, Replay, ReplayTo, Replayed, SystemClock};
use psp_domain::{
    ConcludedDelivery, DeliveryAttempt, DeliveryVerdict, DueDelivery, Event, EventFilter, EventKind, PageRequest,
    Position, QueueName, Verdict, WebhookEndpoint,
};

use crate::{Ports, fixtures};

/// Runs the contract of listed events over the ports that an async function makes.
#[macro_export]
macro_rules! event_store_contract {
    ($make:path) => {
        $crate::contract_tests! { $make, $crate::contract::events_api,
            a_customer_finds_its_own_events_only
            pages_of_events_are_newest_first_without_gaps_or_repeats
            events_are_filtered_by_kind_aggregate_and_time
            a_filter_may_begin_with_the_epoch_and_end_with_time
            a_page_examines_so_many_events_and_no_more
            events_of_all_customers_are_listed_where_none_is_named
            commands_are_no_events
            replaying_to_webhooks_starts_what_failed_and_what_never_was
            replaying_to_webhooks_starts_what_was_delivered_only_when_asked_to
            replaying_to_queues_sends_what_is_done_again
            a_replay_goes_on_after_its_last_event
            a_dry_run_counts_the_same_and_writes_nothing
            old_events_are_purged_with_their_deliveries_oldest_first
            what_is_still_needed_is_not_purged
            what_became_free_is_purged_by_a_later_walk
            what_waits_for_a_deleted_endpoint_is_purged
            what_waits_for_a_disabled_endpoint_goes_with_its_event
            a_long_run_of_kept_events_hides_none_behind_it
        }
    };
}

const HOUR: Duration = Duration::from_hours(1);

/// Writes a payment of a customer and declines it: two events, of which the first is a message.
async fn declined(ports: &Ports, customer: &str) -> [Event; 2] {
    let (transaction, created) = fixtures::create(&fixtures::payment(customer, 2500, 1), ports.clock.now());
    let decline = fixtures::decline(&transaction, ports.clock.now());
    let events = [created.events[0].clone(), decline.events[0].clone()];
    assert_eq!(ports.store.apply_all(vec![created, decline]).await.unwrap(), [Verdict::Applied; 2]);
    events
}

/// Does what the messages ask for.
async fn acknowledge_all(ports: &Ports) -> usize {
    let mut count = 0;
    loop {
        let received = ports.queue.receive(QueueName::Transactions, 100, Duration::ZERO).await.unwrap();
        if received.is_empty() {
            return count;
        }
        count += received.len();
        ports.queue.ack(&received).await.unwrap();
    }
}

async fn endpoint(ports: &Ports, customer: &str, kinds: &[EventKind]) -> WebhookEndpoint {
    let endpoint = fixtures::endpoint(customer, kinds, ports.clock.now());
    assert_eq!(ports.endpoints.insert_endpoint(&endpoint, None).await.unwrap(), EndpointVerdict::Written);
    endpoint
}

async fn claim(ports: &Ports) -> Vec<DueDelivery> {
    let now = ports.clock.now();
    let asked = DeliveryClaim { now, max: 1_000, per_endpoint: 1_000, except: &[], leased_until: now + HOUR };
    ports.deliveries.claim_deliveries(asked).await.unwrap()
}

async fn conclude(ports: &Ports, due: &[DueDelivery], verdict: DeliveryVerdict) {
    let attempt = |due: &DueDelivery| DeliveryAttempt {
        number: due.attempts + 1,
        started_at: ports.clock.now(),
        duration_ms: 1,
        status: None,
        error: Some("timeout".into()),
        answer: String::new(),
    };
    let concluded = due.iter().map(|due| ConcludedDelivery {
        event_id: due.event.id,
        endpoint_id: due.endpoint.id,
        lease: due.lease,
        attempt: attempt(due),
        verdict,
    });
    ports.deliveries.conclude_deliveries(&concluded.collect::<Vec<_>>()).await.unwrap();
}

/// Every event of a filter, page by page.
async fn list(ports: &Ports, filter: &EventFilter, limit: u32) -> Vec<Event> {
    let (mut events, mut position) = (Vec::new(), Position::Page(1));
    loop {
        let page = ports.events.list_events(filter, PageRequest::new(position, limit).unwrap()).await.unwrap();
        assert!(page.items.len() <= limit as usize);
        events.extend(page.items);
        let Some(next) = page.next else { return events };
        position = Position::After(next);
    }
}

fn of(customer: &str) -> EventFilter {
    EventFilter { customer_id: Some(fixtures::customer(customer)), ..EventFilter::default() }
}

/// The events, newest first.
fn newest_first(events: impl IntoIterator<Item = Event>) -> Vec<Event> {
    let mut events: Vec<_> = events.into_iter().collect();
    events.sort_unstable_by_key(|event| std::cmp::Reverse(event.id));
    events
}

async fn replay(ports: &Ports, filter: &EventFilter, to: ReplayTo, is_dry_run: bool) -> Replayed {
    let replay = Replay { to, is_dry_run, now: ports.clock.now() };
    ports.events.replay_events(filter, replay, None, 1_000).await.unwrap()
}

pub async fn a_customer_finds_its_own_events_only(ports: Ports) {
    let [created, declined] = declined(&ports, "123").await;
    for event in [created, declined] {
        let (own, other) = (fixtures::customer("123"), fixtures::customer("456"));
        assert_eq!(ports.events.find_event(&own, event.id).await.unwrap(), Some(event.clone()));
        assert_eq!(ports.events.find_event(&other, event.id).await.unwrap(), None);
    }
}

pub async fn pages_of_events_are_newest_first_without_gaps_or_repeats(ports: Ports) {
    let mut written = Vec::new();
    for _ in 0..10 {
        written.extend(declined(&ports, "123").await);
        declined(&ports, "456").await;
    }
    let written = newest_first(written);
    for limit in [1, 3, 20, 200] {
        assert_eq!(list(&ports, &of("123"), limit).await, written);
    }
    let second = PageRequest::new(Position::Page(2), 7).unwrap();
    assert_eq!(ports.events.list_events(&of("123"), second).await.unwrap().items, written[7..14]);
}

/// Sets the clock: the ids of events are as old as they are.
fn set_clock(ports: &Ports) {
    let ahead = SystemClock.now() - ports.clock.now();
    ports.clock.advance(ahead.to_std().expect("the clock of tests is in the past"));
}

pub async fn events_are_filtered_by_kind_aggregate_and_time(ports: Ports) {
    set_clock(&ports);
    let begun = ports.clock.now();
    let first = declined(&ports, "123").await;
    ports.clock.advance(HOUR);
    let second = declined(&ports, "123").await;
    let others = declined(&ports, "456").await;
    let (created, later, own) = (first[0].clone(), second[0].clone(), of("123"));
    let cases = [
        (
            EventFilter { kinds: vec![EventKind::TransactionCreated], ..own.clone() },
            vec![created.clone(), later.clone()],
        ),
        (
            EventFilter {
                kinds: vec![EventKind::TransactionCreated, EventKind::TransactionDeclined],
                aggregate_id: Some(created.aggregate_id),
                ..own.clone()
            },
            first.to_vec(),
        ),
        (EventFilter { kinds: vec![EventKind::OrderPaid], ..own.clone() }, vec![]),
        (EventFilter { aggregate_id: Some(later.aggregate_id), ..own.clone() }, second.to_vec()),
        (EventFilter { aggregate_id: Some(others[0].aggregate_id), ..own.clone() }, vec![]),
        (EventFilter { from: Some(begun + HOUR), ..own.clone() }, second.to_vec()),
        (EventFilter { from: Some(begun), to: Some(begun + HOUR), ..own.clone() }, first.to_vec()),
        (EventFilter { to: Some(begun), ..own.clone() }, vec![]),
    ];
    for (filter, expected) in cases {
        assert_eq!(list(&ports, &filter, 2).await, newest_first(expected), "{filter:?}");
    }
}

pub async fn a_filter_may_begin_with_the_epoch_and_end_with_time(ports: Ports) {
    let written = newest_first(declined(&ports, "123").await);
    endpoint(&ports, "123", &[]).await;
    let (begin, end) = (DateTime::UNIX_EPOCH, DateTime::<Utc>::MAX_UTC);
    for (from, to) in [(Some(begin), None), (Some(begin - HOUR), Some(end)), (None, Some(end))] {
        let filter = EventFilter { from, to, ..of("123") };
        assert_eq!(list(&ports, &filter, 10).await, written, "{filter:?}");
        let to = ReplayTo::Webhooks { delivered: false, endpoint_id: None };
        assert_eq!(replay(&ports, &filter, to, true).await.events, 2, "{filter:?}");
    }
}

pub async fn a_page_examines_so_many_events_and_no_more(ports: Ports) {
    let old = declined(&ports, "123").await;
    for _ in 0..20 {
        let change = || fixtures::create(&fixtures::payment("123", 2500, 1), ports.clock.now()).1;
        let changes = std::iter::repeat_with(change).take(EventFilter::MAX_EXAMINED as usize / 20);
        ports.store.apply_all(changes.collect()).await.unwrap();
    }
    let young = declined(&ports, "123").await;
    let declined = EventFilter { kinds: vec![EventKind::TransactionDeclined], ..of("123") };
    let page = ports.events.list_events(&declined, PageRequest::default()).await.unwrap();
    assert_eq!(page.items, [young[1].clone()]);
    assert!(page.next.is_some(), "the page is short, and there is another");
    assert_eq!(list(&ports, &declined, 10).await, [young[1].clone(), old[1].clone()]);
    let of_one = EventFilter { aggregate_id: Some(old[0].aggregate_id), ..of("123") };
    assert_eq!(list(&ports, &of_one, 10).await, newest_first(old));
    let replay = Replay { to: ReplayTo::Queues, is_dry_run: true, now: ports.clock.now() };
    let (mut after, mut steps) = (None, Vec::new());
    loop {
        let replayed = ports.events.replay_events(&declined, replay, after, 10).await.unwrap();
        steps.push(replayed.events);
        after = replayed.last;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(steps, [1, 1], "it goes on after the last that was examined");
}

pub async fn events_of_all_customers_are_listed_where_none_is_named(ports: Ports) {
    let (mut written, mut of_one) = (Vec::new(), None);
    for customer in ["123", "456", "789"] {
        let events = declined(&ports, customer).await;
        of_one = Some(events.clone());
        written.extend(events);
    }
    assert_eq!(list(&ports, &EventFilter::default(), 4).await, newest_first(written));
    let of_one = of_one.expect("the last one");
    let filter = EventFilter { aggregate_id: Some(of_one[0].aggregate_id), ..EventFilter::default() };
    assert_eq!(list(&ports, &filter, 4).await, newest_first(of_one));
}

pub async fn commands_are_no_events(ports: Ports) {
    let (transaction, created) = fixtures::create(&fixtures::payment("123", 1000, 1), ports.clock.now());
    ports.store.apply_all(vec![created, fixtures::approve(&transaction, ports.clock.now())]).await.unwrap();
    let before = list(&ports, &EventFilter::default(), 100).await;
    let settle = psp_domain::usecases::SettlePayables::new(ports.settlement.clone(), ports.sources());
    let date = (ports.clock.now() + TimeDelta::days(40)).date_naive();
    assert_eq!(settle.plan(Some(date), 1).await.unwrap().chunks, 1);
    assert_eq!(list(&ports, &EventFilter::default(), 100).await, before);
    assert_eq!(ports.events.purge_events(ports.clock.now() + TimeDelta::days(1), 100).await.unwrap(), 1);
    assert_eq!(list(&ports, &EventFilter::default(), 100).await.len(), before.len() - 1);
    let sent = ports.queue.receive(QueueName::PayablesSettlement, 10, Duration::ZERO).await.unwrap();
    assert_eq!(sent.len(), 1, "the command is there");
}

pub async fn replaying_to_webhooks_starts_what_failed_and_what_never_was(ports: Ports) {
    let never = declined(&ports, "123").await;
    let own = endpoint(&ports, "123", &[EventKind::TransactionCreated]).await;
    let [failed, delivered, pending] =
        [declined(&ports, "123").await, declined(&ports, "123").await, declined(&ports, "123").await];
    let claimed = claim(&ports).await;
    let due = |event: &Event| claimed.iter().filter(|due| due.event.id == event.id).cloned().collect::<Vec<_>>();
    conclude(&ports, &due(&failed[0]), DeliveryVerdict::Failed).await;
    conclude(&ports, &due(&delivered[0]), DeliveryVerdict::Delivered).await;
    let to = ReplayTo::Webhooks { delivered: false, endpoint_id: None };
    let expected = Replayed { events: 8, replayed: 2, last: None };
    assert_eq!(replay(&ports, &of("123"), to, false).await, expected);
    let mut again: Vec<_> = claim(&ports).await.into_iter().map(|due| (due.event.id, due.endpoint.id)).collect();
    again.sort_unstable();
    assert_eq!(again, [(never[0].id, own.id), (failed[0].id, own.id)]);
    // What is pending stays with whoever attempts it.
    conclude(&ports, &due(&pending[0]), DeliveryVerdict::Delivered).await;
    let deliveries = ports.deliveries.deliveries_of(&own.customer_id, pending[0].id).await.unwrap();
    assert_eq!(deliveries[0].attempts.len(), 1);
    assert_eq!(replay(&ports, &of("123"), to, false).await.replayed, 0, "all are pending or delivered");
}

pub async fn replaying_to_webhooks_starts_what_was_delivered_only_when_asked_to(ports: Ports) {
    endpoint(&ports, "123", &[]).await;
    let written = declined(&ports, "123").await;
    conclude(&ports, &claim(&ports).await, DeliveryVerdict::Delivered).await;
    assert_eq!(
        replay(&ports, &of("123"), ReplayTo::Webhooks { delivered: false, endpoint_id: None }, false).await.replayed,
        0
    );
    assert_eq!(
        replay(&ports, &of("123"), ReplayTo::Webhooks { delivered: true, endpoint_id: None }, false).await.replayed,
        2
    );
    let again = claim(&ports).await;
    assert!(again.len() == 2 && again.iter().all(|due| (due.attempts, due.tries) == (1, 0)));
    assert!(written.iter().all(|event| again.iter().any(|due| due.event == *event)));
}

pub async fn replaying_to_queues_sends_what_is_done_again(ports: Ports) {
    let [created, _] = declined(&ports, "123").await;
    assert_eq!(replay(&ports, &of("123"), ReplayTo::Queues, false).await.replayed, 0, "it is pending");
    assert_eq!(acknowledge_all(&ports).await, 1);
    let [dead, _] = declined(&ports, "123").await;
    let received = ports.queue.receive(QueueName::Transactions, 10, Duration::ZERO).await.unwrap();
    ports.queue.dead_letter(&received[0], "poison").await.unwrap();
    let expected = Replayed { events: 4, replayed: 1, last: None };
    assert_eq!(replay(&ports, &EventFilter::default(), ReplayTo::Queues, false).await, expected);
    let received = ports.queue.receive(QueueName::Transactions, 10, Duration::ZERO).await.unwrap();
    assert_eq!(received.iter().map(|delivery| delivery.message.id).collect::<Vec<_>>(), [created.id]);
    assert_eq!(received[0].receive_count, 1);
    assert!(ports.dead_letters.find(dead.id).await.unwrap().is_some());
    assert_eq!(replay(&ports, &of("123"), ReplayTo::Queues, false).await.replayed, 0, "again it is pending");
}

pub async fn a_replay_goes_on_after_its_last_event(ports: Ports) {
    for _ in 0..5 {
        declined(&ports, "123").await;
    }
    endpoint(&ports, "123", &[]).await;
    let replay = Replay {
        to: ReplayTo::Webhooks { delivered: false, endpoint_id: None },
        is_dry_run: false,
        now: ports.clock.now(),
    };
    let (mut after, mut batches) = (None, Vec::new());
    loop {
        let replayed = ports.events.replay_events(&of("123"), replay, after, 4).await.unwrap();
        batches.push((replayed.events, replayed.replayed));
        after = replayed.last;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(batches, [(4, 4), (4, 4), (2, 2)]);
    assert_eq!(claim(&ports).await.len(), 10);
}

pub async fn a_dry_run_counts_the_same_and_writes_nothing(ports: Ports) {
    for _ in 0..3 {
        declined(&ports, "123").await;
    }
    endpoint(&ports, "123", &[EventKind::TransactionDeclined]).await;
    endpoint(&ports, "123", &[]).await;
    declined(&ports, "123").await;
    let claimed = claim(&ports).await;
    conclude(&ports, &claimed[..1], DeliveryVerdict::Delivered).await;
    conclude(&ports, &claimed[1..2], DeliveryVerdict::Failed).await;
    acknowledge_all(&ports).await;
    for (to, count) in [
        (ReplayTo::Webhooks { delivered: false, endpoint_id: None }, 10),
        (ReplayTo::Webhooks { delivered: true, endpoint_id: None }, 1),
        (ReplayTo::Queues, 4),
    ] {
        let dry = replay(&ports, &of("123"), to, true).await;
        assert!(claim(&ports).await.is_empty() && acknowledge_all(&ports).await == 0, "nothing is written");
        let done = replay(&ports, &of("123"), to, false).await;
        assert_eq!((dry, done.replayed), (done, count), "{to:?}");
        conclude(&ports, &claim(&ports).await, DeliveryVerdict::RetryAt(ports.clock.now() + TimeDelta::days(9))).await;
    }
}

pub async fn old_events_are_purged_with_their_deliveries_oldest_first(ports: Ports) {
    let own = endpoint(&ports, "123", &[]).await;
    let [first, second] = [declined(&ports, "123").await, declined(&ports, "123").await];
    ports.clock.advance(HOUR);
    let before = ports.clock.now();
    let young = declined(&ports, "123").await;
    acknowledge_all(&ports).await;
    conclude(&ports, &claim(&ports).await, DeliveryVerdict::Delivered).await;
    assert_eq!(ports.events.purge_events(before, 2).await.unwrap(), 2);
    let [old, rest] = [first, second.clone()].map(newest_first);
    let left: Vec<_> = newest_first(young.clone()).into_iter().chain(rest).collect();
    assert_eq!(list(&ports, &of("123"), 100).await, left);
    assert_eq!(ports.events.purge_events(before, 100).await.unwrap(), 2);
    assert_eq!(ports.events.purge_events(before, 100).await.unwrap(), 0);
    assert_eq!(list(&ports, &of("123"), 100).await, newest_first(young));
    for event in old.iter().chain(&second) {
        assert!(ports.deliveries.deliveries_of(&own.customer_id, event.id).await.unwrap().is_empty());
    }
}

pub async fn what_is_still_needed_is_not_purged(ports: Ports) {
    let [message, done] = declined(&ports, "123").await;
    endpoint(&ports, "456", &[EventKind::TransactionDeclined]).await;
    let [other, waiting] = declined(&ports, "456").await;
    let received = ports.queue.receive(QueueName::Transactions, 10, Duration::ZERO).await.unwrap();
    let dead = received.iter().find(|delivery| delivery.message.id == other.id).expect("the message");
    ports.queue.dead_letter(dead, "poison").await.unwrap();
    let before = ports.clock.now() + TimeDelta::days(1);
    assert_eq!(ports.events.purge_events(before, 100).await.unwrap(), 1);
    let kept = list(&ports, &EventFilter::default(), 100).await;
    assert_eq!(kept, newest_first([message, other, waiting]));
    assert_eq!(ports.events.find_event(&done.customer_id, done.id).await.unwrap(), None);
}

pub async fn what_became_free_is_purged_by_a_later_walk(ports: Ports) {
    let [first, second] = [declined(&ports, "123").await, declined(&ports, "123").await];
    let before = ports.clock.now() + TimeDelta::days(1);
    // The walk goes on behind what it kept, comes to the end, and begins again.
    assert_eq!(ports.events.purge_events(before, 1).await.unwrap(), 1);
    assert_eq!(ports.events.purge_events(before, 100).await.unwrap(), 1);
    assert_eq!(list(&ports, &of("123"), 100).await, newest_first([first[0].clone(), second[0].clone()]));
    assert_eq!(acknowledge_all(&ports).await, 2);
    assert_eq!(ports.events.purge_events(before, 100).await.unwrap(), 2);
    assert!(list(&ports, &of("123"), 100).await.is_empty());
}

pub async fn what_waits_for_a_deleted_endpoint_is_purged(ports: Ports) {
    let own = endpoint(&ports, "123", &[]).await;
    declined(&ports, "123").await;
    acknowledge_all(&ports).await;
    let before = ports.clock.now() + TimeDelta::days(1);
    assert_eq!(ports.events.purge_events(before, 100).await.unwrap(), 0);
    assert!(ports.endpoints.delete_endpoint(&own.customer_id, own.id).await.unwrap());
    assert_eq!(ports.events.purge_events(before, 100).await.unwrap(), 2);
}

pub async fn what_waits_for_a_disabled_endpoint_goes_with_its_event(ports: Ports) {
    let own = endpoint(&ports, "123", &[]).await;
    let [created, declined] = declined(&ports, "123").await;
    acknowledge_all(&ports).await;
    let disabled = WebhookEndpoint { status: psp_domain::EndpointStatus::Disabled, version: 2, ..own };
    assert_eq!(ports.endpoints.update_endpoint(&disabled, 1, &[], None).await.unwrap(), EndpointVerdict::Written);
    assert_eq!(ports.events.purge_events(created.occurred_at, 100).await.unwrap(), 0, "they are young");
    let before = ports.clock.now() + TimeDelta::days(1);
    assert_eq!(ports.events.purge_events(before, 100).await.unwrap(), 2);
    for event in [created, declined] {
        assert!(ports.deliveries.deliveries_of(&event.customer_id, event.id).await.unwrap().is_empty());
    }
}

pub async fn a_long_run_of_kept_events_hides_none_behind_it(ports: Ports) {
    for _ in 0..5 {
        let changes = (0..250).map(|_| fixtures::create(&fixtures::new_transaction(), ports.clock.now()).1);
        ports.store.apply_all(changes.collect()).await.unwrap();
    }
    let behind = [declined(&ports, "456").await, declined(&ports, "456").await];
    let before = ports.clock.now() + TimeDelta::days(1);
    for _ in 0..2 {
        assert_eq!(ports.events.purge_events(before, 1).await.unwrap(), 1);
    }
    assert_eq!(ports.events.purge_events(before, 1).await.unwrap(), 0);
    let left = list(&ports, &of("456"), 100).await;
    assert_eq!(left, newest_first(behind.map(|[created, _]| created)));
}
