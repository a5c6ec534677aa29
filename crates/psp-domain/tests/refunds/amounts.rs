//! Whatever is refunded, paid out and refused in whatever order: the amounts add up.

use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, Utc};
use proptest::prelude::*;
use psp_domain::ports::{Clock, UuidV7Generator};
use psp_domain::{
    Event, EventKind, FeeRule, FeeRules, GatewayReference, Money, Payable, PayableStatus, PaymentMethod, Refund,
    RefundFeePolicy, RefundRefused, RefundStatus, Transaction, TransactionStatus, Transition, Transitioned,
};
use psp_testkit::clock::FixedClock;
use psp_testkit::fixtures;
use rust_decimal::Decimal;

/// What happens to an approved payment.
#[derive(Debug, Clone)]
enum Step {
    /// That many thousandths of the amount are asked back.
    Ask(i64),
    /// All that is left is asked back.
    AskAll,
    /// The gateway gives one of the pending refunds back.
    Complete(usize),
    /// The gateway refuses one of the pending refunds.
    Fail(usize),
    /// Up to that many payables are paid out, the earliest first.
    Settle(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (1_i64..=700).prop_map(Step::Ask),
        1 => Just(Step::AskAll),
        3 => (0_usize..8).prop_map(Step::Complete),
        1 => (0_usize..8).prop_map(Step::Fail),
        2 => (1_usize..=6).prop_map(Step::Settle),
    ];
    prop::collection::vec(step, 1..24)
}

fn rules() -> impl Strategy<Value = FeeRule> {
    (0_i64..=1_000_000, 0_u16..=60, any::<bool>()).prop_map(|(percent, days, waits)| FeeRule {
        percent: Decimal::new(percent, 4),
        days,
        initial_status: if waits { PayableStatus::WaitingFunds } else { PayableStatus::Paid },
    })
}

fn policies() -> impl Strategy<Value = RefundFeePolicy> {
    prop::sample::select(vec![RefundFeePolicy::Kept, RefundFeePolicy::Returned])
}

/// Methods, and in how many parts they may be paid.
fn methods() -> impl Strategy<Value = (PaymentMethod, u8)> {
    let one = prop::sample::select(vec![PaymentMethod::DebitCard, PaymentMethod::Wallet, PaymentMethod::Pix]);
    prop_oneof![(1_u8..=12).prop_map(|parts| (PaymentMethod::CreditCard, parts)), one.prop_map(|method| (method, 1))]
}

/// A payment as a store keeps it.
struct Books {
    transaction: Transaction,
    payables: Vec<Payable>,
    pending: Vec<Refund>,
    events: Vec<Event>,
    rule: FeeRule,
    policy: RefundFeePolicy,
    clock: FixedClock,
}

impl Books {
    fn open(minor: i64, method: PaymentMethod, parts: u8, rule: FeeRule, policy: RefundFeePolicy) -> Self {
        let clock = FixedClock::default();
        let mut new = fixtures::payment("123", minor, parts);
        new.payment_method = method;
        if !method.is_card() {
            new.card = None;
        }
        let rules = FeeRules::with([(method, rule.clone())].into()).unwrap();
        let (transaction, created) = Transaction::create(&new, clock.now(), &UuidV7Generator).unwrap();
        let at = GatewayReference { gateway: "test".parse().unwrap(), reference: "1".into() };
        let Transition::Executed(next) = transaction.approve(at, &rules, clock.now(), &UuidV7Generator).unwrap() else {
            panic!("approved before")
        };
        let transaction = next.transaction.clone();
        let mut books =
            Self { transaction, payables: Vec::new(), pending: Vec::new(), events: vec![created], rule, policy, clock };
        books.write(*next);
        books
    }

    fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    fn write(&mut self, next: Transitioned) {
        assert_eq!(next.transaction.version, next.expected_version + 1);
        self.transaction = next.transaction;
        self.payables.extend(next.payables);
        self.events.extend(next.events);
        for refund in next.refunds {
            self.pending.retain(|pending| pending.id != refund.id);
            if refund.status == RefundStatus::Pending {
                self.pending.push(refund);
            }
        }
    }

    fn take(&mut self, step: &Step) {
        self.clock.advance_days(1);
        let total = self.transaction.amount.minor();
        match step {
            Step::Ask(thousandths) => self.ask(Some((total * thousandths / 1_000).max(1))),
            Step::AskAll => self.ask(None),
            Step::Complete(which) => self.end(*which, true),
            Step::Fail(which) => self.end(*which, false),
            Step::Settle(most) => self.settle(*most),
        }
    }

