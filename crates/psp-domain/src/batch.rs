//! What every store needs to write many change sets at once.

use std::collections::HashMap;

use crate::{ChangeSet, CustomerId, IdempotencyKey, QueueName, TransactionId, Verdict};

/// Divides a batch so that no round holds two change sets for one transaction or one idempotency key: the statements of a
/// round see the rows of the rounds before it.
pub fn rounds<'c>(changes: impl Iterator<Item = &'c ChangeSet>) -> Vec<Vec<&'c ChangeSet>> {
    let mut by_transaction: HashMap<TransactionId, usize> = HashMap::new();
    let mut by_key: HashMap<(&CustomerId, &IdempotencyKey), usize> = HashMap::new();
    let mut rounds: Vec<Vec<&ChangeSet>> = Vec::new();
    for change in changes {
        let next = by_transaction.entry(change.transaction_id()).or_default();
        let mut round = *next;
        if let Some(record) = &change.idempotency {
            let next = by_key.entry((&record.customer_id, &record.key)).or_default();
            round = round.max(*next);
            *next = round + 1;
        }
        *next = round + 1;
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
