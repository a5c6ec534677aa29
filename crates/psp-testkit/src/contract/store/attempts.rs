use std::sync::Arc;

use psp_domain::ports::{Clock, UnauthorizedTransaction, UuidV7Generator};
use psp_domain::{
    Attempt, AttemptState, ChangeSet, FeeRules, GatewayReference, QueueName, Transaction, TransactionId,
    TransactionStatus, Transition, Verdict,
};

use super::races::race;
use super::{create, load, messages, sealed_card};
use crate::{Ports, fixtures};

/// What a worker loads of one transaction.
pub(super) async fn loaded(ports: &Ports, id: TransactionId) -> UnauthorizedTransaction {
    let loaded = ports.transactions.load_for_authorization(&[id]).await.unwrap();
    loaded.into_iter().next().expect("the transaction")
}

/// Opens an attempt of that number, which the transaction's version counts.
pub(super) async fn open(ports: &Ports, transaction: &mut Transaction, number: u16) -> Attempt {
    let attempt = fixtures::attempt(transaction, number, ports.clock.now());
    write(ports, transaction, vec![attempt.clone()]).await;
    attempt
}

/// Writes attempts, which the transaction's version counts.
async fn write(ports: &Ports, transaction: &mut Transaction, attempts: Vec<Attempt>) {
    let change = ChangeSet::of_attempts(transaction.clone(), attempts);
    assert_eq!(ports.store.apply(change).await.unwrap(), Verdict::Applied);
    transaction.version += 1;
}

pub async fn attempts_are_written_with_their_transaction_and_its_card_is_kept(ports: Ports) {
    let mut transaction = create(&ports, "123", 2500, 1).await;
    let card = sealed_card(&ports, transaction.id).await;
    assert!(card.is_some());
    assert!(loaded(&ports, transaction.id).await.attempts.is_empty());
    let now = ports.clock.now();
    let first = open(&ports, &mut transaction, 1).await;
    let mut pending = first.clone().into_state(AttemptState::Pending, None, now);
    pending.gateway_reference = Some("at the gateway".into());
    write(&ports, &mut transaction, vec![pending.clone()]).await;
    let voided = pending.into_state(AttemptState::Voided, Some("gateway_timeout"), now);
    let second = fixtures::attempt(&transaction, 2, now);
    write(&ports, &mut transaction, vec![voided.clone(), second.clone()]).await;
    let expected = UnauthorizedTransaction { transaction, card, attempts: vec![voided, second] };
    assert_eq!((expected.transaction.version, expected.transaction.sequence), (4, 1));
    let id = expected.transaction.id;
    assert_eq!(loaded(&ports, id).await, expected);
    assert_eq!(ports.attempts.attempts(id).await.unwrap(), expected.attempts);
    assert_eq!(messages(&ports, QueueName::Transactions).await, 1, "attempts are no messages");
}

pub async fn the_end_of_authorization_is_written_with_its_attempt(ports: Ports) {
    let now = ports.clock.now();
    for end in [fixtures::approve, fixtures::decline, fixtures::fail] {
        let mut transaction = create(&ports, "123", 2500, 1).await;
        let attempt = open(&ports, &mut transaction, 1).await;
        let resolved = attempt.into_state(AttemptState::Declined, Some("resolved"), now);
        let change = end(&transaction, now).with_attempts([resolved.clone()]);
        let ended = fixtures::written(&change).clone();
        assert_eq!(ports.store.apply(change.clone()).await.unwrap(), Verdict::Applied);
        assert_eq!(ports.store.apply(change).await.unwrap(), Verdict::AlreadyApplied);
        assert_eq!((ended.version, ended.sequence), (3, 2));
        let expected = UnauthorizedTransaction { transaction: ended, card: None, attempts: vec![resolved] };
        assert_eq!(loaded(&ports, transaction.id).await, expected);
    }
}