    fn ask(&mut self, minor: Option<i64>) {
        let left = self.transaction.refundable();
        let amount = minor.map(|minor| Money::new(minor, left.currency()));
        let asked = self.transaction.clone().ask_refund(amount, self.now(), self.now(), &UuidV7Generator);
        let expected = if self.transaction.status == TransactionStatus::Refunded {
            Err(RefundRefused::Status(TransactionStatus::Refunded))
        } else if left.minor() == 0 || amount.is_some_and(|amount| amount.minor() > left.minor()) {
            Err(RefundRefused::Exceeds(left))
        } else {
            Ok(amount.unwrap_or(left))
        };
        match asked {
            Ok(next) => {
                assert_eq!(expected, Ok(next.refunds[0].amount));
                assert!(next.payables.is_empty(), "asking takes nothing back yet");
                self.write(next);
            }
            Err(refused) => assert_eq!(expected, Err(refused)),
        }
    }

    fn end(&mut self, which: usize, given: bool) {
        if self.pending.is_empty() {
            return;
        }
        let refund = self.pending[which % self.pending.len()].clone();
        let (transaction, now, ids) = (self.transaction.clone(), self.now(), &UuidV7Generator);
        let ended = if given {
            transaction.complete_refund(refund.clone(), &self.payables, self.policy, now, ids)
        } else {
            transaction.fail_refund(refund.clone(), "no", &self.payables, now, ids)
        };
        let Ok(Transition::Executed(next)) = ended else { panic!("{ended:?}") };
        let taken: i64 = next.payables.iter().map(|p| p.receivable.minor() + p.fee.minor()).sum();
        assert_eq!(taken, if given { -refund.amount.minor() } else { 0 });
        assert!(given || next.payables.is_empty(), "what was paid stays paid");
        for taken in &next.payables {
            let owed = self.payables.iter().find(|p| p.installment == taken.installment && p.refund == 0).unwrap();
            assert!(taken.receivable.minor() <= 0 && taken.fee.minor() <= 0, "{taken:?}");
            assert_eq!((taken.status, taken.refund), (owed.status, refund.number));
        }
        let paid = next.payables.iter().filter(|payable| payable.status == PayableStatus::Paid).map(|p| p.id.0);
        let said = next.events.iter().filter(|event| event.kind == EventKind::PayablePaid).map(|e| e.aggregate_id);
        assert!(paid.eq(said), "what is paid at once says so");
        let ended = next.refunds[0].clone();
        self.write(*next);
        let again = if given {
            self.transaction.clone().complete_refund(ended, &self.payables, self.policy, now, ids)
        } else {
            self.transaction.clone().fail_refund(ended, "no", &self.payables, now, ids)
        };
        assert_eq!(again, Ok(Transition::AlreadyApplied));
    }

    /// As settlement in bulk does it.
    fn settle(&mut self, most: usize) {
        let waiting = self.payables.iter_mut().filter(|p| p.status == PayableStatus::WaitingFunds);
        for payable in waiting.take(most) {
            payable.status = PayableStatus::Paid;
        }
        let all_paid = self.payables.iter().all(|p| p.status == PayableStatus::Paid);
        match self.transaction.status {
            TransactionStatus::PendingPayment if all_paid => {
                let Ok(Transition::Executed(next)) = self.transaction.clone().settle(self.now(), &UuidV7Generator)
                else {
                    panic!("not settled")
                };
                self.write(*next);
            }
            TransactionStatus::PendingRefund => self.transaction.version += 1,
            _ => {}
        }
    }

    fn check(&self) {
        let t = &self.transaction;
        let pending: i64 = self.pending.iter().map(|refund| refund.amount.minor()).sum();
        assert_eq!(t.refunds.pending.minor(), pending);
        assert!(t.refundable().minor() >= 0);
        let waits = self.payables.iter().any(|p| p.status == PayableStatus::WaitingFunds);
        let status = if t.refunds.done == t.amount {
            TransactionStatus::Refunded
        } else if pending > 0 {
            TransactionStatus::PendingRefund
        } else if waits {
            TransactionStatus::PendingPayment
        } else {
            TransactionStatus::Paid
        };
        assert_eq!(t.status, status);
        self.check_payables();
        let own: Vec<_> = self.events.iter().filter(|event| event.kind != EventKind::PayablePaid).collect();
        for (number, event) in (1..).zip(&own) {
            assert_eq!(event.sequence, number);
        }
        assert_eq!(t.sequence, i64::try_from(own.len()).unwrap());
    }

