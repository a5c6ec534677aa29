//! An acquirer for tests, demos and local use: speaks the protocol of `docs/gateway-protocol.md`, decides by the sandbox's
//! test cards, keeps in memory what it charged, and is as slow and unreliable as it is told to be.
//!
//! Never send it a real card: it keeps none, but takes no care of their bytes either.
//!
//! | route | |
//! | --- | --- |
//! | `POST /authorizations`, `GET /authorizations/{id}`, `POST /authorizations/{id}/void` | the protocol, signed |
//! | `GET /admin/behaviour`, `PATCH /admin/behaviour` | [`Behaviour`], to be read and changed in part |
//! | `GET /admin/totals` | [`Totals`] |
//!
//! The admin routes are open to whoever reaches the address; they know of references and amounts, and of no cards.

mod behaviour;
mod ledger;
mod routes;
mod server;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use psp_domain::ports::Clock;
use psp_gateways::SigningKey;

pub use behaviour::{Behaviour, BehaviourChange, WrongBehaviour};
pub use ledger::{ReferenceTotals, Totals};

use ledger::Ledger;

/// What a simulator is started with.
#[derive(Debug, Clone)]
pub struct SimulatorOptions {
    /// What requests must be signed with.
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
}

struct State {
    behaviour: Behaviour,
    chances: Rng,
    ledger: Ledger,
}

impl Simulator {
    /// A simulator that charged nothing yet.
    ///
    /// # Errors
    /// [`WrongBehaviour`].
    pub fn new(options: SimulatorOptions, clock: Arc<dyn Clock>) -> Result<Self, WrongBehaviour> {
        let state = State {
            behaviour: options.behaviour.checked()?,
            chances: Rng::with_seed(options.seed),
            ledger: Ledger::new(options.max_references),
        };
        Ok(Self { options: Arc::new(options), clock, state: Arc::new(Mutex::new(state)) })
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

    /// What it charged.
    pub fn totals(&self) -> Totals {
        self.state().ledger.totals()
    }

    /// Held for a decision, never across a wait.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
