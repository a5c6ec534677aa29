//! Callbacks, with fakes.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

use std::sync::Arc;
use std::time::Duration;

use psp_domain::ports::{
    AuthorizationResult, CallbackSignature, Candidate, Clock, ForgedCallback, Gateway, PayableReader, Queue, Store,
    TransactionReader,
};
use psp_domain::usecases::{
    Applied, AuthorizeOptions, AuthorizeOutcome, AuthorizeTransaction, Callbacks, Notice, Received, Sources,
};
use psp_domain::{
    CallbackId, CallbackOutcome, FeeRules, PageRequest, PaymentMethod, QueueName, Transaction, TransactionId,
    TransactionKind, TransactionStatus,
};
use psp_testkit::clock::FixedClock;
use psp_testkit::fakes::{FixedDirectory, Memory, PlainVault, ScriptedGateway};
use psp_testkit::fixtures;
use rust_decimal::Decimal;

struct World {
    memory: Arc<Memory>,
    gateway: Arc<ScriptedGateway>,
    clock: Arc<FixedClock>,
    authorize: AuthorizeTransaction,
    directory: Arc<FixedDirectory>,
    callbacks: Callbacks,
}

fn world() -> World {
    let clock = Arc::new(FixedClock::default());
    let memory = Arc::new(Memory::new(clock.clone()));
    let gateway = Arc::new(ScriptedGateway::default());
    let directory = Arc::new(FixedDirectory::of([gateway.clone() as Arc<dyn Gateway>]));
    let (rules, sources) = (FeeRules::default(), Sources { clock: clock.clone(), ..Sources::default() });
    World {
        authorize: AuthorizeTransaction::new(
            memory.clone(),
            Arc::new(PlainVault),
            directory.clone(),
            rules.clone(),
            AuthorizeOptions::default(),
            sources.clone(),
        ),
        callbacks: Callbacks::new(memory.clone(), memory.clone(), memory.clone(), directory.clone(), rules, sources),
        directory,
        memory,
        gateway,
        clock,
    }
}

fn notice(status: &str) -> Notice {
    Notice { gateway_reference: "gw-tx-12345".into(), status: status.into(), amount: None, currency: None }
}

const UNSIGNED: CallbackSignature<'static> =
    CallbackSignature { path: "/callback/1", timestamp: None, signature: None, body: b"{}" };

impl World {
    async fn created(&self) -> TransactionId {
        let new = fixtures::cardless(TransactionKind::Payment, PaymentMethod::Upi, 2500);
        let (transaction, change) = fixtures::create(&new, self.clock.now());
        self.memory.apply(change).await.unwrap();
        transaction.id
    }

    /// A payment that its gateway has taken and not decided, under that reference.
    async fn pending(&self, reference: Option<&str>) -> TransactionId {
        let id = self.created().await;
        let reference = reference.map(str::to_owned);
        self.gateway.answer(Duration::ZERO, Ok(AuthorizationResult::Pending { reference }));
        assert!(matches!(self.round(id).await, AuthorizeOutcome::Waiting(_)));
        id
    }

    async fn round(&self, id: TransactionId) -> AuthorizeOutcome {
        let loaded = self.memory.load_for_authorization(&[id]).await.unwrap().remove(0);
        self.authorize.execute(loaded, false).await.unwrap()
    }

    async fn receive(&self, id: TransactionId, notice: Notice) -> Received {
        self.callbacks.receive(id, notice, &UNSIGNED).await.unwrap()
    }

    /// The callbacks whose messages wait.
    async fn waiting(&self) -> Vec<CallbackId> {
        let deliveries = self.memory.receive(QueueName::GatewayCallbacks, 100, Duration::ZERO).await.unwrap();
        self.memory.ack(&deliveries).await.unwrap();
        deliveries.into_iter().map(|delivery| CallbackId(delivery.message.aggregate_id)).collect()
    }

    /// Receives a callback and applies it.
    async fn told(&self, id: TransactionId, notice: Notice) -> Applied {
        assert_eq!(self.receive(id, notice).await, Received::Stored);
        let waiting = self.waiting().await;
        assert_eq!(waiting.len(), 1);
        let applied = self.callbacks.apply(waiting[0]).await.unwrap();
        assert_eq!(self.callbacks.apply(waiting[0]).await.unwrap(), applied, "again: nothing else");
        applied
    }

    async fn transaction(&self, id: TransactionId) -> Transaction {
        self.memory.load_for_authorization(&[id]).await.unwrap().remove(0).transaction
    }
}

fn concluded(outcome: CallbackOutcome) -> Applied {
    Applied::Concluded(outcome)
}

