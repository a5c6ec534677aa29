//! docs/events.md says what every event is.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{DateTime, TimeDelta, Utc};
use psp_domain::ports::IdGenerator;
use psp_domain::{
    ChangeSet, Currency, EndpointStatus, Event, EventKind, FeeRules, GatewayReference, Installments, Money, Named,
    NewOrder, NewTransaction, Order, OrderLink, OrderName, OrderTransition, PaymentMethod, RefundFeePolicy,
    SealedSecret, Transaction, TransactionKind, Transition, Transitioned, WebhookEndpoint,
};
use psp_testkit::fixtures;
use uuid::Uuid;

const PAGE: &str = include_str!("../../../docs/events.md");

/// Numbers its ids.
#[derive(Default)]
struct Numbered(AtomicU64);

impl IdGenerator for Numbered {
    fn next_id(&self) -> Uuid {
        let number = self.0.fetch_add(1, Ordering::SeqCst) + 1;
        Uuid::from_u128(0x019c_13cf_6800_7000_8000_0000_0000_0000 + u128::from(number))
    }
}

/// Gathers events that happen a second after each other.
struct Story {
    ids: Numbered,
    now: DateTime<Utc>,
    /// The first of each kind.
    events: BTreeMap<EventKind, Event>,
}

impl Story {
    fn tell(&mut self, events: &[Event]) {
        for event in events {
            self.events.entry(event.kind).or_insert_with(|| event.clone());
        }
        self.now += TimeDelta::seconds(1);
    }

    fn next(&mut self, transition: Transition) -> Transitioned {
        let Transition::Executed(next) = transition else { panic!("it changes something") };
        self.tell(&next.events);
        *next
    }

    fn next_order(&mut self, transition: OrderTransition) -> Order {
        let OrderTransition::Executed(next) = transition else { panic!("it changes something") };
        self.tell(&next.events);
        next.order
    }

    fn created(&mut self, new: &NewTransaction) -> Transaction {
        let (transaction, event) = Transaction::create(new, self.now, &self.ids).unwrap();
        self.tell(&[event]);
        transaction
    }

    fn approved(&mut self, transaction: Transaction) -> Transitioned {
        let gateway = GatewayReference { gateway: "acquirer-a".parse().unwrap(), reference: "ref-1".into() };
        let next = transaction.approve(gateway, &FeeRules::default(), self.now, &self.ids).unwrap();
        self.next(next)
    }

    /// A payment that is approved, and gives back a part, nothing, and the rest.
    fn refunds(&mut self, transaction: Transaction) {
        let Transitioned { mut transaction, payables, .. } = self.approved(transaction);
        for (minor, is_given) in [(1000, true), (500, false), (2000, true)] {
            let amount = Money::new(minor, transaction.amount.currency());
            let asked = transaction.ask_refund(Some(amount), self.now, self.now, &self.ids).unwrap();
            self.tell(&asked.events);
            let refund = asked.refunds[0].clone();
            let ended = if is_given {
                asked.transaction.complete_refund(refund, &payables, RefundFeePolicy::Kept, self.now, &self.ids)
            } else {
                asked.transaction.fail_refund(refund, "refund_window_closed", &payables, self.now, &self.ids)
            };
            transaction = self.next(ended.unwrap()).transaction;
        }
    }

    fn orders(&mut self) -> Order {
        let new = NewOrder {
            customer_id: fixtures::customer("123"),
            user_id: "d55fa6d6-63c2-4633-aeaf-ecf0c80fb48f".parse().unwrap(),
            total: Money::new(99_900, Currency::BRL),
            payment_method: PaymentMethod::Wallet,
            correlation_id: "request-7".parse().unwrap(),
        };
        let place = |story: &mut Self| {
            let (order, ChangeSet { events, .. }) = Order::place(&new, story.now, &story.ids).unwrap();
            story.tell(&events);
            let order = story.next_order(order.create(story.now, &story.ids));
            let payment = psp_domain::TransactionId(story.ids.next_id());
            story.next_order(order.pay_with(payment, story.now, &story.ids))
        };
        let order = place(self);
        let failed = order.fail("payment_failed", self.now, &self.ids).unwrap();
        self.next_order(failed);
        let order = place(self);
        let paid = order.pay(self.now, &self.ids).unwrap();
        let paid = self.next_order(paid);
        let asked = paid.request_cancel(self.now, &self.ids).unwrap();
        let asked = self.next_order(asked);
        let cancelled = asked.cancel("requested", self.now, &self.ids).unwrap();
        self.next_order(cancelled)
    }

