//! An acquirer for tests, demos and local use: speaks both protocols of `docs/gateway-protocol.md`, decides by the sandbox's
//! test cards, approves what has no card, keeps in memory what it charged, paid out and gave back, and is as slow and
//! unreliable as it is told to be.
//!
//! Never send it a real card: it keeps none, but takes no care of their bytes either.
//!
//! | route | |
//! | --- | --- |
//! | `POST /authorizations`, `POST /payouts`, `POST /refunds`, `GET /operations/{reference}`, `POST /operations/{reference}/void` | the protocol in JSON, signed |
//! | `POST /soap` | the protocol in XML, signed |
//! | `GET /admin/behaviour`, `PATCH /admin/behaviour` | [`Behaviour`], to be read and changed in part |
//! | `GET /admin/totals` | [`Totals`] |
//!
//! The admin routes are open to whoever reaches the address; they know of references and amounts, and of no cards.
//!
//! Deposits and withdrawals with an address to call back are answered `pending` and decided by a callback, signed as requests
//! are.

mod behaviour;
mod callbacks;
mod ledger;
mod operations;
mod routes;
mod server;
mod soap;
mod totals;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use psp_domain::ports::Clock;
use psp_gateways::{SignedClient, SigningKey, Trust};
use tokio::sync::{Semaphore, mpsc};

pub use behaviour::{Behaviour, BehaviourChange, WrongBehaviour};
pub use totals::{CallbackTotals, ReferenceTotals, Totals, TransactionTotals};

use callbacks::Due;
use ledger::Ledger;

/// What a simulator is started with.
#[derive(Debug, Clone)]
pub struct SimulatorOptions {
    /// What requests must be signed with, and callbacks are.
    pub key: SigningKey,
    /// How it behaves at first.
    pub behaviour: Behaviour,
    /// What its chances come from: the same requests in the same order meet the same faults.
    pub seed: u64,
    /// How long its slow card takes.
    pub slow_answer: Duration,
    /// The most references that it keeps, decided or voided; more are refused, because to forget one would charge twice.
    pub max_references: usize,
}

impl SimulatorOptions {
    /// A simulator without faults.
    pub fn new(key: SigningKey) -> Self {
        let slow_answer = Duration::from_secs(5);
        Self { key, behaviour: Behaviour::default(), seed: 0, slow_answer, max_references: 100_000 }
    }
}

/// An acquirer in memory. Clones are the same one.
#[derive(Clone)]
pub struct Simulator {
    options: Arc<SimulatorOptions>,
    clock: Arc<dyn Clock>,
    state: Arc<Mutex<State>>,
    /// What calls back.
    client: Arc<SignedClient>,
    places: Arc<Semaphore>,
    due: mpsc::UnboundedSender<Due>,
    /// Taken by the server. No more is due than there are references.
    decisions: Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<Due>>>,
}

/// Why a simulator could not be made.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It cannot behave so.
    #[error(transparent)]
    Behaviour(#[from] WrongBehaviour),
    /// It cannot call back.
    #[error("callbacks cannot be sent: {0}")]
    Client(#[from] std::io::Error),
}

struct State {
    behaviour: Behaviour,
    chances: Rng,
    ledger: Ledger,
    callbacks: CallbackTotals,
}

impl Simulator {
    /// A simulator that charged nothing yet.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn new(options: SimulatorOptions, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        let state = State {
            behaviour: options.behaviour.checked()?,
            chances: Rng::with_seed(options.seed),
            ledger: Ledger::new(options.max_references),
            callbacks: CallbackTotals::default(),
        };
        let client = |trust| SignedClient::new(options.key.clone(), trust, callbacks::TIMEOUTS, Arc::clone(&clock));
        let client = client(Trust::ThisMachine).or_else(|error| {
            tracing::warn!(%error, "no certificates are trusted: callbacks go to this machine only");
            client(Trust::Nobody)
        })?;
        let (due, decisions) = mpsc::unbounded_channel();
        Ok(Self {
            options: Arc::new(options),
            clock,
            state: Arc::new(Mutex::new(state)),
            client: Arc::new(client),
            places: Arc::new(Semaphore::new(callbacks::MAX_AT_ONCE)),
            due,
            decisions: Arc::new(tokio::sync::Mutex::new(decisions)),
        })
    }

    /// How it behaves.
    pub fn behaviour(&self) -> Behaviour {
        self.state().behaviour
    }

    /// Behaves otherwise from the next request on; returns how.
    ///
    /// # Errors
    /// [`WrongBehaviour`]; nothing changed.
    pub fn change(&self, change: &BehaviourChange) -> Result<Behaviour, WrongBehaviour> {
        let mut state = self.state();
        state.behaviour = state.behaviour.with(change)?;
        Ok(state.behaviour)
    }

    /// What it charged, paid out, gave back and called back.
    pub fn totals(&self) -> Totals {
        let state = self.state();
        Totals { callbacks: state.callbacks, ..state.ledger.totals() }
    }

    /// Held for a decision, never across a wait.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
