use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::TimeDelta;
use metrics_exporter_prometheus::PrometheusBuilder;
use psp_domain::ports::{
    AuthorizationResult, DeadLetters, OrderReader, Queue, Store, StoreError, TransactionReader, order_message,
};
use psp_domain::usecases::{CancelOrder, CreateOutcome, OrderSaga, PlaceOrder};
use psp_domain::{
    Currency, MessageId, Money, NewOrder, Order, OrderId, OrderStatus, PaymentMethod, QueueName, StoredAnswer,
    TransactionStatus,
};
use psp_testkit::fakes::FailingStore;
use psp_testkit::fixtures;

use crate::support::*;

impl World {
    async fn place(&self) -> OrderId {
        let new = NewOrder {
            customer_id: fixtures::customer("123"),
            user_id: "user-7".parse().unwrap(),
            total: Money::new(2_500, Currency::BRL),
            payment_method: PaymentMethod::Wallet,
            correlation_id: "request-1".parse().unwrap(),
        };
        let place = PlaceOrder::new(self.memory.clone(), self.memory.clone(), self.sources.clone());
        let answer = |order: &Order| StoredAnswer { status: 202, body: order.id.to_string() };
        match place.execute(&new, None, answer).await.unwrap() {
            CreateOutcome::Created(answer) => answer.body.parse().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    async fn cancel_order(&self, id: OrderId) {
        let cancel = CancelOrder::new(self.memory.clone(), self.memory.clone(), self.sources.clone());
        cancel.execute(&fixtures::customer("123"), id, |_| None).await.unwrap();
    }

    async fn order(&self, id: OrderId) -> Order {
        self.memory.load_order(id).await.unwrap().unwrap()
    }

    async fn until_order(&self, id: OrderId, status: OrderStatus) {
        while self.order(id).await.status != status {
            self.tick().await;
        }
    }

    async fn until_all_idle(&self) {
        for _ in 0..2 {
            for queue in [QueueName::Orders, QueueName::Transactions, QueueName::Refunds] {
                self.until_idle(queue).await;
            }
        }
    }

    fn start_all(&self) {
        self.start_transactions();
        self.start_refunds(self.memory.clone());
        self.start_orders(self.memory.clone());
    }
}

#[tokio::test(start_paused = true)]
async fn an_order_is_paid_and_given_back_once_it_is_cancelled() {
    let world = world();
    world.start_all();
    let id = world.place().await;
    world.until_order(id, OrderStatus::Paid).await;
    world.cancel_order(id).await;
    world.until_order(id, OrderStatus::Cancelled).await;
    let payment = world.order(id).await.payment_id.unwrap();
    world.until(payment, TransactionStatus::Refunded).await;
    world.until_all_idle().await;
    assert_eq!(world.gateway.given_back().len(), 1);
    assert!(DeadLetters::list(&*world.memory, None, None, 10).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_said_again_because_it_was_lost_is_answered() {
    let world = world();
    let (queue, id) = (QueueName::Orders, world.place().await);
    world.start_transactions();
    // The payment is created by hand, and approved while nobody listens.
    let (payment, change) = fixtures::pay_order(&world.order(id).await, world.sources.clock.now());
    world.memory.apply(change).await.unwrap();
    world.until(payment.id, TransactionStatus::PendingPayment).await;
    let lost = world.memory.receive(queue, usize::MAX, Duration::ZERO).await.unwrap();
    assert_eq!(lost.len(), 2, "order.create.requested, payment.approved");
    world.memory.ack(&lost).await.unwrap();
    let before = world.sources.clock.now() + TimeDelta::days(1);
    let waiting = world.memory.waiting_orders(before, None, 10).await.unwrap();
    let kind = OrderSaga::unanswered(&waiting[0], before).unwrap();
    let again = order_message(MessageId(world.sources.ids.next_id()), kind, &waiting[0]);
    assert_eq!((again.kind.as_str(), again.aggregate_id), ("payment.approved", payment.id.0));
    world.memory.send(vec![again]).await.unwrap();
    world.start_orders(world.memory.clone());
    world.until_order(id, OrderStatus::Paid).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_no_event_of_an_order_is_put_aside_with_its_reason_and_stops_no_other() {
    let world = world();
    let queue = QueueName::Orders;
    let poison = [
        message(queue, "transaction.created", "{}"),
        message(queue, "order.created", "not JSON"),
        message(queue, "payment.approved", r#"{"order_id":"order_123"}"#),
        message(queue, "order.cancelled", "{}"),
    ];
    world.memory.send(poison.to_vec()).await.unwrap();
    world.start_all();
    let id = world.place().await;
    world.until_order(id, OrderStatus::Paid).await;
    world.until_all_idle().await;
    let dead = DeadLetters::list(&*world.memory, Some(queue), None, 10).await.unwrap();
    let expected =
        ["not a message for this queue: transaction.created", "not an event", "names no order", "no such order"];
    assert_eq!(dead.len(), expected.len());
    for (letter, expected) in dead.iter().zip(expected) {
        assert!(letter.reason.contains(expected), "{}", letter.reason);
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_leaves_one_order_with_one_payment() {
    let world = world();
    let store = Arc::new(FailingStore::new(world.memory.clone()));
    for after_writing in [true, false, true, false, true] {
        store.fail_next(StoreError::OutcomeUnknown("the connection broke".into()), after_writing);
    }
    world.start_transactions();
    world.start_orders(store);
    let id = world.place().await;
    world.until_order(id, OrderStatus::Paid).await;
    world.until_all_idle().await;
    assert_eq!(world.gateway.asked().len(), 1);
    let payment = world.order(id).await.payment_id.unwrap();
    let found = TransactionReader::find(&*world.memory, &fixtures::customer("123"), payment).await.unwrap();
    assert_eq!(found.unwrap().amount.minor(), 2_500);
}

#[tokio::test(start_paused = true)]
async fn orders_and_refunds_are_counted_by_what_they_came_to() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let world = world();
    world.start_all();
    let (kept, cancelled) = (world.place().await, world.place().await);
    for id in [kept, cancelled] {
        world.until_order(id, OrderStatus::Paid).await;
    }
    world.cancel_order(cancelled).await;
    world.until_order(cancelled, OrderStatus::Cancelled).await;
    world.until_all_idle().await;
    let text = handle.render();
    let has = |line: &str| assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    has(r#"psp_orders_total{status="paid"} 2"#);
    has(r#"psp_orders_total{status="cancelled"} 1"#);
    has(r#"psp_orders_total{status="pending_payment"} 0"#);
    has(r#"psp_refunds_total{status="succeeded"} 1"#);
}

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn money_that_is_kept_is_a_dead_letter_and_every_line_names_the_request() {
    let (world, log) = (world(), Log::default());
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
    let _logging = tracing::subscriber::set_default(subscriber.finish());
    for _ in 0..OrderSaga::MAX_FAILED_REFUNDS {
        world.gateway.answer_refund(Ok(AuthorizationResult::Declined { reason: "no".into() }));
    }
    world.start_all();
    let id = world.place().await;
    world.until_order(id, OrderStatus::Paid).await;
    world.cancel_order(id).await;
    world.until_order(id, OrderStatus::Cancelled).await;
    world.until_all_idle().await;
    let dead = DeadLetters::list(&*world.memory, None, None, 10).await.unwrap();
    let [letter] = &dead[..] else { panic!("{dead:?}") };
    assert_eq!(letter.message.kind, "payment.refund_failed");
    assert!(letter.reason.contains("the money of a cancelled order is kept"), "{}", letter.reason);
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let told: Vec<_> = log
        .lines()
        .filter(|line| line.contains("psp_worker::orders") || line.contains("psp_worker::refunds"))
        .collect();
    assert!(told.len() >= 5 && told.iter().any(|line| line.contains("an order needs a look")), "{log}");
    assert!(told.iter().all(|line| line.contains(r#"correlation_id="request-1""#)), "{log}");
}
