//! Properties of money, fees and the state machine.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use psp_domain::ports::{Clock, IdGenerator, UuidV7Generator};
use psp_domain::{
    Currency, Event, EventKind, FeeRule, FeeRules, GatewayReference, IllegalTransition, Installments, Money, OrderId,
    OrderLink, Payable, PayableStatus, PaymentMethod, Refund, RefundFeePolicy, RefundStatus, Transaction,
    TransactionStatus, Transition,
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
        asked in prop::collection::vec(0_usize..8, 1..30), debit in any::<bool>(), of_order in any::<bool>(),
    ) {
        let now = FixedClock::default().now();
        let mut new = fixtures::new_transaction();
        if debit {
            new.payment_method = PaymentMethod::DebitCard;
        }
        new.order = of_order.then(order_link);
        let (mut current, created) = Transaction::create(&new, now, &UuidV7Generator).unwrap();
        let mut events: Vec<Event> = vec![created];
        let (mut refunds, mut payables): (Vec<Refund>, Vec<Payable>) = (Vec::new(), Vec::new());
        for which in asked {
            let before = current.clone();
            let Some(asked) = ask_any(which, current.clone(), &refunds, &payables, now) else { continue };
            match asked {
                Ok(Transition::Executed(next)) => {
                    prop_assert!(!before.status.is_final(), "{:?} left {:?}", which, before.status);
                    prop_assert_eq!(next.expected_version, before.version);
                    if which != ASK_REFUND {
                        let again = ask_any(which, next.transaction.clone(), &next.refunds, &payables, now);
                        prop_assert_eq!(again, Some(Ok(Transition::AlreadyApplied)));
                    }
                    refunds.retain(|refund| next.refunds.iter().all(|ended| ended.id != refund.id));
                    refunds.extend(next.refunds.into_iter().filter(|refund| refund.status == RefundStatus::Pending));
                    payables.extend(next.payables);
                    events.extend(next.events);
                    current = next.transaction;
                }
                Ok(Transition::AlreadyApplied) => prop_assert_ne!(before.status, TransactionStatus::Processing),
                Err(illegal) => prop_assert_eq!((illegal.id, illegal.from), (before.id, before.status)),
            }
        }
        let own: Vec<_> = events.iter().filter(|event| event.kind != EventKind::PayablePaid).collect();
        for (number, event) in (1..).zip(&own) {
            prop_assert_eq!(event.sequence, number);
            prop_assert_eq!(event.aggregate_id, current.id.0);
        }
        prop_assert_eq!(current.sequence, i64::try_from(own.len()).unwrap());
        let kinds: Vec<_> = own.iter().map(|event| event.kind.as_str()).collect();
        let expected: Vec<_> = kinds.iter().filter(|kind| !kind.starts_with("payment.")).flat_map(|kind| {
            [Some((*kind).to_owned()), twin(kind).filter(|_| of_order)].into_iter().flatten()
        }).collect();
        prop_assert_eq!(kinds, expected, "an order's side hears each once, after it was said");
        let mut ids: Vec<_> = events.iter().map(|event| event.id).collect();
        ids.sort();
        ids.dedup();
        prop_assert_eq!(ids.len(), events.len());
    }
}

fn order_link() -> OrderLink {
    OrderLink { id: OrderId(UuidV7Generator.next_id()), correlation_id: "request-1".parse().unwrap() }
}

/// What the order's side hears of an event of its payment.
fn twin(kind: &str) -> Option<String> {
    let rest = kind.strip_prefix("transaction.")?;
    let is_heard = ["approved", "declined", "failed", "cancelled", "refunded", "refund_failed"].contains(&rest);
    is_heard.then(|| format!("payment.{rest}"))
}

const ASK_REFUND: usize = 5;

/// One of the transitions, with the first of the refunds where it needs one; `None` where it is not to be had.
fn ask_any(
    which: usize,
    transaction: Transaction,
    refunds: &[Refund],
    payables: &[Payable],
    now: DateTime<Utc>,
) -> Option<Result<Transition, IllegalTransition>> {
    let ids = &UuidV7Generator;
    match which {
        ASK_REFUND => {
            let third = Money::new(transaction.amount.minor() / 3, transaction.amount.currency());
            let amount = (transaction.refundable().minor() > third.minor()).then_some(third);
            let next = transaction.ask_refund(amount, now, now, ids).ok()?;
            Some(Ok(Transition::Executed(Box::new(next))))
        }
        6 => {
            let refund = refunds.first()?.clone();
            Some(transaction.complete_refund(refund, payables, RefundFeePolicy::Kept, now, ids))
        }
        7 => Some(transaction.fail_refund(refunds.first()?.clone(), "no", payables, now, ids)),
        which => Some(ask(which, transaction, now)),
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
            let was_approved = from.is_approved() && target == PendingPayment;
            let repeated = from == target || was_approved;
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

#[test]
fn only_what_is_asked_back_is_given_back_or_kept() {
    let now = FixedClock::default().now();
    let next = approve(&fixtures::new_transaction(), FeeRules::fallback(), now);
    let asked = next.transaction.ask_refund(None, now, now, &UuidV7Generator).unwrap();
    let refund = asked.refunds[0].clone();
    for from in TransactionStatus::ALL {
        for which in [6, 7] {
            let transaction = Transaction { status: from, ..asked.transaction.clone() };
            let to = if which == 6 { TransactionStatus::Refunded } else { TransactionStatus::PendingPayment };
            match ask_any(which, transaction, std::slice::from_ref(&refund), &next.payables, now) {
                Some(Ok(Transition::Executed(next))) => {
                    assert_eq!((from, next.transaction.status), (TransactionStatus::PendingRefund, to));
                    assert_eq!(next.refunds[0].check_at, None);
                }
                other => {
                    assert_ne!(from, TransactionStatus::PendingRefund);
                    assert!(matches!(other, Some(Err(illegal)) if illegal.from == from), "{from:?}");
                }
            }
        }
        let other_end = Refund { status: RefundStatus::Failed, ..refund.clone() };
        let transaction = Transaction { status: from, ..asked.transaction.clone() };
        let completed = ask_any(6, transaction, &[other_end], &next.payables, now);
        assert!(matches!(completed, Some(Err(_))), "a refund that failed is not given back after all");
    }
}
