use async_trait::async_trait;
use chrono::{DateTime, Utc};
use psp_domain::ports::{
    AttemptStore, CallbackStore, CardTokenStore, Clock, GatewayStore, IdGenerator, StoreError, Sweep, TokenizedCard,
    UuidV7Generator, callback_message, check_message,
};
use psp_domain::{
    Attempt, AttemptState, Callback, CallbackId, CallbackOutcome, CardToken, CustomerId, GatewayHealth, GatewayName,
    GatewayRecord, IdempotencyRecord, MessageId, Route, RoutingTable, TransactionId, TransactionStatus,
};

use super::Memory;
use super::memory_queue::Stored;

#[async_trait]
impl AttemptStore for Memory {
    async fn attempts(&self, transaction: TransactionId) -> Result<Vec<Attempt>, StoreError> {
        Ok(self.state().attempts_of(transaction))
    }

    async fn sweep(&self, sweep: Sweep) -> Result<u64, StoreError> {
        let mut guard = self.state();
        let state = &mut *guard;
        let mut due: Vec<_> =
            state.attempts.values_mut().filter(|a| a.check_at.is_some_and(|at| at <= sweep.now)).collect();
        due.sort_by_key(|attempt| attempt.check_at);
        due.truncate(sweep.limit as usize);
        for attempt in &mut due {
            let age = sweep.now - attempt.created_at;
            attempt.check_at = Some(sweep.now + age.clamp(sweep.least, sweep.most));
            let message = check_message(MessageId(UuidV7Generator.next_id()), attempt.transaction_id);
            state.messages.insert(message.id.0, Stored::new(message, sweep.now));
        }
        let count = due.len() as u64;
        drop(guard);
        self.sent.notify_waiters();
        Ok(count)
    }

    async fn count_overdue(&self, overdue: DateTime<Utc>) -> Result<u64, StoreError> {
        let state = self.state();
        let is_overdue = |attempt: &&Attempt| {
            matches!(attempt.state, AttemptState::Open | AttemptState::Voiding) && attempt.created_at < overdue
        };
        Ok(state.attempts.values().filter(is_overdue).count() as u64)
    }

    async fn stalled(
        &self,
        created: DateTime<Utc>,
        after: Option<TransactionId>,
        limit: u32,
    ) -> Result<Vec<TransactionId>, StoreError> {
        let state = self.state();
        let old = state.transactions.values().map(|(transaction, _)| transaction).filter(|transaction| {
            transaction.status == TransactionStatus::Processing
                && transaction.created_at < created
                && Some(transaction.id) > after
                && !state.attempts_of(transaction.id).iter().any(|attempt| attempt.state.is_unresolved())
        });
        Ok(old.map(|transaction| transaction.id).take(limit as usize).collect())
    }
}

fn is_same(a: &Callback, b: &Callback) -> bool {
    (a.transaction_id, &a.gateway, &a.gateway_reference, &a.status, a.amount)
        == (b.transaction_id, &b.gateway, &b.gateway_reference, &b.status, b.amount)
}

#[async_trait]
impl CallbackStore for Memory {
    async fn receive(&self, callback: &Callback) -> Result<bool, StoreError> {
        let mut state = self.state();
        let of_transaction = state.callbacks.values().filter(|known| known.transaction_id == callback.transaction_id);
        let is_full = of_transaction.count() >= Callback::MAX_PER_TRANSACTION as usize;
        if is_full || state.callbacks.values().any(|known| is_same(known, callback)) {
            return Ok(false);
        }
        state.callbacks.insert(callback.id.0, callback.clone());
        let message = callback_message(callback.id);
        state.messages.insert(message.id.0, Stored::new(message, callback.received_at));
        drop(state);
        self.sent.notify_waiters();
        Ok(true)
    }

    async fn is_known(&self, callback: &Callback) -> Result<bool, StoreError> {
        Ok(self.state().callbacks.values().any(|known| is_same(known, callback)))
    }

    async fn find_callback(&self, id: CallbackId) -> Result<Option<Callback>, StoreError> {
        Ok(self.state().callbacks.get(&id.0).cloned())
    }