    fn check_payables(&self) {
        let t = &self.transaction;
        let sum: i64 = self.payables.iter().map(|p| p.receivable.minor() + p.fee.minor()).sum();
        assert_eq!(sum, t.amount.minor() - t.refunds.done.minor());
        let unique: HashSet<_> = self.payables.iter().map(|p| (p.installment, p.refund)).collect();
        assert_eq!(unique.len(), self.payables.len());
        let mut parts: BTreeMap<u8, (i64, i64, i64)> = BTreeMap::new();
        for payable in &self.payables {
            let (left, fee, first_fee) = parts.entry(payable.installment).or_default();
            *left += payable.receivable.minor() + payable.fee.minor();
            *fee += payable.fee.minor();
            *first_fee += if payable.refund == 0 { payable.fee.minor() } else { 0 };
        }
        for (left, fee, first_fee) in parts.into_values() {
            assert!(left >= 0, "more was taken back than was owed");
            match self.policy {
                RefundFeePolicy::Kept => assert_eq!(fee, first_fee),
                RefundFeePolicy::Returned => {
                    let split = self.rule.split_fee(Money::new(left, t.amount.currency()));
                    assert_eq!(fee, split.fee.minor(), "the fee of what is left");
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn payables_owe_what_is_not_given_back_and_the_fee_is_borne_by_whom_the_policy_says(
        minor in 12_i64..=10_000_000, (method, parts) in methods(), rule in rules(), policy in policies(), steps in steps(),
    ) {
        let mut books = Books::open(minor, method, parts, rule, policy);
        books.check();
        for step in &steps {
            books.take(step);
            books.check();
        }
    }

    #[test]
    fn a_payment_that_is_given_back_in_parts_or_whole_ends_refunded_and_owes_nothing_but_kept_fees(
        minor in 12_i64..=10_000_000, (method, parts) in methods(), rule in rules(), policy in policies(),
        thousandths in prop::collection::vec(1_i64..=400, 0..6), settled in 0_usize..12,
    ) {
        let mut books = Books::open(minor, method, parts, rule, policy);
        let fees: i64 = books.payables.iter().map(|p| p.fee.minor()).sum();
        for thousandths in thousandths {
            for step in [Step::Ask(thousandths), Step::Settle(settled), Step::Complete(0)] {
                books.take(&step);
            }
        }
        for step in [Step::AskAll, Step::Complete(0), Step::Settle(usize::MAX)] {
            books.take(&step);
        }
        books.check();
        prop_assert_eq!(books.transaction.status, TransactionStatus::Refunded);
        let receivables: i64 = books.payables.iter().map(|p| p.receivable.minor()).sum();
        prop_assert_eq!(receivables, if policy == RefundFeePolicy::Kept { -fees } else { 0 });
        prop_assert_eq!(books.payables.iter().filter(|p| p.status != PayableStatus::Paid).count(), 0);
    }
}

#[test]
fn the_last_instalments_are_taken_back_first_and_each_at_its_own_date() {
    let rule = FeeRules::default().rule(PaymentMethod::CreditCard);
    let mut books = Books::open(3_000, PaymentMethod::CreditCard, 3, rule, RefundFeePolicy::Kept);
    books.take(&Step::Settle(1));
    books.take(&Step::Ask(700));
    books.end(0, true);
    books.check();
    let owed: BTreeMap<_, _> =
        books.payables.iter().filter(|p| p.refund == 0).map(|p| (p.installment, p.payment_date)).collect();
    let taken = books.payables.iter().filter(|p| p.refund == 1);
    let taken: Vec<_> = taken.map(|p| (p.installment, p.receivable.minor(), p.status, p.payment_date)).collect();
    assert_eq!(
        taken,
        [
            (3, -1_000, PayableStatus::WaitingFunds, owed[&3]),
            (2, -1_000, PayableStatus::WaitingFunds, owed[&2]),
            (1, -100, PayableStatus::Paid, books.now()),
        ]
    );
}

#[test]
fn what_is_no_approved_payment_has_nothing_to_give_back() {
    let now = FixedClock::default().now();
    let (fresh, _) = Transaction::create(&fixtures::new_transaction(), now, &UuidV7Generator).unwrap();
    let ask = |t: &Transaction, minor: Option<i64>| {
        let amount = minor.map(|minor| Money::new(minor, t.amount.currency()));
        t.clone().ask_refund(amount, now, now, &UuidV7Generator).map(|next| next.refunds[0].amount.minor())
    };
    for status in TransactionStatus::ALL {
        let transaction = Transaction { status, ..fresh.clone() };
        let expected = if status.is_approved() && status != TransactionStatus::Refunded {
            Ok(2_500)
        } else {
            Err(RefundRefused::Status(status))
        };
        assert_eq!(ask(&transaction, None), expected);
    }
    let approved = Transaction { status: TransactionStatus::PendingPayment, ..fresh };
    for minor in [0, -1, i64::MIN] {
        assert_eq!(ask(&approved, Some(minor)), Err(RefundRefused::Amount));
    }
    assert!(matches!(ask(&approved, Some(2_501)), Err(RefundRefused::Exceeds(_))));
    let mut often = approved.clone();
    often.refunds.count = Refund::MAX_PER_TRANSACTION;
    assert_eq!(ask(&often, Some(1)), Err(RefundRefused::TooMany));
    let deposit = Transaction { kind: psp_domain::TransactionKind::Deposit, ..approved };
    assert!(matches!(ask(&deposit, None), Err(RefundRefused::Kind(_))));
}
