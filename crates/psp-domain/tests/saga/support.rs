use std::collections::{BTreeSet, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use psp_domain::ports::{
    AttemptStore, AuthorizationResult, CHECK_MESSAGE_KIND, CHECK_REFUND_MESSAGE_KIND, Clock, Gateway, GatewayError,
    Message, OrderReader, Queue, RefundStore, Store, Sweep, TransactionReader,
};
use psp_domain::usecases::{
    AuthorizeOptions, AuthorizeOutcome, AuthorizeTransaction, CancelOrder, CancelOrderOutcome, CancelTransaction,
    CreateOutcome, IdempotentRequest, OrderOutcome, OrderSaga, PlaceOrder, RefundOptions, RefundOutcome,
    RefundTransaction, Sources,
};
use psp_domain::{
    Currency, EventKind, FeeRules, Fingerprint, Money, NewOrder, OrderId, PageRequest, PaymentMethod, QueueName,
    RefundId, StoredAnswer, TransactionId,
};
use psp_testkit::clock::FixedClock;
use psp_testkit::fakes::{FixedDirectory, Memory, PlainVault, ScriptedGateway};
use psp_testkit::fixtures;
use serde_json::Value;

use crate::interruptions::{InterruptedGateway, InterruptedStore, Interruption, Places};

/// What customers do beside placing an order, after that many messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    CancelOrder,
    RefundAll,
    RefundPart,
}

/// A world with one order, one gateway, and workers of all queues.
pub(crate) struct World {
    pub(crate) memory: Arc<Memory>,
    pub(crate) gateway: Arc<ScriptedGateway>,
    pub(crate) places: Arc<Places>,
    pub(crate) order: OrderId,
    /// Messages that were sent and not acknowledged, with how often they came.
    pub(crate) pool: VecDeque<(Message, u32)>,
    /// What was put aside, and why.
    pub(crate) dead: Vec<(Message, String)>,
    /// Which messages never come.
    pub(crate) lost: Option<EventKind>,
    wishes: Vec<(usize, Wish)>,
    handled: usize,
    clock: Arc<FixedClock>,
    workers: Workers,
}

struct Workers {
    place: PlaceOrder,
    cancel: CancelOrder,
    authorize: AuthorizeTransaction,
    refund: Arc<RefundTransaction>,
    saga: OrderSaga,
}

/// How a message was handled.
enum Handled {
    Done,
    Again,
    Dead(String),
}

/// What an order comes to.
pub(crate) const TOTAL: i64 = 2_500;

pub(crate) fn new_order() -> NewOrder {
    NewOrder {
        customer_id: fixtures::customer("123"),
        user_id: "user-7".parse().unwrap(),
        total: Money::new(TOTAL, Currency::BRL),
        payment_method: PaymentMethod::Wallet,
        correlation_id: "request-1".parse().unwrap(),
    }
}

impl World {
    pub(crate) fn new(interruption: Interruption, at: BTreeSet<usize>, wishes: Vec<(usize, Wish)>) -> Self {
        let clock = Arc::new(FixedClock::default());
        let memory = Arc::new(Memory::new(clock.clone()));
        let gateway = Arc::new(ScriptedGateway::default());
        let places = Arc::new(Places::new(interruption, at));
        let workers = Workers::of(&memory, &gateway, &places, Sources { clock: clock.clone(), ..Sources::default() });
        let (pool, dead) = (VecDeque::new(), Vec::new());
        let order = OrderId(uuid::Uuid::nil());
        Self { memory, gateway, places, order, pool, dead, lost: None, wishes, handled: 0, clock, workers }
    }

    /// Places the order: the client asks again under the same key until it hears an answer.
    pub(crate) async fn place(&mut self) {
        loop {
            let request = IdempotentRequest { key: "key-1".parse().unwrap(), fingerprint: Fingerprint([7; 32]) };
            let answer = |order: &psp_domain::Order| StoredAnswer { status: 202, body: order.id.to_string() };
            let new = new_order();
            let placing = self.workers.place.execute(&new, Some(request), answer);
            match unless_killed(&self.places, placing).await {
                None | Some(Err(_)) => {}
                Some(Ok(CreateOutcome::Created(answer) | CreateOutcome::Replayed(answer))) => {
                    self.order = answer.body.parse().unwrap();
                    return;
                }
                Some(Ok(other)) => panic!("{other:?}"),
            }
        }
    }

    /// Handles messages until there are none and sweeps find nothing. `choose` says which comes next, and whether it comes again
    /// although it was handled.
    pub(crate) async fn run(&mut self, mut choose: impl FnMut(usize) -> (usize, bool)) {
        for _ in 0..2_000 {
            self.grant().await;
            self.gather().await;
            if self.pool.is_empty() {
                let next_wish = self.wishes.iter().map(|(after, _)| *after).min();
                self.handled = next_wish.unwrap_or(self.handled);
                if !self.sweep().await && next_wish.is_none() {
                    return;
                }
                continue;
            }
            let (which, comes_again) = choose(self.pool.len());
            let (message, count) = self.pool.remove(which).unwrap();
            self.handled += 1;
            match self.handle(&message, count + 1).await {
                None | Some(Handled::Again) => self.pool.push_back((message, count + 1)),
                Some(Handled::Done) if comes_again => self.pool.push_back((message, count + 1)),
                Some(Handled::Done) => {}
                Some(Handled::Dead(reason)) => self.dead.push((message, reason)),
            }
        }
        panic!("it never ends: {:?}", self.pool);
    }

