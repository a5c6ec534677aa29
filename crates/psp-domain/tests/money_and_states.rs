//! Properties of money, fees and the state machine.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use psp_domain::ports::{Clock, UuidV7Generator};
use psp_domain::{
    Currency, Event, EventKind, FeeRule, FeeRules, GatewayReference, IllegalTransition, Installments, Money,
    PayableStatus, PaymentMethod, Transaction, TransactionStatus, Transition,
};
use psp_testkit::clock::FixedClock;
use psp_testkit::fixtures;
use rust_decimal::Decimal;

fn currencies() -> impl Strategy<Value = Currency> {
    prop::sample::select(vec!["BRL", "USD", "EUR", "JPY", "KWD", "INR", "CLP"]).prop_map(|code| code.parse().unwrap())
}

fn rules() -> impl Strategy<Value = FeeRule> {
    (0_i64..=1_000_000, 0_u16..=366, any::<bool>()).prop_map(|(percent, days, waits)| FeeRule {
        percent: Decimal::new(percent, 4),
        days,
        initial_status: if waits { PayableStatus::WaitingFunds } else { PayableStatus::Paid },
    })
}

fn approve(new: &psp_domain::NewTransaction, rule: FeeRule, now: DateTime<Utc>) -> psp_domain::Transitioned {
    let rules = FeeRules::with([(new.payment_method, rule)].into()).unwrap();
    let (transaction, _) = Transaction::create(new, now, &UuidV7Generator).unwrap();
    match transaction.approve(reference(), &rules, now, &UuidV7Generator).unwrap() {
        Transition::Executed(next) => *next,
        Transition::AlreadyApplied => panic!("a fresh transaction was not approved before"),
    }
}

fn reference() -> GatewayReference {
    GatewayReference { gateway: "test".parse().unwrap(), reference: "1".into() }
}

