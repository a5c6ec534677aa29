//! Things to test with.

use chrono::{DateTime, Utc};
use psp_domain::ports::{Clock, IdGenerator, SystemClock, UuidV7Generator};
use psp_domain::{
    Attempt, AttemptReference, AttemptState, Card, CardNumber, ChangeSet, Currency, CustomerId, EndpointId,
    EndpointStatus, EventKind, FeeRules, Fingerprint, GatewayReference, IdempotencyRecord, Installments, Money, Named,
    NewOrder, NewTransaction, Order, OrderLink, OrderTransition, OrderWrite, PaymentMethod, SealedCard, SealedSecret,
    StoredAnswer, Transaction, TransactionKind, TransactionWrite, Transition, WebhookEndpoint,
};

/// The card of the documentation's example.
pub fn card() -> Card {
    card_numbered("4111111111111111")
}

/// A card of that number.
pub fn card_numbered(number: &str) -> Card {
    Card {
        number: number.parse().unwrap(),
        holder_name: "Luke Skywalker".parse().unwrap(),
        expiry: "10/25".parse().unwrap(),
        verification_code: "123".parse().unwrap(),
    }
}

/// A card number of 12 to 19 digits, none of the sandbox's.
pub fn card_number_of_length(length: usize) -> String {
    let checked = |digit| format!("5{}{digit}", "0".repeat(length - 2));
    (0..10).map(checked).find(|number| number.parse::<CardNumber>().is_ok()).expect("one of ten is the check digit")
}

/// A customer of that name.
pub fn customer(name: &str) -> CustomerId {
    name.parse().unwrap()
}

/// The documentation's example: customer 123 sells a lightsaber for 25.00 BRL by credit card.
pub fn new_transaction() -> NewTransaction {
    payment("123", 2500, 1)
}

/// A credit card payment in BRL.
pub fn payment(customer_name: &str, minor: i64, installments: u8) -> NewTransaction {
    NewTransaction {
        kind: TransactionKind::Payment,
        customer_id: customer(customer_name),
        description: "Lightsaber".into(),
        amount: Money::new(minor, Currency::BRL),
        payment_method: PaymentMethod::CreditCard,
        card: Some(card()),
        installments: Installments::new(installments).unwrap(),
        named: Named::default(),
        order: None,
    }
}

/// A payment, deposit or withdrawal without a card, in BRL.
pub fn cardless(kind: TransactionKind, method: PaymentMethod, minor: i64) -> NewTransaction {
    NewTransaction { kind, payment_method: method, card: None, ..payment("123", minor, 1) }
}

/// A debit card payment in BRL: paid at once when it is approved.
pub fn debit(customer_name: &str, minor: i64) -> NewTransaction {
    NewTransaction { payment_method: PaymentMethod::DebitCard, ..payment(customer_name, minor, 1) }
}

/// The change set of a new transaction, at that time.
pub fn create(new: &NewTransaction, now: DateTime<Utc>) -> (Transaction, ChangeSet) {
    let (transaction, event) = Transaction::create(new, now, &UuidV7Generator).unwrap();
    let card = new.card.as_ref().map(|_| SealedCard(vec![7; 100]));
    let change = ChangeSet::create(transaction.clone(), card, event);
    (transaction, change)
}

/// The change set of the example.
pub fn created_change() -> ChangeSet {
    create(&new_transaction(), SystemClock.now()).1
}

/// The change set of an approval by the default fee rules, at that time.
pub fn approve(transaction: &Transaction, now: DateTime<Utc>) -> ChangeSet {
    let reference = GatewayReference { gateway: "test".parse().unwrap(), reference: "ref-1".into() };
    executed(transaction.clone().approve(reference, &FeeRules::default(), now, &UuidV7Generator).unwrap())
}

/// The attempt of that number of a transaction, open at that time.
pub fn attempt(transaction: &Transaction, number: u16, now: DateTime<Utc>) -> Attempt {
    Attempt {
        transaction_id: transaction.id,
        number,
        gateway: "test".parse().unwrap(),
        reference: AttemptReference(UuidV7Generator.next_id()),
        state: AttemptState::Open,
        gateway_reference: None,
        reason: None,
        check_at: Some(now + chrono::TimeDelta::minutes(1)),
        created_at: now,
        updated_at: now,
    }
}

/// The change set of a decline, at that time.
pub fn decline(transaction: &Transaction, now: DateTime<Utc>) -> ChangeSet {
    executed(transaction.clone().decline("do_not_honor", now, &UuidV7Generator).unwrap())
}