#[tokio::test]
async fn a_callback_ends_what_its_gateway_left_pending() {
    for (status, ends, reason) in [
        ("completed", TransactionStatus::PendingPayment, None),
        ("failed", TransactionStatus::Failed, Some("gateway_failed")),
        ("rejected", TransactionStatus::Declined, Some("rejected")),
    ] {
        let world = world();
        let id = world.pending(Some("gw-tx-12345")).await;
        assert_eq!(world.told(id, notice(status)).await, concluded(CallbackOutcome::Applied));
        let transaction = world.transaction(id).await;
        assert_eq!((transaction.status, transaction.status_reason.as_deref()), (ends, reason));
        assert_eq!(world.round(id).await, AuthorizeOutcome::Done(ends));
        let page = PageRequest::default();
        let payables = PayableReader::list(&*world.memory, &fixtures::customer("123"), page).await.unwrap();
        assert_eq!(payables.items.len(), usize::from(status == "completed"));
    }
}

#[tokio::test]
async fn a_custom_status_is_kept_and_changes_nothing() {
    let world = world();
    let id = world.pending(None).await;
    assert_eq!(world.told(id, notice("in_review")).await, concluded(CallbackOutcome::Noted));
    assert_eq!(world.transaction(id).await.status, TransactionStatus::Processing);
    assert_eq!(world.told(id, notice("completed")).await, concluded(CallbackOutcome::Applied));
}

#[tokio::test]
async fn the_same_callback_again_is_stored_once_also_when_it_ended_the_transaction() {
    let world = world();
    let id = world.pending(None).await;
    assert_eq!(world.receive(id, notice("completed")).await, Received::Stored);
    assert_eq!(world.told(id, notice("completed")).await, concluded(CallbackOutcome::Applied));
    assert_eq!(world.receive(id, notice("completed")).await, Received::Stored);
    assert!(world.waiting().await.is_empty());
    let refused = Received::Final(TransactionStatus::PendingPayment);
    assert_eq!(world.receive(id, notice("failed")).await, refused);
    let other = Notice { gateway_reference: "another".into(), ..notice("completed") };
    assert_eq!(world.receive(id, other).await, refused);
}

#[tokio::test]
async fn of_two_outcomes_the_first_applied_stays() {
    let world = world();
    let id = world.pending(None).await;
    for status in ["failed", "completed"] {
        assert_eq!(world.receive(id, notice(status)).await, Received::Stored);
    }
    let waiting = world.waiting().await;
    assert_eq!(world.callbacks.apply(waiting[1]).await.unwrap(), concluded(CallbackOutcome::Applied));
    assert_eq!(world.callbacks.apply(waiting[0]).await.unwrap(), concluded(CallbackOutcome::TooLate));
    assert_eq!(world.transaction(id).await.status, TransactionStatus::PendingPayment);
}

#[tokio::test]
async fn an_unknown_transaction_and_a_forged_signature_are_refused() {
    let world = world();
    let unknown = fixtures::create(&fixtures::new_transaction(), world.clock.now()).0.id;
    assert_eq!(world.receive(unknown, notice("completed")).await, Received::Unknown);
    let id = world.pending(None).await;
    let forged = CallbackSignature { signature: Some("somebody else's"), ..UNSIGNED };
    let received = world.callbacks.receive(id, notice("completed"), &forged).await.unwrap();
    assert_eq!(received, Received::Forged(ForgedCallback::Signature));
    assert!(world.waiting().await.is_empty());
}

#[tokio::test]
async fn another_amount_or_currency_is_flagged_and_changes_nothing() {
    let wrong = [
        (Decimal::new(2501, 2), None),
        (Decimal::new(25001, 3), None),
        (Decimal::new(2500, 2), Some("USD".parse().unwrap())),
    ];
    for (amount, currency) in wrong {
        let world = world();
        let id = world.pending(None).await;
        let notice = Notice { amount: Some(amount), currency, ..notice("completed") };
        assert_eq!(world.told(id, notice).await, concluded(CallbackOutcome::WrongAmount), "{amount} {currency:?}");
        assert_eq!(world.transaction(id).await.status, TransactionStatus::Processing);
    }
    let world = world();
    let id = world.pending(None).await;
    let another = Notice { currency: Some("USD".parse().unwrap()), ..notice("completed") };
    assert_eq!(world.told(id, another).await, concluded(CallbackOutcome::WrongAmount), "a currency alone");
    let right = Notice { amount: Some(Decimal::new(25, 0)), ..notice("completed") };
    assert_eq!(world.told(id, right).await, concluded(CallbackOutcome::Applied));
}

#[tokio::test]
async fn a_callback_of_another_charge_changes_nothing() {
    let world = world();
    let id = world.pending(Some("another-charge")).await;
    assert_eq!(world.told(id, notice("completed")).await, concluded(CallbackOutcome::Foreign));
    assert_eq!(world.transaction(id).await.status, TransactionStatus::Processing);
}

