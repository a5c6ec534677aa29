use psp_domain::ports::Clock;
use psp_domain::{ChangeSet, QueueName, Transaction, TransactionId, TransactionStatus, TransactionWrite, Verdict};

use super::{PATIENCE, balance, create, load, messages, payables, sealed_card};
use crate::{Ports, fixtures};

pub async fn a_created_transaction_can_be_read_and_its_message_received(ports: Ports) {
    let mut new = fixtures::payment("123", 2500, 1);
    new.description = String::from("Lightsaber, “blue” — 100% 'kyber' \"\\\" 光剑");
    let (transaction, change) = fixtures::create(&new, ports.clock.now());
    let Some(TransactionWrite::Insert(_, card)) = change.transaction.clone() else { panic!("not an insert") };
    assert_eq!(ports.store.apply(change.clone()).await.unwrap(), Verdict::Applied);
    assert_eq!(load(&ports, &transaction).await, transaction);
    assert_eq!(sealed_card(&ports, transaction.id).await, card);
    let received = ports.queue.receive(QueueName::Transactions, 10, PATIENCE).await.unwrap();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].message.id, change.events[0].id);
    assert_eq!(received[0].message.kind, "transaction.created");
    assert_eq!(received[0].message.aggregate_id, transaction.id.0);
}

/// Change sets of which some are refused, with their verdicts.
fn mixed(ports: &Ports, customer: &str) -> Vec<(ChangeSet, Verdict)> {
    use Verdict::{AlreadyApplied, Applied, Duplicate, StaleVersion};
    let now = ports.clock.now();
    let create = |minor, installments| fixtures::create(&fixtures::payment(customer, minor, installments), now);
    let keyed = |key: &str| {
        let mut change = create(700, 1).1;
        change.idempotency = Some(fixtures::idempotency(&change, key, now));
        change
    };
    let (approved, created) = create(1001, 12);
    let approval = fixtures::approve(&approved, now);
    let (declined, other) = create(2500, 1);
    let decline = fixtures::decline(&declined, now);
    let (failed, third) = create(1, 1);
    let (unknown, _) = create(3, 1);
    let keyed = [keyed("key"), keyed("key"), keyed("other")];
    vec![
        (created.clone(), Applied),
        (keyed[0].clone(), Applied),
        (approval.clone(), Applied),
        (fixtures::decline(&approved, now), StaleVersion),
        (other, Applied),
        (keyed[1].clone(), Duplicate),
        (decline.clone(), Applied),
        (created, AlreadyApplied),
        (fixtures::approve(&unknown, now), StaleVersion),
        (third, Applied),
        (keyed[0].clone(), AlreadyApplied),
        (fixtures::fail(&failed, now), Applied),
        (approval, AlreadyApplied),
        (approved_twice(&approved, ports), Duplicate),
        (decline, AlreadyApplied),
        (keyed[2].clone(), Applied),
        (fixtures::approve(&declined, now), StaleVersion),
    ]
}

/// An approval that expects the version after the first one, so that only its instalments are in the way.
fn approved_twice(transaction: &Transaction, ports: &Ports) -> ChangeSet {
    fixtures::approve(&Transaction { version: transaction.version + 1, ..transaction.clone() }, ports.clock.now())
}

