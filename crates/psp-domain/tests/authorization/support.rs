use std::sync::Arc;

use psp_domain::ports::{
    AttemptStore, AuthorizationResult, Clock, Gateway, GatewayError, PayableReader, Store, TransactionReader,
    UnauthorizedTransaction,
};
use psp_domain::usecases::{AuthorizeOptions, AuthorizeOutcome, AuthorizeTransaction, CancelTransaction, Sources};
use psp_domain::{Attempt, AttemptState, FeeRules, NewTransaction, PageRequest, TransactionId, TransactionStatus};
use psp_testkit::clock::FixedClock;
use psp_testkit::fakes::{FailingStore, FixedDirectory, Memory, PlainVault, ScriptedGateway};
use psp_testkit::fixtures;

pub(crate) struct World {
    pub(crate) memory: Arc<Memory>,
    pub(crate) store: Arc<FailingStore>,
    pub(crate) first: Arc<ScriptedGateway>,
    pub(crate) second: Arc<ScriptedGateway>,
    pub(crate) directory: Arc<FixedDirectory>,
    pub(crate) clock: Arc<FixedClock>,
    pub(crate) authorize: AuthorizeTransaction,
    pub(crate) cancel: CancelTransaction,
}

/// A world with two gateways, of which the first is asked first.
pub(crate) fn world() -> World {
    world_of(2)
}

pub(crate) fn world_of(gateways: usize) -> World {
    let clock = Arc::new(FixedClock::default());
    let memory = Arc::new(Memory::new(clock.clone()));
    let store = Arc::new(FailingStore::new(memory.clone()));
    let (first, second) = (Arc::new(ScriptedGateway::named("first")), Arc::new(ScriptedGateway::named("second")));
    let all: [Arc<dyn Gateway>; 2] = [first.clone(), second.clone()];
    let directory = Arc::new(FixedDirectory::of(all.into_iter().take(gateways)));
    let sources = Sources { clock: clock.clone(), ..Sources::default() };
    World {
        authorize: AuthorizeTransaction::new(
            store.clone(),
            Arc::new(PlainVault),
            directory.clone(),
            FeeRules::default(),
            AuthorizeOptions::default(),
            sources.clone(),
        ),
        cancel: CancelTransaction::new(store.clone(), memory.clone(), sources),
        memory,
        store,
        first,
        second,
        directory,
        clock,
    }
}

pub(crate) const APPROVED: AuthorizeOutcome = AuthorizeOutcome::Done(TransactionStatus::PendingPayment);

pub(crate) fn approval() -> AuthorizationResult {
    AuthorizationResult::Approved { reference: "ref-7".into(), amount: None }
}

pub(crate) fn decline(reason: &str) -> AuthorizationResult {
    AuthorizationResult::Declined { reason: reason.into() }
}

pub(crate) fn down() -> GatewayError {
    GatewayError::Unavailable("down for maintenance".into())
}

impl World {
    pub(crate) async fn create(&self, new: &NewTransaction) -> TransactionId {
        let (transaction, mut change) = fixtures::create(new, self.clock.now());
        if let (Some(card), Some(psp_domain::TransactionWrite::Insert(_, sealed))) =
            (&new.card, &mut change.transaction)
        {
            let vault: &dyn psp_domain::ports::CardVault = &PlainVault;
            *sealed = Some(vault.seal(transaction.id, card).await.unwrap());
        }
        self.memory.apply(change).await.unwrap();
        transaction.id
    }

    pub(crate) async fn created(&self) -> TransactionId {
        self.create(&fixtures::new_transaction()).await
    }

    pub(crate) async fn load(&self, id: TransactionId) -> UnauthorizedTransaction {
        self.memory.load_for_authorization(&[id]).await.unwrap().remove(0)
    }

    pub(crate) async fn round(&self, id: TransactionId) -> AuthorizeOutcome {
        self.authorize.execute(self.load(id).await, false).await.unwrap()
    }

    pub(crate) async fn last_round(&self, id: TransactionId) -> AuthorizeOutcome {
        self.authorize.execute(self.load(id).await, true).await.unwrap()
    }

    pub(crate) async fn reason(&self, id: TransactionId) -> Option<String> {
        self.load(id).await.transaction.status_reason
    }

    pub(crate) async fn attempts(&self, id: TransactionId) -> Vec<(String, AttemptState)> {
        let attempts = self.memory.attempts(id).await.unwrap();
        attempts.into_iter().map(|attempt| (attempt.gateway.to_string(), attempt.state)).collect()
    }

    pub(crate) async fn attempt(&self, id: TransactionId) -> Attempt {
        self.memory.attempts(id).await.unwrap().pop().unwrap()
    }

    pub(crate) async fn payables(&self) -> usize {
        let page = PageRequest::default();
        PayableReader::list(&*self.memory, &fixtures::customer("123"), page).await.unwrap().items.len()
    }
}

pub(crate) fn states(list: &[(&str, AttemptState)]) -> Vec<(String, AttemptState)> {
    list.iter().map(|(gateway, state)| ((*gateway).to_owned(), *state)).collect()
}

pub(crate) static CUSTOMER: std::sync::LazyLock<psp_domain::CustomerId> =
    std::sync::LazyLock::new(|| fixtures::customer("123"));