/// The change set of a failure, at that time.
pub fn fail(transaction: &Transaction, now: DateTime<Utc>) -> ChangeSet {
    executed(transaction.clone().fail("gateway_unavailable", now, &UuidV7Generator).unwrap())
}

/// The change set of a transition that changed something.
pub fn executed(transition: Transition) -> ChangeSet {
    match transition {
        Transition::Executed(next) => (*next).into(),
        Transition::AlreadyApplied => panic!("the transition was applied before"),
    }
}

/// An enabled webhook endpoint that asks for these kinds of events; for all where none is named.
pub fn endpoint(customer_name: &str, kinds: &[EventKind], now: DateTime<Utc>) -> WebhookEndpoint {
    let id = EndpointId(UuidV7Generator.next_id());
    WebhookEndpoint {
        id,
        customer_id: customer(customer_name),
        url: format!("https://merchant.example/{id}"),
        events: kinds.to_vec(),
        description: "Orders".into(),
        status: EndpointStatus::Enabled,
        disabled_reason: None,
        secret: SealedSecret(id.0.as_bytes().to_vec()),
        previous_secret: None,
        failing_since: None,
        version: 1,
        sequence: 0,
        created_at: now,
        updated_at: now,
    }
}

/// The transaction that a change set writes.
pub fn written(change: &ChangeSet) -> &Transaction {
    change.transaction.as_ref().expect("it writes a transaction").transaction()
}

/// The change set of a request to give back that much, or all that is left, at that time; it is due a minute later.
pub fn ask_refund(transaction: &Transaction, minor: Option<i64>, now: DateTime<Utc>) -> ChangeSet {
    let amount = minor.map(|minor| Money::new(minor, transaction.amount.currency()));
    let check_at = now + chrono::TimeDelta::minutes(1);
    transaction.clone().ask_refund(amount, check_at, now, &UuidV7Generator).unwrap().into()
}

/// An order in BRL, paid by Pix.
pub fn new_order(customer_name: &str, minor: i64) -> NewOrder {
    NewOrder {
        customer_id: customer(customer_name),
        user_id: "user-1".parse().unwrap(),
        total: Money::new(minor, Currency::BRL),
        payment_method: PaymentMethod::Pix,
        correlation_id: r#"request-"1"\end"#.parse().unwrap(),
    }
}

/// The change set of a new order, at that time.
pub fn place(new: &NewOrder, now: DateTime<Utc>) -> (Order, ChangeSet) {
    Order::place(new, now, &UuidV7Generator).unwrap()
}

/// What pays an order.
pub fn order_payment(order: &Order) -> NewTransaction {
    let named = Named { order_id: Some(order.id.to_string().parse().unwrap()), ..Named::default() };
    NewTransaction {
        kind: TransactionKind::Payment,
        customer_id: order.customer_id.clone(),
        description: format!("Order {}", order.id),
        amount: order.total,
        payment_method: order.payment_method,
        card: None,
        installments: Installments::ONE,
        named,
        order: Some(OrderLink { id: order.id, correlation_id: order.correlation_id.clone() }),
    }
}

/// The payment of an order, and the change set that creates it with the order's new state, at that time.
pub fn pay_order(order: &Order, now: DateTime<Utc>) -> (Transaction, ChangeSet) {
    let (payment, created) = create(&order_payment(order), now);
    let (_, paid) = stepped(order.clone().pay_with(payment.id, now, &UuidV7Generator));
    (payment, ChangeSet { order: paid.order, ..created })
}

/// An order's new state, and its change set, of a transition that changed something.
pub fn stepped(transition: OrderTransition) -> (Order, ChangeSet) {
    match transition {
        OrderTransition::Executed(next) => (next.order.clone(), (*next).into()),
        OrderTransition::AlreadyApplied => panic!("the transition was applied before"),
    }
}

/// An idempotency record for a change set's customer, kept for a day.
pub fn idempotency(change: &ChangeSet, key: &str, now: DateTime<Utc>) -> IdempotencyRecord {
    let written = change.transaction.as_ref().map(TransactionWrite::transaction).map(|t| (&t.customer_id, t.id.0));
    let ordered = change.order.as_ref().map(OrderWrite::order).map(|order| (&order.customer_id, order.id.0));
    let (customer_id, id) = written.or(ordered).expect("it writes a transaction or an order");
    IdempotencyRecord {
        customer_id: customer_id.clone(),
        key: key.parse().unwrap(),
        fingerprint: Fingerprint([1; 32]),
        answer: StoredAnswer { status: 201, body: id.to_string() },
        expires_at: now + chrono::TimeDelta::hours(24),
    }
}