pub async fn each_transaction_is_loaded_with_its_own_attempts(ports: Ports) {
    let mut expected = Vec::new();
    for count in [0, 3, 1, 0, 12] {
        let mut transaction = create(&ports, "123", 2500, 1).await;
        let mut attempts = Vec::new();
        for number in 1..=count {
            attempts.push(open(&ports, &mut transaction, number).await);
        }
        expected.push((transaction, attempts));
    }
    let unknown = TransactionId(uuid::Uuid::max());
    let ids: Vec<_> = expected.iter().map(|(transaction, _)| transaction.id).chain([unknown]).collect();
    let mut found = ports.transactions.load_for_authorization(&ids).await.unwrap();
    found.sort_by_key(|loaded| loaded.transaction.id);
    let found: Vec<_> = found.into_iter().map(|loaded| (loaded.transaction, loaded.attempts)).collect();
    assert_eq!(found, expected);
    assert!(ports.attempts.attempts(unknown).await.unwrap().is_empty());
}

pub async fn a_stale_version_writes_no_attempt(ports: Ports) {
    let now = ports.clock.now();
    let before = create(&ports, "123", 2500, 1).await;
    let mut transaction = before.clone();
    let first = open(&ports, &mut transaction, 1).await;
    let voiding = first.clone().into_state(AttemptState::Voiding, None, now);
    let stale = [
        ChangeSet::of_attempts(before.clone(), vec![fixtures::attempt(&before, 1, now)]),
        ChangeSet::of_attempts(before.clone(), vec![voiding.clone()]),
        ChangeSet::of_attempts(before.clone(), vec![voiding.clone(), fixtures::attempt(&before, 2, now)]),
        fixtures::decline(&before, now).with_attempts([voiding.clone()]),
    ];
    for change in &stale {
        for _ in 0..2 {
            assert_eq!(ports.store.apply(change.clone()).await.unwrap(), Verdict::StaleVersion);
        }
    }
    assert_eq!(ports.store.apply_all(stale.to_vec()).await.unwrap(), [Verdict::StaleVersion; 4]);
    let (unknown, _) = fixtures::create(&fixtures::new_transaction(), now);
    let of_unknown = ChangeSet::of_attempts(unknown.clone(), vec![fixtures::attempt(&unknown, 1, now)]);
    assert_eq!(ports.store.apply(of_unknown).await.unwrap(), Verdict::StaleVersion);
    assert!(ports.attempts.attempts(unknown.id).await.unwrap().is_empty());
    let found = loaded(&ports, transaction.id).await;
    assert_eq!((found.transaction, found.attempts), (transaction, vec![first]));
}

pub async fn the_same_attempts_again_have_one_effect(ports: Ports) {
    let now = ports.clock.now();
    let transaction = create(&ports, "123", 2500, 1).await;
    let opened = fixtures::attempt(&transaction, 1, now);
    let change = ChangeSet::of_attempts(transaction.clone(), vec![opened.clone()]);
    assert_eq!(ports.store.apply(change.clone()).await.unwrap(), Verdict::Applied);
    for _ in 0..2 {
        assert_eq!(ports.store.apply(change.clone()).await.unwrap(), Verdict::AlreadyApplied);
    }
    assert_eq!(load(&ports, &transaction).await, *fixtures::written(&change));
    // The last one counts: the resolved one before it goes with it.
    let not_taken = opened.into_state(AttemptState::NotTaken, Some("gateway_unavailable"), now);
    let second = fixtures::attempt(&transaction, 2, now);
    let written = fixtures::written(&change).clone();
    let next = ChangeSet::of_attempts(written, vec![not_taken.clone(), second.clone()]);
    let verdicts = ports.store.apply_all(vec![change, next.clone(), next.clone()]).await.unwrap();
    assert_eq!(verdicts, [Verdict::AlreadyApplied, Verdict::Applied, Verdict::AlreadyApplied], "within one batch, too");
    let found = loaded(&ports, transaction.id).await;
    assert_eq!(&found.transaction, fixtures::written(&next));
    assert_eq!(found.attempts, [not_taken, second]);
}

