//! Data keys used for more than one record, where each costs a call to a service.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use psp_domain::ports::{Clock, VaultError};

use crate::master::{DataKey, MasterKeys, NewDataKey, WrappedKey};

/// Master keys whose data keys are used again for a while, and remembered once they were unwrapped.
///
/// Whoever asks while a key is on its way waits for that one: a burst costs one call. No lock is held meanwhile. A failure is
/// not remembered.
pub struct ReusedKeys {
    masters: Arc<dyn MasterKeys>,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sealing: Option<Held<NewDataKey>>,
    opened: HashMap<WrappedKey, Held<DataKey>>,
}

/// A key, or the call that will give it.
struct Held<K> {
    key: Coming<K>,
    since: DateTime<Utc>,
    uses: u32,
}

type Coming<K> = Shared<BoxFuture<'static, Result<Arc<K>, VaultError>>>;

impl<K> Held<K> {
    fn new(call: BoxFuture<'static, Result<Arc<K>, VaultError>>, now: DateTime<Utc>) -> Self {
        Self { key: call.shared(), since: now, uses: 0 }
    }

    /// Whether it may be used. A clock that was set back ends its time, too.
    fn is_good(&self, now: DateTime<Utc>, lifetime: TimeDelta) -> bool {
        let has_failed = matches!(self.key.peek(), Some(Err(_)));
        !has_failed && self.since <= now && now - self.since < lifetime
    }
}

impl ReusedKeys {
    /// How many records one data key seals: with random nonces of 96 bits, a millionth of what NIST SP 800-38D (section
    /// 8.3) allows a key.
    pub const MAX_USES: u32 = 1_000;
    /// How long a data key seals and, once unwrapped, is remembered.
    pub const LIFETIME: TimeDelta = TimeDelta::minutes(5);
    /// How many unwrapped keys are remembered.
    pub const MAX_OPENED: usize = 256;

    /// Nothing is remembered yet.
    pub fn new(masters: Arc<dyn MasterKeys>, clock: Arc<dyn Clock>) -> Self {
        Self { masters, clock, state: Mutex::default() }
    }

    /// What is remembered, without what has run out.
    fn state(&self, now: DateTime<Utc>) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.sealing.as_ref().is_some_and(|held| !held.is_good(now, Self::LIFETIME)) {
            state.sealing = None;
        }
        state.opened.retain(|_, held| held.is_good(now, Self::LIFETIME));
        state
    }

    fn sealing_key(&self) -> Coming<NewDataKey> {
        let now = self.clock.now();
        let mut state = self.state(now);
        if state.sealing.as_ref().is_some_and(|held| held.uses >= Self::MAX_USES) {
            state.sealing = None;
        }
        let held = state.sealing.get_or_insert_with(|| {
            let masters = Arc::clone(&self.masters);
            Held::new(async move { masters.data_key().await }.boxed(), now)
        });
        held.uses += 1;
        held.key.clone()
    }

    fn opened_key(&self, wrapped: &WrappedKey) -> Coming<DataKey> {
        let now = self.clock.now();
        let mut state = self.state(now);
        if let Some(held) = state.opened.get(wrapped) {
            return held.key.clone();
        }
        if state.opened.len() >= Self::MAX_OPENED {
            let oldest = state.opened.iter().min_by_key(|(_, held)| held.since).map(|(wrapped, _)| wrapped.clone());
            oldest.and_then(|oldest| state.opened.remove(&oldest));
        }
        let (masters, asked) = (Arc::clone(&self.masters), wrapped.clone());
        let held = Held::new(async move { masters.unwrap_key(&asked).await }.boxed(), now);
        let key = held.key.clone();
        state.opened.insert(wrapped.clone(), held);
        key
    }
}

#[async_trait]
impl MasterKeys for ReusedKeys {
    async fn data_key(&self) -> Result<Arc<NewDataKey>, VaultError> {
        self.sealing_key().await
    }

    async fn unwrap_key(&self, wrapped: &WrappedKey) -> Result<Arc<DataKey>, VaultError> {
        self.opened_key(wrapped).await
    }
}
