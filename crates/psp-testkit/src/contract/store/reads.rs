use psp_domain::ports::Clock;
use psp_domain::{Currency, Money, PageRequest, PayableStatus, Position, TransactionKind, TransactionStatus};

use super::{approved, balance, create, load, payables, settle};
use crate::{Ports, fixtures};

pub async fn a_customer_sees_its_own_rows_only(ports: Ports) {
    let transaction = approved(&ports, "123", 2500, 1).await;
    let payable = payables(&ports, "123").await.remove(0);
    let (own, other) = (fixtures::customer("123"), fixtures::customer("1234"));
    assert!(ports.payables.find(&own, payable.id).await.unwrap().is_some());
    assert_eq!(ports.transactions.find(&other, transaction.id).await.unwrap(), None);
    assert_eq!(ports.payables.find(&other, payable.id).await.unwrap(), None);
    let page = PageRequest::default();
    assert!(ports.transactions.list(&other, TransactionKind::Payment, page).await.unwrap().items.is_empty());
    assert!(ports.payables.list(&other, page).await.unwrap().items.is_empty());
    assert_eq!(balance(&ports, "1234").await, (0, 0));
}

pub async fn pages_are_newest_first_without_gaps_or_repeats(ports: Ports) {
    let mut ids = Vec::new();
    for _ in 0..25 {
        ids.push(create(&ports, "123", 2500, 1).await.id.0);
        create(&ports, "other", 2500, 1).await;
    }
    ids.reverse();
    let customer = fixtures::customer("123");
    let mut numbered = Vec::new();
    for number in 1..=3 {
        let page = PageRequest::new(Position::Page(number), 10).unwrap();
        let page = ports.transactions.list(&customer, TransactionKind::Payment, page).await.unwrap();
        assert_eq!(page.next.is_some(), number < 3);
        numbered.extend(page.items.iter().map(|t| t.id.0));
    }
    assert_eq!(numbered, ids);
    let (mut walked, mut page) = (Vec::new(), PageRequest::new(Position::Page(1), 10).unwrap());
    loop {
        let part = ports.transactions.list(&customer, TransactionKind::Payment, page).await.unwrap();
        walked.extend(part.items.iter().map(|t| t.id.0));
        // What arrives during the walk does not shift it.
        create(&ports, "123", 2500, 1).await;
        let Some(next) = part.next else { break };
        page = PageRequest::new(Position::After(next), 10).unwrap();
    }
    assert_eq!(walked, ids);
    let beyond = PageRequest::new(Position::Page(PageRequest::MAX_PAGE), PageRequest::MAX_LIMIT).unwrap();
    let beyond = ports.transactions.list(&customer, TransactionKind::Payment, beyond).await.unwrap();
    assert!(beyond.items.is_empty() && beyond.next.is_none());
}

pub async fn pages_of_payables_are_newest_first_without_gaps_or_repeats(ports: Ports) {
    for _ in 0..3 {
        approved(&ports, "123", 1200, 12).await;
        approved(&ports, "other", 1200, 12).await;
    }
    let customer = fixtures::customer("123");
    let (mut walked, mut page) = (Vec::new(), PageRequest::new(Position::Page(1), 5).unwrap());
    loop {
        let part = ports.payables.list(&customer, page).await.unwrap();
        walked.extend(part.items.iter().map(|p| p.id.0));
        approved(&ports, "123", 100, 1).await;
        let Some(next) = part.next else { break };
        page = PageRequest::new(Position::After(next), 5).unwrap();
    }
    assert_eq!(walked.len(), 36);
    assert!(walked.is_sorted_by(|newer, older| newer > older));
    let second = PageRequest::new(Position::Page(2), 20).unwrap();
    let numbered = ports.payables.list(&customer, second).await.unwrap();
    assert_eq!((numbered.items.len(), numbered.next.is_some()), (20, true));
    let first = ports.payables.find(&customer, numbered.items[0].id).await.unwrap();
    assert_eq!(first.as_ref(), numbered.items.first());
}

pub async fn balances_are_the_sums_of_the_payables(ports: Ports) {
    for (customer, minor, installments) in [("a", 1001, 12), ("a", 2500, 1), ("b", 7, 3), ("a", 1, 1)] {
        approved(&ports, customer, minor, installments).await;
    }
    let debit = fixtures::debit("a", 999);
    let (transaction, change) = fixtures::create(&debit, ports.clock.now());
    ports.store.apply(change).await.unwrap();
    ports.store.apply(fixtures::approve(&transaction, ports.clock.now())).await.unwrap();
    assert_eq!(load(&ports, &transaction).await.status, TransactionStatus::Paid);
    for _ in 0..2 {
        for customer in ["a", "b", "c"] {
            let all = payables(&ports, customer).await;
            let sum = |status| all.iter().filter(|p| p.status == status).map(|p| p.receivable.minor()).sum::<i64>();
            let sums = (sum(PayableStatus::Paid), sum(PayableStatus::WaitingFunds));
            assert_eq!(balance(&ports, customer).await, sums, "{customer}");
        }
        settle(&ports, 100, 2).await;
    }
    let dollars = ports.balances.balance(&fixtures::customer("a"), "USD".parse().unwrap()).await.unwrap();
    assert_eq!((dollars.available.minor(), dollars.waiting_funds.minor()), (0, 0));
}

pub async fn balances_of_currencies_are_kept_apart(ports: Ports) {
    let now = ports.clock.now();
    for (code, minor) in [("BRL", 1000), ("USD", 2000), ("JPY", 3000), ("USD", 100)] {
        let mut new = fixtures::payment("123", minor, 1);
        new.amount = Money::new(minor, code.parse().unwrap());
        let (transaction, change) = fixtures::create(&new, now);
        ports.store.apply_all(vec![change, fixtures::approve(&transaction, now)]).await.unwrap();
        assert_eq!(load(&ports, &transaction).await.amount, new.amount);
    }
    for (code, waiting) in [("BRL", 950), ("USD", 1995), ("JPY", 2850), ("EUR", 0)] {
        let currency: Currency = code.parse().unwrap();
        let balance = ports.balances.balance(&fixtures::customer("123"), currency).await.unwrap();
        assert_eq!(
            (balance.available, balance.waiting_funds),
            (Money::new(0, currency), Money::new(waiting, currency))
        );
    }
}
