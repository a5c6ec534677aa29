use std::sync::Arc;

use psp_domain::ports::{Gateway, PayableReader, RefundStore, Store, TransactionReader};
use psp_domain::usecases::{
    AuthorizeOptions, AuthorizeTransaction, RefundOptions, RefundRequestOutcome, RefundTransaction, Sources,
};
use psp_domain::{
    CustomerId, FeeRules, NewTransaction, PageRequest, Payable, Refund, RefundId, Transaction, TransactionId,
};
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
    pub(crate) sources: Sources,
    pub(crate) refund: RefundTransaction,
}

/// A world with two gateways, of which the first is asked first.
pub(crate) fn world() -> World {
    let clock = Arc::new(FixedClock::default());
    let memory = Arc::new(Memory::new(clock.clone()));
    let store = Arc::new(FailingStore::new(memory.clone()));
    let (first, second) = (Arc::new(ScriptedGateway::named("first")), Arc::new(ScriptedGateway::named("second")));
    let all: [Arc<dyn Gateway>; 2] = [first.clone(), second.clone()];
    let directory = Arc::new(FixedDirectory::of(all));
    let sources = Sources { clock: clock.clone(), ..Sources::default() };
    let refund = refund_over(store.clone(), &memory, &directory, &sources);
    World { memory, store, first, second, directory, clock, sources, refund }
}

pub(crate) fn refund_over(
    store: Arc<dyn Store>,
    memory: &Arc<Memory>,
    directory: &Arc<FixedDirectory>,
    sources: &Sources,
) -> RefundTransaction {
    RefundTransaction::new(
        store,
        memory.clone(),
        memory.clone(),
        directory.clone(),
        RefundOptions::default(),
        sources.clone(),
    )
}

pub(crate) fn customer() -> CustomerId {
    fixtures::customer("123")
}

impl World {
    /// A payment of 25.00 by debit card, approved.
    pub(crate) async fn approved(&self) -> TransactionId {
        self.approve(&fixtures::debit("123", 2500)).await
    }

    pub(crate) async fn approve(&self, new: &NewTransaction) -> TransactionId {
        let (transaction, mut change) = fixtures::create(new, self.sources.clock.now());
        if let (Some(card), Some(psp_domain::TransactionWrite::Insert(_, sealed))) =
            (&new.card, &mut change.transaction)
        {
            let vault: &dyn psp_domain::ports::CardVault = &PlainVault;
            *sealed = Some(vault.seal(transaction.id, card).await.unwrap());
        }
        self.memory.apply(change).await.unwrap();
        let (directory, rules, options) = (self.directory.clone(), FeeRules::default(), AuthorizeOptions::default());
        let vault = Arc::new(PlainVault);
        let authorize =
            AuthorizeTransaction::new(self.memory.clone(), vault, directory, rules, options, self.sources.clone());
        let loaded = self.memory.load_for_authorization(&[transaction.id]).await.unwrap().remove(0);
        authorize.execute(loaded, false).await.unwrap();
        assert!(self.transaction(transaction.id).await.status.is_approved());
        transaction.id
    }

    pub(crate) async fn transaction(&self, id: TransactionId) -> Transaction {
        self.memory.load_for_authorization(&[id]).await.unwrap().remove(0).transaction
    }

    pub(crate) async fn request(&self, id: TransactionId, minor: Option<i64>) -> RefundRequestOutcome {
        self.refund.request(&customer(), id, minor, |_| None).await.unwrap()
    }

    pub(crate) async fn requested(&self, id: TransactionId, minor: Option<i64>) -> RefundId {
        match self.request(id, minor).await {
            RefundRequestOutcome::Requested(_, refund) => refund.id,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn refund(&self, id: RefundId) -> Refund {
        self.memory.load_refund(id).await.unwrap().unwrap().refund
    }

    pub(crate) async fn payables(&self) -> Vec<Payable> {
        PayableReader::list(&*self.memory, &customer(), PageRequest::default()).await.unwrap().items
    }
}