pub async fn a_batch_does_the_same_as_its_change_sets_one_at_a_time(ports: Ports) {
    let (singly, expected): (Vec<_>, Vec<_>) = mixed(&ports, "singly").into_iter().unzip();
    let mut verdicts = Vec::new();
    for change in singly.clone() {
        verdicts.push(ports.store.apply(change).await.unwrap());
    }
    assert_eq!(verdicts, expected, "one at a time");
    let (together, expected): (Vec<_>, Vec<_>) = mixed(&ports, "together").into_iter().unzip();
    assert_eq!(ports.store.apply_all(together.clone()).await.unwrap(), expected, "in a batch");
    for (one, other) in singly.iter().zip(&together) {
        let figures = async |change: &ChangeSet, customer| {
            let found =
                ports.transactions.find(&fixtures::customer(customer), fixtures::written(change).id).await.unwrap();
            found.map(|t| (t.status, t.version, t.amount, t.status_reason, t.gateway))
        };
        assert_eq!(figures(one, "singly").await, figures(other, "together").await);
    }
    let rows = async |customer| {
        let all = payables(&ports, customer).await;
        all.into_iter().map(|p| (p.installment, p.status, p.receivable, p.fee, p.payment_date)).collect::<Vec<_>>()
    };
    assert_eq!(rows("singly").await, rows("together").await);
    assert_eq!(balance(&ports, "singly").await, balance(&ports, "together").await);
    assert_eq!(messages(&ports, QueueName::Transactions).await, 10);
}

pub async fn a_large_batch_is_written_whole(ports: Ports) {
    let now = ports.clock.now();
    let new = |i: i64| fixtures::payment(&format!("c{}", i % 7), 1000 + i, 1 + u8::try_from(i % 12).unwrap());
    let (transactions, changes): (Vec<_>, Vec<_>) = (0..300).map(|i| fixtures::create(&new(i), now)).unzip();
    assert_eq!(ports.store.apply_all(changes).await.unwrap(), vec![Verdict::Applied; 300]);
    let approvals = transactions.iter().map(|t| fixtures::approve(t, now)).collect();
    assert_eq!(ports.store.apply_all(approvals).await.unwrap(), vec![Verdict::Applied; 300]);
    for (i, transaction) in transactions.iter().enumerate() {
        let loaded = load(&ports, transaction).await;
        assert_eq!(loaded.amount, transaction.amount);
        assert_eq!((loaded.status, loaded.version), (TransactionStatus::PendingPayment, 2), "{i}");
    }
    let all: i64 = (0..300).map(|i| 1 + i % 12).sum();
    let mut count = 0;
    for c in 0..7 {
        count += payables(&ports, &format!("c{c}")).await.len();
    }
    assert_eq!(i64::try_from(count).unwrap(), all);
}

pub async fn an_empty_batch_has_no_verdicts(ports: Ports) {
    assert_eq!(ports.store.apply_all(Vec::new()).await.unwrap(), []);
}

pub async fn the_same_change_set_again_has_one_effect(ports: Ports) {
    let now = ports.clock.now();
    let (transaction, mut change) = fixtures::create(&fixtures::new_transaction(), now);
    change.idempotency = Some(fixtures::idempotency(&change, "key", now));
    assert_eq!(ports.store.apply(change.clone()).await.unwrap(), Verdict::Applied);
    assert_eq!(ports.store.apply(change.clone()).await.unwrap(), Verdict::AlreadyApplied);
    let approval = fixtures::approve(&transaction, now);
    assert_eq!(ports.store.apply(approval.clone()).await.unwrap(), Verdict::Applied);
    assert_eq!(ports.store.apply(approval).await.unwrap(), Verdict::AlreadyApplied);
    assert_eq!(ports.store.apply(change).await.unwrap(), Verdict::AlreadyApplied);
    assert_eq!(payables(&ports, "123").await.len(), 1);
    assert_eq!(balance(&ports, "123").await, (0, 2375));
    assert_eq!(messages(&ports, QueueName::Transactions).await, 1);
    let (_, twice) = fixtures::create(&fixtures::payment("twice", 2500, 1), now);
    let verdicts = ports.store.apply_all(vec![twice.clone(), twice]).await.unwrap();
    assert_eq!(verdicts, [Verdict::Applied, Verdict::AlreadyApplied], "within one batch, too");
}

