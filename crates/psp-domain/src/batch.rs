//! What every store needs to write many change sets at once.

use std::collections::HashMap;

use crate::{CardToken, ChangeSet, CustomerId, IdempotencyKey, OrderId, QueueName, TransactionId, Verdict};

/// Divides a batch so that no round holds two change sets for one transaction, one order, one idempotency key or one card's
/// token: the statements of a round see the rows of the rounds before it.
pub fn rounds<'c>(changes: impl Iterator<Item = &'c ChangeSet>) -> Vec<Vec<&'c ChangeSet>> {
    let mut by_transaction: HashMap<TransactionId, usize> = HashMap::new();
    let mut by_order: HashMap<OrderId, usize> = HashMap::new();
    let mut by_key: HashMap<(&CustomerId, &IdempotencyKey), usize> = HashMap::new();
    let mut by_token: HashMap<CardToken, usize> = HashMap::new();
    let mut rounds: Vec<Vec<&ChangeSet>> = Vec::new();
    for change in changes {
        let key = change.idempotency.as_ref().map(|record| (&record.customer_id, &record.key));
        let mut next = [
            change.transaction_id().map(|id| by_transaction.entry(id).or_default()),
            change.order_id().map(|id| by_order.entry(id).or_default()),
            key.map(|key| by_key.entry(key).or_default()),
            change.spends.map(|token| by_token.entry(token).or_default()),
        ];
        let round = next.iter().flatten().map(|round| **round).max().unwrap_or_default();
        for next in next.iter_mut().flatten() {
            **next = round + 1;
        }
        if round >= rounds.len() {
            rounds.resize_with(round + 1, Vec::new);
        }
        rounds[round].push(change);
    }
    rounds
}

/// The queues to which applied change sets sent messages: those whose receivers are to be woken after the commit.
pub fn queues(changes: &[ChangeSet], verdicts: &[Verdict]) -> impl Iterator<Item = QueueName> {
    QueueName::ALL.into_iter().filter(move |queue| {
        let mut applied = changes.iter().zip(verdicts).filter(|(_, verdict)| **verdict == Verdict::Applied);
        applied.any(|(change, _)| change.events.iter().any(|event| event.kind.queue() == Some(*queue)))
    })
}
