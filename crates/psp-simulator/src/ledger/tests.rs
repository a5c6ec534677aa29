use psp_domain::Currency;
use psp_domain::ports::{IdGenerator, UuidV7Generator};

use super::*;

fn terms(movement: Movement, minor: i64) -> Terms {
    Terms {
        movement,
        transaction_id: Some(TransactionId(UuidV7Generator.next_id())),
        amount: Money::new(minor, Currency::BRL),
        method: Some(PaymentMethod::CreditCard),
        installments: Installments::ONE,
    }
}

fn charge(minor: i64) -> Terms {
    terms(Movement::Charge, minor)
}

fn reference() -> AttemptReference {
    AttemptReference(UuidV7Generator.next_id())
}

fn decision(taken: Taken) -> Decision {
    match taken {
        Taken::Decided(decision, _) => decision,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_reference_is_charged_once_and_for_one_amount() {
    let (mut ledger, reference, terms) = (Ledger::new(10), reference(), charge(2500));
    for is_first in [true, false, false] {
        let taken = ledger.authorize(reference, terms, CardBehaviour::Approve, false);
        assert_eq!(taken, Taken::Decided(Decision::Approved, is_first));
    }
    for other in [charge(2500), Terms { amount: Money::new(2501, Currency::BRL), ..terms }] {
        assert_eq!(ledger.authorize(reference, other, CardBehaviour::Approve, false), Taken::Conflict);
    }
    let totals = ledger.totals();
    assert_eq!((totals.charges, totals.sums["BRL"]), (1, 2500));
    assert_eq!(totals.references[&reference], ReferenceTotals { requests: 3, charges: 1, voided: false });
}

#[test]
fn a_transaction_charged_under_two_references_shows() {
    let (mut ledger, terms) = (Ledger::new(10), charge(2500));
    let references = [reference(), reference()];
    for reference in references {
        assert_eq!(decision(ledger.authorize(reference, terms, CardBehaviour::Approve, false)), Decision::Approved);
    }
    let of = |ledger: &Ledger| ledger.totals().transactions[&terms.transaction_id.unwrap()].clone();
    assert_eq!((of(&ledger).charges, of(&ledger).charged), (2, 5000));
    assert!(ledger.void(references[0]));
    assert_eq!((of(&ledger).charges, of(&ledger).charged), (1, 2500));
}

#[test]
fn a_void_takes_a_charge_back_and_forestalls_a_later_one() {
    let mut ledger = Ledger::new(10);
    let (charged, early, terms) = (reference(), reference(), charge(2500));
    assert_eq!(decision(ledger.authorize(charged, terms, CardBehaviour::Approve, false)), Decision::Approved);
    for reference in [charged, early] {
        assert!(ledger.void(reference) && ledger.void(reference));
        assert_eq!(ledger.find(reference).unwrap().decision, Decision::Voided);
        let again = ledger.authorize(reference, terms, CardBehaviour::Approve, false);
        assert_eq!(again, Taken::Decided(Decision::Voided, false));
    }
    let totals = ledger.totals();
    assert_eq!((totals.charges, totals.voided, totals.sums.len(), totals.transactions.len()), (1, 1, 0, 0));
}

#[test]
fn what_is_pending_moves_money_when_it_is_completed_and_not_when_it_was_voided() {
    let mut ledger = Ledger::new(10);
    let (kept, voided, declined) = (reference(), reference(), reference());
    for (reference, card) in [
        (kept, CardBehaviour::Approve),
        (voided, CardBehaviour::Approve),
        (declined, CardBehaviour::Decline("expired_card")),
    ] {
        let taken = ledger.authorize(reference, terms(Movement::Payout, 2500), card, true);
        assert_eq!(taken, Taken::Decided(Decision::Pending, true));
    }
    assert!(ledger.void(voided));
    assert_eq!(ledger.totals().payouts, 0);
    for (reference, expected) in
        [(kept, Decision::Approved), (voided, Decision::Voided), (declined, Decision::Declined("expired_card"))]
    {
        for _again in 0..2 {
            assert_eq!(ledger.complete(reference).unwrap().decision, expected);
        }
    }
    let totals = ledger.totals();
    assert_eq!((totals.payouts, totals.voided, totals.paid_out["BRL"], totals.sums.len()), (1, 0, 2500, 0));
    assert_eq!(ledger.complete(reference()), None);
}

#[test]
fn no_more_is_given_back_than_was_charged_and_a_voided_refund_can_be_made_again() {
    let mut ledger = Ledger::new(20);
    let (charged, paid_out) = (reference(), reference());
    let charge = charge(2500);
    ledger.authorize(charged, charge, CardBehaviour::Approve, false);
    ledger.authorize(paid_out, terms(Movement::Payout, 2500), CardBehaviour::Approve, false);
    let refund = |ledger: &mut Ledger, of, minor| {
        let reference = reference();
        let terms = Terms { transaction_id: None, method: None, ..terms(Movement::Refund(of), minor) };
        let taken = ledger.refund(reference, of, terms);
        assert_eq!(decision(ledger.refund(reference, of, terms)), decision(taken), "asked again");
        (reference, decision(taken))
    };
    let (first, taken) = refund(&mut ledger, charged, 2000);
    assert_eq!(taken, Decision::Approved);
    assert_eq!(refund(&mut ledger, charged, 501).1, Decision::Declined("exceeds_charge"));
    assert_eq!(refund(&mut ledger, paid_out, 1).1, Decision::Declined("not_charged"));
    assert_eq!(refund(&mut ledger, reference(), 1).1, Decision::Declined("not_charged"));
    assert!(ledger.void(first) && ledger.void(first));
    assert_eq!(refund(&mut ledger, charged, 2500).1, Decision::Approved);
    let totals = ledger.totals();
    assert_eq!((totals.refunded["BRL"], totals.sums["BRL"]), (2500, 2500));
    assert_eq!(totals.transactions[&charge.transaction_id.unwrap()].refunded, 2500);
    assert!(ledger.void(charged));
    assert_eq!(refund(&mut ledger, charged, 1).1, Decision::Declined("not_charged"));
    assert!(ledger.totals().refunded.is_empty(), "the void gave all of it back");
}

#[test]
fn a_card_that_fails_once_fails_once_for_a_transaction() {
    let (mut ledger, terms) = (Ledger::new(10), charge(1));
    assert_eq!(ledger.authorize(reference(), terms, CardBehaviour::FailOnce, false), Taken::Refused);
    assert_eq!(decision(ledger.authorize(reference(), terms, CardBehaviour::FailOnce, false)), Decision::Approved);
    assert_eq!(ledger.authorize(reference(), charge(1), CardBehaviour::FailOnce, false), Taken::Refused);
}

#[test]
fn what_it_cannot_remember_it_does_not_take() {
    let mut ledger = Ledger::new(1);
    let (known, terms) = (reference(), charge(1));
    assert_eq!(decision(ledger.authorize(known, terms, CardBehaviour::Approve, false)), Decision::Approved);
    assert_eq!(ledger.authorize(reference(), terms, CardBehaviour::Approve, false), Taken::Full);
    assert!(!ledger.void(reference()));
    assert_eq!(decision(ledger.authorize(known, terms, CardBehaviour::Approve, false)), Decision::Approved);
}

#[test]
fn an_amount_asks_for_the_answer_to_its_refund() {
    let (mut ledger, charged) = (Ledger::new(10), reference());
    ledger.authorize(charged, charge(1_000_000), CardBehaviour::Approve, false);
    let mut refund = |minor| ledger.refund(reference(), charged, terms(Movement::Refund(charged), minor));
    assert_eq!(decision(refund(400_002)), Decision::Declined("do_not_honor"));
    assert_eq!(refund(400_341), Taken::Refused);
    assert_eq!(decision(refund(400_003)), Decision::Approved);
    assert_eq!(ledger.totals().refunded["BRL"], 400_003);
}