pub async fn a_stale_version_writes_nothing(ports: Ports) {
    let transaction = create(&ports, "123", 2500, 3).await;
    let declined = fixtures::decline(&transaction, ports.clock.now());
    let late = fixtures::approve(&transaction, ports.clock.now());
    assert_eq!(ports.store.apply(declined).await.unwrap(), Verdict::Applied);
    for _ in 0..2 {
        // Had the first try left an event, the second would be told that it was applied before.
        assert_eq!(ports.store.apply(late.clone()).await.unwrap(), Verdict::StaleVersion);
    }
    assert_eq!(load(&ports, &transaction).await.status, TransactionStatus::Declined);
    assert!(payables(&ports, "123").await.is_empty());
    assert_eq!(balance(&ports, "123").await, (0, 0));
}

pub async fn an_update_of_a_transaction_that_does_not_exist_is_stale(ports: Ports) {
    let (transaction, _) = fixtures::create(&fixtures::new_transaction(), ports.clock.now());
    let approval = fixtures::approve(&transaction, ports.clock.now());
    assert_eq!(ports.store.apply(approval).await.unwrap(), Verdict::StaleVersion);
    assert!(payables(&ports, "123").await.is_empty());
    assert_eq!(balance(&ports, "123").await, (0, 0));
}

pub async fn a_taken_installment_is_a_duplicate_and_writes_nothing(ports: Ports) {
    let transaction = super::approved(&ports, "123", 1000, 2).await;
    let before = (load(&ports, &transaction).await, payables(&ports, "123").await, balance(&ports, "123").await);
    let again = approved_twice(&transaction, &ports);
    for _ in 0..2 {
        assert_eq!(ports.store.apply(again.clone()).await.unwrap(), Verdict::Duplicate);
    }
    let after = (load(&ports, &transaction).await, payables(&ports, "123").await, balance(&ports, "123").await);
    assert_eq!(before, after);
}

pub async fn change_sets_for_one_transaction_in_one_batch_are_taken_in_order(ports: Ports) {
    let now = ports.clock.now();
    let (transaction, created) = fixtures::create(&fixtures::new_transaction(), now);
    let batch = vec![
        created,
        fixtures::approve(&transaction, now),
        fixtures::decline(&transaction, now),
        fixtures::create(&fixtures::new_transaction(), now).1,
    ];
    let verdicts = ports.store.apply_all(batch).await.unwrap();
    assert_eq!(verdicts, [Verdict::Applied, Verdict::Applied, Verdict::StaleVersion, Verdict::Applied]);
    assert_eq!(load(&ports, &transaction).await.status, TransactionStatus::PendingPayment);
}

pub async fn a_refused_change_set_harms_no_other_of_its_batch(ports: Ports) {
    let now = ports.clock.now();
    let old = create(&ports, "123", 2500, 1).await;
    let approval = fixtures::approve(&old, now);
    assert_eq!(ports.store.apply(approval.clone()).await.unwrap(), Verdict::Applied);
    let (fresh, create) = fixtures::create(&fixtures::new_transaction(), now);
    let batch = vec![fixtures::decline(&old, now), create, approval];
    let verdicts = ports.store.apply_all(batch).await.unwrap();
    assert_eq!(verdicts, [Verdict::StaleVersion, Verdict::Applied, Verdict::AlreadyApplied]);
    assert_eq!(load(&ports, &fresh).await, fresh);
    assert_eq!(payables(&ports, "123").await.len(), 1);
}

pub async fn the_sealed_card_is_gone_once_authorization_ended(ports: Ports) {
    for end in [fixtures::approve, fixtures::decline, fixtures::fail] {
        let transaction = create(&ports, "123", 2500, 1).await;
        assert!(sealed_card(&ports, transaction.id).await.is_some());
        assert_eq!(ports.store.apply(end(&transaction, ports.clock.now())).await.unwrap(), Verdict::Applied);
        assert_eq!(sealed_card(&ports, transaction.id).await, None);
    }
    let unknown = TransactionId(uuid::Uuid::max());
    assert!(ports.transactions.load_for_authorization(&[unknown]).await.unwrap().is_empty());
    assert!(ports.transactions.load_for_authorization(&[]).await.unwrap().is_empty());
}