    /// First come, first served, and once.
    pub(crate) async fn run_in_order(&mut self) {
        self.run(|_| (0, false)).await;
    }

    /// Takes all messages from the queues.
    async fn gather(&mut self) {
        for queue in [QueueName::Transactions, QueueName::Refunds, QueueName::Orders] {
            let received = self.memory.receive(queue, usize::MAX, Duration::ZERO).await.unwrap();
            self.memory.ack(&received).await.unwrap();
            let is_lost = |message: &Message| self.lost.is_some_and(|kind| kind.as_str() == message.kind);
            let come = received.into_iter().map(|delivery| delivery.message).filter(|message| !is_lost(message));
            self.pool.extend(come.map(|message| (message, 0)));
        }
    }

    /// Does what customers wish by now; they ask again until they hear an answer.
    async fn grant(&mut self) {
        let handled = self.handled;
        let due: Vec<_> = self.wishes.iter().filter(|(after, _)| *after <= handled).map(|(_, wish)| *wish).collect();
        self.wishes.retain(|(after, _)| *after > handled);
        for wish in due {
            while unless_killed(&self.places, self.wish(wish)).await != Some(true) {}
        }
    }

    /// Whether it was heard.
    pub(crate) async fn wish(&self, wish: Wish) -> bool {
        let customer = fixtures::customer("123");
        if wish == Wish::CancelOrder {
            return match self.workers.cancel.execute(&customer, self.order, |_| None).await {
                Ok(CancelOrderOutcome::Requested(_) | CancelOrderOutcome::TooLate(_)) => true,
                Ok(other) => panic!("{other:?}"),
                Err(_) => false,
            };
        }
        let Some(payment) = self.payment().await else { return true };
        let minor = (wish == Wish::RefundPart).then_some(TOTAL / 4);
        self.workers.refund.request(&customer, payment, minor, |_| None).await.is_ok()
    }

    pub(crate) async fn payment(&self) -> Option<TransactionId> {
        self.memory.load_order(self.order).await.unwrap().unwrap().payment_id
    }

    /// `None` when the worker was killed.
    async fn handle(&self, message: &Message, count: u32) -> Option<Handled> {
        let mut work = pin!(self.work(message, count >= QueueName::MAX_RECEIVES));
        loop {
            tokio::select! {
                biased;
                handled = &mut work => return Some(handled),
                () = self.places.reached.notified() => match self.places.interruption {
                    Interruption::Others => self.others(message).await,
                    Interruption::Kill | Interruption::Fail => return None,
                },
            }
            self.places.go_on.notify_one();
        }
    }

    /// The customer cancels, and other workers do all that there is to do, also the very message that is in hand.
    async fn others(&self, in_hand: &Message) {
        self.wish(Wish::CancelOrder).await;
        let mut rest: VecDeque<_> = self.pool.iter().map(|(message, _)| message.clone()).collect();
        rest.push_back(in_hand.clone());
        for _ in 0..100 {
            for queue in [QueueName::Transactions, QueueName::Refunds, QueueName::Orders] {
                // Not acknowledged: all of it comes again later.
                let received = self.memory.receive(queue, usize::MAX, Duration::ZERO).await.unwrap();
                rest.extend(received.into_iter().map(|delivery| delivery.message));
            }
            let Some(message) = rest.pop_front() else { break };
            Box::pin(self.work(&message, false)).await;
        }
        self.clock.advance(Duration::from_mins(1));
    }

    async fn work(&self, message: &Message, is_last: bool) -> Handled {
        match message.queue {
            QueueName::Transactions => self.authorize(message, is_last).await,
            QueueName::Refunds => match self.workers.refund.perform(refund_of(message), is_last).await {
                Ok(RefundOutcome::Done(_) | RefundOutcome::Waiting(_)) => Handled::Done,
                Ok(RefundOutcome::Retry(_) | RefundOutcome::Overtaken) | Err(_) => Handled::Again,
                Ok(RefundOutcome::Unknown) => panic!("there is no such refund"),
            },
            QueueName::Orders => {
                let kind = EventKind::from_name(&message.kind).unwrap();
                match self.workers.saga.handle(kind, order_of(message)).await {
                    Ok(OrderOutcome::Became(_) | OrderOutcome::Done) => Handled::Done,
                    Ok(OrderOutcome::Retry(_)) | Err(_) => Handled::Again,
                    Ok(OrderOutcome::NeedsAPerson(reason)) => Handled::Dead(reason),
                    Ok(OrderOutcome::Unknown) => panic!("there is no such order"),
                }
            }
            queue => panic!("nothing is sent to {queue}"),
        }
    }