    /// The payments of that order, each ended in another way.
    fn payments(&mut self, order: &Order) {
        let new = NewTransaction {
            kind: TransactionKind::Payment,
            customer_id: order.customer_id.clone(),
            description: String::new(),
            amount: Money::new(3000, Currency::BRL),
            payment_method: order.payment_method,
            card: None,
            installments: Installments::ONE,
            named: Named { order_id: Some(order.id.to_string().parse::<OrderName>().unwrap()), ..Named::default() },
            order: Some(OrderLink { id: order.id, correlation_id: order.correlation_id.clone() }),
        };
        let declined = self.created(&new).decline("insufficient_funds", self.now, &self.ids).unwrap();
        self.next(declined);
        let failed = self.created(&new).fail("gateway_unavailable", self.now, &self.ids).unwrap();
        self.next(failed);
        let cancelled = self.created(&new).cancel(self.now, &self.ids).unwrap();
        self.next(cancelled);
        let transaction = self.created(&new);
        self.refunds(transaction);
    }

    fn endpoint(&mut self) {
        let endpoint = WebhookEndpoint {
            id: psp_domain::EndpointId(self.ids.next_id()),
            customer_id: fixtures::customer("123"),
            url: "https://shop.example/webhooks?token=hidden".into(),
            events: Vec::new(),
            description: String::new(),
            status: EndpointStatus::Enabled,
            disabled_reason: None,
            secret: SealedSecret(Vec::new()),
            previous_secret: None,
            failing_since: Some(self.now - TimeDelta::days(5)),
            version: 1,
            sequence: 0,
            created_at: self.now,
            updated_at: self.now,
        };
        let (_, event) = endpoint.disable("failing", self.now, &self.ids);
        self.tell(&[event]);
    }
}

/// The first event of each kind, of a story that is the same each time.
fn examples() -> BTreeMap<EventKind, Event> {
    let now = "2026-01-31T12:00:00Z".parse().unwrap();
    let mut story = Story { ids: Numbered::default(), now, events: BTreeMap::new() };
    let (plain, debit) = (fixtures::payment("123", 3000, 1), fixtures::debit("123", 2500));
    let transaction = story.created(&plain);
    story.refunds(transaction);
    let declined = story.created(&plain).decline("insufficient_funds", story.now, &story.ids).unwrap();
    story.next(declined);
    let failed = story.created(&plain).fail("gateway_unavailable", story.now, &story.ids).unwrap();
    story.next(failed);
    let cancelled = story.created(&plain).cancel(story.now, &story.ids).unwrap();
    story.next(cancelled);
    let paid_at_once = story.created(&debit);
    story.approved(paid_at_once);
    let order = story.orders();
    story.payments(&order);
    story.endpoint();
    story.events
}

#[test]
fn every_event_has_a_section_with_an_example_that_is_true() {
    let examples = examples();
    for kind in EventKind::ALL {
        let example = &examples[&kind];
        let heading = format!("\n### `{}`\n", kind.as_str());
        let section = PAGE.split_once(&heading).map(|(_, rest)| rest.split("\n##").next().unwrap());
        let expected = format!("\n```json\n{}\n```", example.to_json());
        assert!(section.is_some_and(|section| section.contains(&expected)), "{heading}{expected}");
    }
    assert_eq!(PAGE.matches("\n### `").count(), EventKind::ALL.len(), "nothing else is an event");
}

#[test]
fn the_page_says_which_fields_there_are() {
    let documented: Vec<_> = PAGE.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let fields = |json: &str| {
        let value: serde_json::Value = serde_json::from_str(json).unwrap();
        value.as_object().unwrap().keys().cloned().collect::<Vec<_>>()
    };
    for event in examples().values() {
        for field in fields(&event.to_json()).into_iter().chain(fields(&event.data)) {
            assert!(documented.contains(&field.as_str()), "{field} of {}", event.kind.as_str());
        }
    }
}

#[test]
fn an_event_whose_data_is_damaged_is_still_json() {
    let event = Event { data: "{".into(), ..examples().into_values().next().unwrap() };
    assert!(event.to_json().ends_with(r#""data":null}"#), "{}", event.to_json());
}