proptest! {
    #[test]
    fn receivables_and_fees_add_up_to_the_amount_in_every_currency(
        minor in 12_i64..=Money::MAX_MINOR, currency in currencies(), parts in 1_u8..=12, rule in rules(),
    ) {
        let mut new = fixtures::payment("123", minor, parts);
        new.amount = Money::new(minor, currency);
        let now = FixedClock::default().now();
        let next = approve(&new, rule.clone(), now);
        let sum: i64 = next.payables.iter().map(|p| p.receivable.minor() + p.fee.minor()).sum();
        prop_assert_eq!(sum, minor);
        prop_assert_eq!(next.payables.len(), usize::from(parts));
        for (number, payable) in (1..).zip(&next.payables) {
            prop_assert!(payable.receivable.minor() >= 0 && payable.fee.minor() >= 0);
            prop_assert_eq!((payable.installment, payable.receivable.currency()), (number, currency));
            let days = i64::from(rule.days) * i64::from(number);
            prop_assert_eq!(payable.payment_date - now, TimeDelta::days(days));
            prop_assert_eq!((payable.fee_percent, payable.transaction_id), (rule.percent, next.transaction.id));
        }
        let all_paid = rule.initial_status == PayableStatus::Paid;
        let expected = if all_paid { TransactionStatus::Paid } else { TransactionStatus::PendingPayment };
        prop_assert_eq!(next.transaction.status, expected);
    }

    #[test]
    fn a_receivable_is_the_ceiling_of_its_share(minor in 1_i64..=Money::MAX_MINOR, kept in 0_i64..=1_000_000) {
        let rule = FeeRule { percent: Decimal::new(kept, 4), days: 0, initial_status: PayableStatus::Paid };
        let split = rule.split_fee(Money::new(minor, Currency::BRL));
        let exact = i128::from(minor) * i128::from(1_000_000 - kept);
        prop_assert_eq!(i128::from(split.receivable.minor()), (exact + 999_999) / 1_000_000);
        prop_assert_eq!(split.fee.minor(), minor - split.receivable.minor());
    }

    #[test]
    fn instalments_differ_by_the_rest_only(minor in 12_i64..=Money::MAX_MINOR, parts in 1_u8..=12) {
        let amounts: Vec<_> = Installments::new(parts).unwrap().divide(Money::new(minor, Currency::BRL)).collect();
        prop_assert_eq!(amounts.iter().map(|m| m.minor()).sum::<i64>(), minor);
        prop_assert!(amounts[1..].iter().all(|m| m.minor() == minor / i64::from(parts)));
        prop_assert!(amounts[0].minor() - minor / i64::from(parts) < i64::from(parts));
    }

    #[test]
    fn major_units_come_back_as_the_same_minor_units(minor in any::<i64>(), currency in currencies()) {
        let money = Money::new(minor, currency);
        prop_assert_eq!(Money::from_major(money.to_major(), currency), Ok(money));
    }

    #[test]
    fn whatever_is_asked_final_states_stay_and_events_have_no_gaps(
        asked in prop::collection::vec(0_usize..5, 1..20), debit in any::<bool>(),
    ) {
        let now = FixedClock::default().now();
        let mut new = fixtures::new_transaction();
        if debit {
            new.payment_method = PaymentMethod::DebitCard;
        }
        let (mut current, created) = Transaction::create(&new, now, &UuidV7Generator).unwrap();
        let mut events: Vec<Event> = vec![created];
        for which in asked {
            let before = current.clone();
            match ask(which, current.clone(), now) {
                Ok(Transition::Executed(next)) => {
                    prop_assert!(!before.status.is_final(), "{:?} left {:?}", which, before.status);
                    prop_assert_eq!(next.expected_version, before.version);
                    prop_assert_eq!(ask(which, next.transaction.clone(), now), Ok(Transition::AlreadyApplied));
                    events.extend(next.events.clone());
                    current = next.transaction.clone();
                }
                Ok(Transition::AlreadyApplied) => prop_assert_ne!(before.status, TransactionStatus::Processing),
                Err(illegal) => prop_assert_eq!((illegal.id, illegal.from), (before.id, before.status)),
            }
        }
        let own: Vec<_> = events.iter().filter(|event| event.kind != EventKind::PayablePaid).collect();
        for (number, event) in (1..).zip(&own) {
            prop_assert_eq!(event.sequence, number);
        }
        prop_assert_eq!(current.sequence, i64::try_from(own.len()).unwrap());
        let mut ids: Vec<_> = events.iter().map(|event| event.id).collect();
        ids.sort();
        ids.dedup();
        prop_assert_eq!(ids.len(), events.len());
    }
}

fn ask(which: usize, transaction: Transaction, now: DateTime<Utc>) -> Result<Transition, IllegalTransition> {
    let ids = &UuidV7Generator;
    match which {
        0 => transaction.approve(reference(), &FeeRules::default(), now, ids),
        1 => transaction.decline("do_not_honor", now, ids),
        2 => transaction.fail("gateway_timeout", now, ids),
        3 => transaction.cancel(now, ids),
        _ => transaction.settle(now, ids),
    }
}

#[test]
fn the_state_machine_has_these_transitions_and_no_others() {
    use TransactionStatus::{Cancelled, Declined, Failed, Paid, PendingPayment, Processing};
    let now = FixedClock::default().now();
    let (fresh, _) = Transaction::create(&fixtures::new_transaction(), now, &UuidV7Generator).unwrap();
    let to = [PendingPayment, Declined, Failed, Cancelled, Paid];
    for from in TransactionStatus::ALL {
        for (which, target) in to.into_iter().enumerate() {
            let transaction = Transaction { status: from, ..fresh.clone() };
            let legal = matches!(
                (from, target),
                (Processing, PendingPayment | Declined | Failed | Cancelled) | (PendingPayment, Paid)
            );
            let repeated = from == target || (from, target) == (Paid, PendingPayment);
            match ask(which, transaction, now) {
                Ok(Transition::Executed(next)) => {
                    assert!(legal && next.transaction.status == target, "{from:?} → {target:?}");
                }
                Ok(Transition::AlreadyApplied) => assert!(repeated, "{from:?} → {target:?}"),
                Err(illegal) => assert!(!legal && !repeated && illegal.to == target, "{from:?} → {target:?}"),
            }
        }
    }
}