#[tokio::test]
async fn a_callback_that_comes_before_the_gateways_answer_counts() {
    let world = world();
    let id = world.created().await;
    assert_eq!(world.receive(id, notice("completed")).await, Received::Stored);
    let waiting = world.waiting().await;
    assert!(matches!(world.callbacks.apply(waiting[0]).await.unwrap(), Applied::Retry(_)), "nobody was asked yet");
    // The answer is lost, so the attempt stays open.
    world.gateway.answer(Duration::ZERO, Err(psp_domain::ports::GatewayError::TimedOut));
    assert!(matches!(world.round(id).await, AuthorizeOutcome::Retry(_)));
    assert_eq!(world.callbacks.apply(waiting[0]).await.unwrap(), concluded(CallbackOutcome::Applied));
    assert_eq!(world.round(id).await, AuthorizeOutcome::Done(TransactionStatus::PendingPayment));
    assert!(world.gateway.found().is_empty(), "there is nothing left to ask");
}

#[tokio::test]
async fn a_callback_that_may_be_of_a_voided_charge_is_left_to_the_gateways_word() {
    let world = world();
    let id = world.created().await;
    let lost = || world.gateway.answer(Duration::ZERO, Err(psp_domain::ports::GatewayError::TimedOut));
    lost();
    assert!(matches!(world.round(id).await, AuthorizeOutcome::Retry(_)));
    // Taken back, and asked anew: the voided charge may have had this reference.
    let mut loaded = world.memory.load_for_authorization(&[id]).await.unwrap().remove(0);
    let now = world.clock.now();
    let voided = loaded.attempts.remove(0).into_state(psp_domain::AttemptState::Voided, None, now);
    let change = psp_domain::ChangeSet::of_attempts(loaded.transaction, vec![voided]);
    world.memory.apply(change).await.unwrap();
    lost();
    assert!(matches!(world.round(id).await, AuthorizeOutcome::Retry(_)));
    assert_eq!(world.told(id, notice("completed")).await, concluded(CallbackOutcome::Noted));
    assert_eq!(world.transaction(id).await.status, TransactionStatus::Processing);
}

#[tokio::test]
async fn a_callback_of_a_gateway_that_is_not_configured_here_is_not_believed() {
    let world = world();
    let id = world.pending(None).await;
    world.directory.close();
    let another: Arc<dyn Gateway> = Arc::new(ScriptedGateway::named("another"));
    world.directory.open(vec![Candidate { gateway: another, retry_declines: Arc::new([]) }]);
    assert_eq!(world.receive(id, notice("completed")).await, Received::Unverifiable);
    assert!(world.waiting().await.is_empty());
}

#[tokio::test]
async fn a_gateway_that_has_money_we_do_not_know_of_is_refused_and_heard() {
    let world = world();
    let id = world.pending(None).await;
    assert_eq!(world.told(id, notice("failed")).await, concluded(CallbackOutcome::Applied));
    let refused = Received::Final(TransactionStatus::Failed);
    assert_eq!(world.receive(id, notice("completed")).await, refused);
    let waiting = world.waiting().await;
    assert_eq!(world.callbacks.apply(waiting[0]).await.unwrap(), concluded(CallbackOutcome::TooLate));
    assert_eq!(world.transaction(id).await.status, TransactionStatus::Failed);
}

#[tokio::test]
async fn callbacks_of_one_transaction_are_bounded() {
    let world = world();
    let id = world.pending(None).await;
    let numbered = |n| Notice { gateway_reference: format!("ref-{n}"), ..notice("in_review") };
    for n in 0..psp_domain::Callback::MAX_PER_TRANSACTION {
        assert_eq!(world.receive(id, numbered(n)).await, Received::Stored);
    }
    assert_eq!(world.receive(id, numbered(1_000)).await, Received::TooMany);
    assert_eq!(world.receive(id, numbered(7)).await, Received::Stored, "it is known");
}

#[tokio::test]
async fn a_callback_of_a_gateway_that_was_asked_before_is_kept_as_foreign() {
    let world = world();
    let id = world.pending(None).await;
    let mut loaded = world.memory.load_for_authorization(&[id]).await.unwrap().remove(0);
    let now = world.clock.now();
    let voided = loaded.attempts.remove(0).into_state(psp_domain::AttemptState::Voided, None, now);
    let mut second = fixtures::attempt(&loaded.transaction, 2, now);
    second.gateway = "another".parse().unwrap();
    let change = psp_domain::ChangeSet::of_attempts(loaded.transaction, vec![voided, second]);
    world.memory.apply(change).await.unwrap();
    // Only the first is configured, and it is the first that signed.
    assert_eq!(world.told(id, notice("completed")).await, concluded(CallbackOutcome::Foreign));
}
