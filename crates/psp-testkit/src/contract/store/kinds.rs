use psp_domain::ports::Clock;
use psp_domain::{
    Named, NewTransaction, PageRequest, PaymentMethod, Position, QueueName, TransactionKind, TransactionStatus, Verdict,
};

use super::attempts::loaded;
use super::{balance, load, messages, payables};
use crate::{Ports, fixtures};

pub async fn transactions_of_every_kind_and_method_come_back_as_they_were(ports: Ports) {
    let named = [
        Named::default(),
        Named {
            order_id: Some("order-1".parse().unwrap()),
            user_id: Some("user-1".parse().unwrap()),
            country: Some("BR".parse().unwrap()),
            gateway: Some("test".parse().unwrap()),
        },
        Named { country: Some("DE".parse().unwrap()), ..Named::default() },
    ];
    let mut expected = Vec::new();
    for kind in TransactionKind::ALL {
        for method in PaymentMethod::ALL {
            for named in &named {
                let card = method.is_card().then(fixtures::card);
                let new = NewTransaction { card, named: named.clone(), ..fixtures::cardless(kind, method, 2500) };
                expected.push(fixtures::create(&new, ports.clock.now()));
            }
        }
    }
    let changes: Vec<_> = expected.iter().map(|(_, change)| change.clone()).collect();
    let count = changes.len();
    assert_eq!(ports.store.apply_all(changes).await.unwrap(), vec![Verdict::Applied; count]);
    for (transaction, _) in &expected {
        assert_eq!(load(&ports, transaction).await, *transaction);
        let loaded = loaded(&ports, transaction.id).await;
        assert_eq!((loaded.card.is_some(), &loaded.transaction), (transaction.card.is_some(), transaction));
    }
    assert_eq!(messages(&ports, QueueName::Transactions).await, count);
}

pub async fn a_list_holds_one_kind(ports: Ports) {
    let mut expected = [Vec::new(), Vec::new(), Vec::new()];
    for i in 0..21 {
        let kind = TransactionKind::ALL[i % 3];
        let new = fixtures::cardless(kind, PaymentMethod::BankTransfer, 2500);
        let (transaction, change) = fixtures::create(&new, ports.clock.now());
        assert_eq!(ports.store.apply(change).await.unwrap(), Verdict::Applied);
        expected[i % 3].insert(0, transaction);
    }
    let customer = fixtures::customer("123");
    for (kind, expected) in TransactionKind::ALL.into_iter().zip(expected) {
        let mut numbered = Vec::new();
        for number in 1..=3 {
            let page = PageRequest::new(Position::Page(number), 3).unwrap();
            numbered.extend(ports.transactions.list(&customer, kind, page).await.unwrap().items);
        }
        assert_eq!(numbered, expected);
        let (mut walked, mut page) = (Vec::new(), PageRequest::new(Position::Page(1), 3).unwrap());
        loop {
            let part = ports.transactions.list(&customer, kind, page).await.unwrap();
            walked.extend(part.items);
            let Some(next) = part.next else { break };
            page = PageRequest::new(Position::After(next), 3).unwrap();
        }
        assert_eq!(walked, expected);
        let other = fixtures::customer("456");
        assert!(ports.transactions.list(&other, kind, PageRequest::default()).await.unwrap().items.is_empty());
    }
}

pub async fn deposits_and_withdrawals_are_paid_at_once_and_owe_nothing(ports: Ports) {
    let now = ports.clock.now();
    for kind in [TransactionKind::Deposit, TransactionKind::Withdrawal] {
        let new = fixtures::cardless(kind, PaymentMethod::Pix, 2500);
        let (transaction, created) = fixtures::create(&new, now);
        let approval = fixtures::approve(&transaction, now);
        assert_eq!(ports.store.apply_all(vec![created, approval]).await.unwrap(), [Verdict::Applied; 2]);
        let paid = load(&ports, &transaction).await;
        assert_eq!((paid.status, paid.version, paid.sequence), (TransactionStatus::Paid, 2, 3));
    }
    assert!(payables(&ports, "123").await.is_empty());
    assert_eq!(balance(&ports, "123").await, (0, 0));
}