    async fn conclude(&self, id: CallbackId, outcome: CallbackOutcome, _: DateTime<Utc>) -> Result<(), StoreError> {
        if let Some(callback) = self.state().callbacks.get_mut(&id.0) {
            callback.outcome.get_or_insert(outcome);
        }
        Ok(())
    }

    async fn with_outcome(&self, outcome: CallbackOutcome, limit: u32) -> Result<Vec<Callback>, StoreError> {
        let state = self.state();
        let such = state.callbacks.values().rev().filter(|callback| callback.outcome == Some(outcome));
        Ok(such.take(limit as usize).cloned().collect())
    }
}

#[async_trait]
impl CardTokenStore for Memory {
    async fn put_token(&self, card: &TokenizedCard, record: Option<&IdempotencyRecord>) -> Result<bool, StoreError> {
        let now = self.clock.now();
        let mut state = self.state();
        if state.tokens.contains_key(&card.token.0) {
            return Ok(true);
        }
        if let Some(record) = record {
            if state.is_key_taken(record, now) {
                return Ok(false);
            }
            state.keep_key(Some(record));
        }
        state.tokens.insert(card.token.0, card.clone());
        Ok(true)
    }

    async fn find_token(
        &self,
        customer: &CustomerId,
        token: CardToken,
        now: DateTime<Utc>,
    ) -> Result<Option<TokenizedCard>, StoreError> {
        let found = self.state().tokens.get(&token.0).cloned();
        Ok(found.filter(|card| card.customer_id == *customer && card.expires_at > now))
    }

    async fn purge_tokens(&self, now: DateTime<Utc>, limit: u32) -> Result<u64, StoreError> {
        let mut state = self.state();
        let expired = state.tokens.values().filter(|card| card.expires_at <= now).map(|card| card.token.0);
        let expired: Vec<_> = expired.take(limit as usize).collect();
        for token in &expired {
            state.tokens.remove(token);
        }
        Ok(expired.len() as u64)
    }
}

fn is_same_route(a: &Route, b: &Route) -> bool {
    (&a.gateway, a.country, a.kind, a.method, a.currency) == (&b.gateway, b.country, b.kind, b.method, b.currency)
}

#[async_trait]
impl GatewayStore for Memory {
    async fn routing(&self) -> Result<RoutingTable, StoreError> {
        let state = self.state();
        Ok(RoutingTable::new(state.gateways.values().cloned().collect(), state.routes.clone()))
    }

    async fn put_gateway(&self, gateway: &GatewayRecord) -> Result<bool, StoreError> {
        let mut state = self.state();
        let name = gateway.name.to_string();
        let kept = state.gateways.get(&name).map(|known| (known.created_at, known.enabled));
        let (created_at, enabled) = kept.unwrap_or((gateway.created_at, gateway.enabled));
        state.gateways.insert(name, GatewayRecord { created_at, enabled, ..gateway.clone() });
        Ok(kept.is_none())
    }

    async fn enable(&self, name: &GatewayName, enabled: bool, now: DateTime<Utc>) -> Result<bool, StoreError> {
        let mut state = self.state();
        let Some(gateway) = state.gateways.get_mut(name.as_str()) else { return Ok(false) };
        (gateway.enabled, gateway.updated_at) = (enabled, now);
        Ok(true)
    }

    async fn put_route(&self, route: &Route) -> Result<(), StoreError> {
        let mut state = self.state();
        state.routes.retain(|known| !is_same_route(known, route));
        state.routes.push(route.clone());
        Ok(())
    }

    async fn remove_route(&self, route: &Route) -> Result<bool, StoreError> {
        let mut state = self.state();
        let before = state.routes.len();
        state.routes.retain(|known| !is_same_route(known, route));
        Ok(state.routes.len() < before)
    }

    async fn report(&self, health: &[GatewayHealth]) -> Result<(), StoreError> {
        let mut state = self.state();
        for new in health {
            state.health.retain(|old| (&old.gateway, &old.instance) != (&new.gateway, &new.instance));
            state.health.push(new.clone());
        }
        Ok(())
    }

    async fn health(&self, since: DateTime<Utc>) -> Result<Vec<GatewayHealth>, StoreError> {
        Ok(self.state().health.iter().filter(|health| health.reported_at >= since).cloned().collect())
    }
}