pub async fn attempts_that_moved_on_are_stale_and_not_applied(ports: Ports) {
    let mut transaction = create(&ports, "123", 2500, 1).await;
    let before = transaction.clone();
    let opened = open(&ports, &mut transaction, 1).await;
    let pending = opened.clone().into_state(AttemptState::Pending, None, ports.clock.now());
    write(&ports, &mut transaction, vec![pending.clone()]).await;
    let again = ChangeSet::of_attempts(before, vec![opened]);
    assert_eq!(ports.store.apply(again).await.unwrap(), Verdict::StaleVersion);
    assert_eq!(ports.attempts.attempts(transaction.id).await.unwrap(), [pending]);
}

pub async fn an_attempt_may_change_without_changing_its_state(ports: Ports) {
    let now = ports.clock.now();
    let mut transaction = create(&ports, "123", 2500, 1).await;
    let opened = open(&ports, &mut transaction, 1).await;
    let timed_out = opened.into_state(AttemptState::Voiding, Some("gateway_timeout"), now);
    write(&ports, &mut transaction, vec![timed_out.clone()]).await;
    // It has the version that is expected, so it is another write and not the same again.
    let cancelled = timed_out.into_state(AttemptState::Voiding, Some("cancelled"), now);
    write(&ports, &mut transaction, vec![cancelled.clone()]).await;
    let found = loaded(&ports, transaction.id).await;
    assert_eq!((found.transaction, found.attempts), (transaction, vec![cancelled]));
}

pub async fn attempts_of_one_batch_are_taken_in_order_and_a_refused_one_harms_no_other(ports: Ports) {
    use Verdict::{Applied, StaleVersion};
    let now = ports.clock.now();
    let (transaction, created) = fixtures::create(&fixtures::new_transaction(), now);
    let opened = fixtures::attempt(&transaction, 1, now);
    let opens = ChangeSet::of_attempts(transaction.clone(), vec![opened.clone()]);
    let (late, in_between) = (fixtures::decline(&transaction, now), fixtures::written(&opens).clone());
    let at = GatewayReference { gateway: opened.gateway.clone(), reference: "ref-1".into() };
    let approval = in_between.approve(at, &FeeRules::default(), now, &UuidV7Generator);
    let Ok(Transition::Executed(next)) = approval else { panic!("not approved") };
    let approved = opened.into_state(AttemptState::Approved, None, now);
    let end = ChangeSet::from(*next).with_attempts([approved.clone()]);
    let (other, created_other) = fixtures::create(&fixtures::new_transaction(), now);
    let opened_other = fixtures::attempt(&other, 1, now);
    let opens_other = ChangeSet::of_attempts(other.clone(), vec![opened_other.clone()]);
    let (none, _) = fixtures::create(&fixtures::new_transaction(), now);
    let of_none = ChangeSet::of_attempts(none.clone(), vec![fixtures::attempt(&none, 1, now)]);
    let batch = vec![created, opens.clone(), of_none, late, created_other, end, opens_other, opens];
    let expected = [Applied, Applied, StaleVersion, StaleVersion, Applied, Applied, Applied, StaleVersion];
    assert_eq!(ports.store.apply_all(batch).await.unwrap(), expected);
    let found = loaded(&ports, transaction.id).await;
    assert_eq!((found.transaction.status, found.transaction.version), (TransactionStatus::PendingPayment, 3));
    assert_eq!(found.attempts, [approved]);
    assert_eq!(loaded(&ports, other.id).await.attempts, [opened_other]);
    assert!(ports.attempts.attempts(none.id).await.unwrap().is_empty());
}