    async fn authorize(&self, message: &Message, is_last: bool) -> Handled {
        assert!([CHECK_MESSAGE_KIND, "transaction.created"].contains(&message.kind.as_str()));
        let id = TransactionId(message.aggregate_id);
        let loaded = self.memory.load_for_authorization(&[id]).await.unwrap().remove(0);
        match self.workers.authorize.execute(loaded, is_last).await {
            Ok(AuthorizeOutcome::Done(_) | AuthorizeOutcome::Waiting(_)) => Handled::Done,
            Ok(AuthorizeOutcome::Retry(_) | AuthorizeOutcome::Overtaken) | Err(_) => Handled::Again,
        }
    }

    /// Asks for what gateways have not answered, after they have decided it; whether there was anything.
    async fn sweep(&self) -> bool {
        for reference in self.gateway.references() {
            self.gateway.decide_pending(reference);
        }
        self.clock.advance(Duration::from_mins(2));
        let (least, most) = (TimeDelta::minutes(1), TimeDelta::hours(1));
        let sweep = Sweep { now: self.clock.now(), limit: 10, least, most };
        let attempts = self.memory.sweep(sweep).await.unwrap();
        attempts + self.memory.sweep_refunds(sweep).await.unwrap() > 0
    }

    pub(crate) async fn payments(&self) -> Vec<psp_domain::Transaction> {
        let page = PageRequest::default();
        self.memory.list_order_payments(&fixtures::customer("123"), page).await.unwrap().items
    }
}

impl Workers {
    fn of(memory: &Arc<Memory>, gateway: &Arc<ScriptedGateway>, places: &Arc<Places>, sources: Sources) -> Self {
        let store: Arc<dyn Store> = Arc::new(InterruptedStore(memory.clone(), places.clone()));
        let gateway: Arc<dyn Gateway> = Arc::new(InterruptedGateway(gateway.clone(), places.clone()));
        let directory = Arc::new(FixedDirectory::of([gateway]));
        let refund = Arc::new(RefundTransaction::new(
            store.clone(),
            memory.clone(),
            memory.clone(),
            directory.clone(),
            RefundOptions::default(),
            sources.clone(),
        ));
        let cancel = CancelTransaction::new(store.clone(), memory.clone(), sources.clone());
        Self {
            place: PlaceOrder::new(store.clone(), memory.clone(), sources.clone()),
            cancel: CancelOrder::new(store.clone(), memory.clone(), sources.clone()),
            authorize: AuthorizeTransaction::new(
                store.clone(),
                Arc::new(PlainVault),
                directory,
                FeeRules::default(),
                AuthorizeOptions::default(),
                sources.clone(),
            ),
            saga: OrderSaga::new(
                store,
                memory.clone(),
                memory.clone(),
                memory.clone(),
                Arc::new(cancel),
                refund.clone(),
                sources,
            ),
            refund,
        }
    }
}

/// The answer, unless the process is killed before it is heard; others do nothing meanwhile.
async fn unless_killed<T>(places: &Places, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return Some(done),
            () = places.reached.notified() => {
                if places.interruption == Interruption::Kill {
                    return None;
                }
                places.go_on.notify_one();
            }
        }
    }
}

fn refund_of(message: &Message) -> RefundId {
    if message.kind == CHECK_REFUND_MESSAGE_KIND {
        return RefundId(message.aggregate_id);
    }
    let data: Value = serde_json::from_str(&message.body).unwrap();
    data["refund"]["id"].as_str().unwrap().parse().unwrap()
}

fn order_of(message: &Message) -> OrderId {
    let data: Value = serde_json::from_str(&message.body).unwrap();
    assert_eq!(data["correlation_id"], "request-1", "of the request that placed the order");
    if message.kind.starts_with("order.") {
        return OrderId(message.aggregate_id);
    }
    data["order_id"].as_str().unwrap().parse().unwrap()
}

/// How a gateway behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Approves,
    Declines,
    IsDown,
    AnswersLater,
    RefusesARefund,
}

impl Mood {
    pub(crate) const ALL: [Self; 5] =
        [Self::Approves, Self::Declines, Self::IsDown, Self::AnswersLater, Self::RefusesARefund];

    pub(crate) fn tell(self, gateway: &ScriptedGateway) {
        let declined = |reason: &str| Ok(AuthorizationResult::Declined { reason: reason.into() });
        match self {
            Self::Approves => {}
            Self::Declines => gateway.answer(Duration::ZERO, declined("do_not_honor")),
            Self::IsDown => {
                for _ in 0..100 {
                    gateway.answer(Duration::ZERO, Err(GatewayError::Unavailable("out".into())));
                }
            }
            Self::AnswersLater => {
                gateway.answer(Duration::ZERO, Ok(AuthorizationResult::Pending { reference: None }));
                gateway.answer_refund(Ok(AuthorizationResult::Pending { reference: None }));
            }
            Self::RefusesARefund => gateway.answer_refund(declined("not_now")),
        }
    }
}