pub async fn a_large_batch_of_attempts_is_written_whole(ports: Ports) {
    let now = ports.clock.now();
    let new = |_| fixtures::create(&fixtures::new_transaction(), now);
    let (transactions, changes): (Vec<_>, Vec<_>) = (0..300).map(new).unzip();
    assert_eq!(ports.store.apply_all(changes).await.unwrap(), vec![Verdict::Applied; 300]);
    let attempts: Vec<_> = transactions.iter().map(|t| fixtures::attempt(t, 1, now)).collect();
    let open = |(t, a): (&Transaction, &Attempt)| ChangeSet::of_attempts(t.clone(), vec![a.clone()]);
    let opens = transactions.iter().zip(&attempts).map(open).collect();
    assert_eq!(ports.store.apply_all(opens).await.unwrap(), vec![Verdict::Applied; 300]);
    let ids: Vec<_> = transactions.iter().map(|t| t.id).collect();
    let mut found = ports.transactions.load_for_authorization(&ids).await.unwrap();
    found.sort_by_key(|loaded| loaded.transaction.id);
    assert_eq!(found.iter().flat_map(|loaded| loaded.attempts.clone()).collect::<Vec<_>>(), attempts);
    assert!(found.iter().all(|loaded| loaded.transaction.version == 2 && loaded.card.is_some()));
}

pub async fn a_race_to_open_an_attempt_has_one_winner(ports: Ports) {
    let ports = Arc::new(ports);
    for _ in 0..10 {
        let transaction = create(&ports, "123", 2500, 1).await;
        let open = |_| {
            ChangeSet::of_attempts(transaction.clone(), vec![fixtures::attempt(&transaction, 1, ports.clock.now())])
        };
        let opens: Vec<_> = (0..16).map(open).collect();
        let verdicts = race(&ports, opens.iter().cloned()).await;
        let winners: Vec<_> = (0..16).filter(|i| verdicts[*i] == Verdict::Applied).collect();
        assert_eq!(winners.len(), 1, "{verdicts:?}");
        assert_eq!(verdicts.iter().filter(|v| **v == Verdict::StaleVersion).count(), 15);
        let found = loaded(&ports, transaction.id).await;
        assert_eq!(found.attempts, opens[winners[0]].attempts);
        assert_eq!((found.transaction.version, found.card.is_some()), (2, true));
    }
}

pub async fn a_race_of_an_attempt_and_a_cancellation_has_one_winner(ports: Ports) {
    let ports = Arc::new(ports);
    let now = ports.clock.now();
    for round in 0..20 {
        let transaction = create(&ports, "123", 2500, 1).await;
        let open = ChangeSet::of_attempts(transaction.clone(), vec![fixtures::attempt(&transaction, 1, now)]);
        let cancel = transaction.clone().cancel(now, &UuidV7Generator).unwrap();
        let mut both = [(true, open), (false, fixtures::executed(cancel))];
        both.rotate_left(round % 2);
        let verdicts = race(&ports, both.iter().map(|(_, change)| change.clone())).await;
        assert_eq!(verdicts.iter().filter(|v| **v == Verdict::Applied).count(), 1, "{verdicts:?}");
        let has_opened = both.iter().zip(&verdicts).any(|((opens, _), v)| *opens && *v == Verdict::Applied);
        let found = loaded(&ports, transaction.id).await;
        let is_processing = found.transaction.status == TransactionStatus::Processing;
        assert_eq!((is_processing, found.attempts.len()), (has_opened, usize::from(has_opened)));
        assert_eq!(found.card.is_some(), has_opened);
    }
}

pub async fn attempts_delivered_to_many_at_once_have_one_effect(ports: Ports) {
    let ports = Arc::new(ports);
    let transaction = create(&ports, "123", 2500, 1).await;
    let attempt = fixtures::attempt(&transaction, 1, ports.clock.now());
    let change = ChangeSet::of_attempts(transaction.clone(), vec![attempt.clone()]);
    let verdicts = race(&ports, std::iter::repeat_n(change, 32)).await;
    assert_eq!(verdicts.iter().filter(|v| **v == Verdict::Applied).count(), 1);
    assert_eq!(verdicts.iter().filter(|v| **v == Verdict::AlreadyApplied).count(), 31);
    let found = loaded(&ports, transaction.id).await;
    assert_eq!((found.transaction.version, found.attempts), (2, vec![attempt]));
}
