//! What every gateway does.

#![expect(missing_docs, reason = "the names of tests are sentences, and their factories async")]

use std::sync::Arc;

use psp_domain::ports::{
    AuthorizationRequest, AuthorizationResult, CallbackSignature, ForgedCallback, Gateway, IdGenerator, RefundRequest,
    UuidV7Generator, VOIDED,
};
use psp_domain::{AttemptReference, Currency, Installments, Money, PaymentMethod, TransactionId, TransactionKind};

use crate::fixtures;

/// Runs the gateway contract over the [`GatewayCase`] that an async function makes.
#[macro_export]
macro_rules! gateway_contract {
    ($make:path) => {
        $crate::contract_tests! { $make, $crate::contract::gateway,
            the_same_transaction_asked_again_gets_the_same_answer
            the_same_transaction_asked_by_many_at_once_gets_one_answer
            an_approval_has_a_reference_and_a_decline_a_reason
            what_was_answered_is_found
            a_voided_transaction_is_not_charged_whenever_it_is_asked_for
            no_answer_shows_card_data
            deposits_withdrawals_and_methods_without_a_card_are_taken
            a_refund_is_answered_again_as_it_was
            who_signs_callbacks_refuses_those_that_are_not_signed
        }
    };
}

/// A gateway with numbers to try.
pub struct GatewayCase<G> {
    /// The gateway.
    pub gateway: G,
    /// A card number that it approves.
    pub approved: &'static str,
    /// A card number that it declines.
    pub declined: &'static str,
    /// A card number to which it has no answer.
    pub erring: &'static str,
    /// Whether it keeps what it answered. A gateway that never charges needs not: it finds nothing, and has nothing to void.
    pub keeps: bool,
    /// Whether it signs its callbacks.
    pub signs: bool,
}

/// A request for 25.00 BRL of a new transaction by a card of that number.
pub fn request(number: &str) -> AuthorizationRequest {
    AuthorizationRequest {
        reference: AttemptReference(UuidV7Generator.next_id()),
        transaction_id: TransactionId(UuidV7Generator.next_id()),
        kind: TransactionKind::Payment,
        amount: Money::new(2500, Currency::BRL),
        payment_method: PaymentMethod::CreditCard,
        installments: Installments::ONE,
        country: None,
        card: Some(fixtures::card_numbered(number)),
    }
}

/// A request of that kind for 25.00 BRL without a card.
pub fn cardless_request(kind: TransactionKind, method: PaymentMethod) -> AuthorizationRequest {
    AuthorizationRequest { kind, payment_method: method, card: None, ..request("4111111111111111") }
}

/// A request to give 10.00 BRL of a charge back.
pub fn refund_request(of: AttemptReference) -> RefundRequest {
    let reference = AttemptReference(UuidV7Generator.next_id());
    RefundRequest { reference, of, amount: Money::new(1000, Currency::BRL) }
}

pub async fn the_same_transaction_asked_again_gets_the_same_answer<G: Gateway>(case: GatewayCase<G>) {
    for number in [case.approved, case.declined] {
        let request = request(number);
        let first = case.gateway.authorize(&request).await.unwrap();
        assert_eq!(case.gateway.authorize(&request).await.unwrap(), first);
    }
}

pub async fn the_same_transaction_asked_by_many_at_once_gets_one_answer<G: Gateway + 'static>(case: GatewayCase<G>) {
    let gateway = Arc::new(case.gateway);
    for number in [case.approved, case.declined] {
        let request = request(number);
        let asked: Vec<_> = (1..=8)
            .map(|_| {
                let (gateway, request) = (Arc::clone(&gateway), request.clone());
                tokio::spawn(async move { gateway.authorize(&request).await.unwrap() })
            })
            .collect();
        let mut answers = Vec::new();
        for answer in asked {
            answers.push(answer.await.unwrap());
        }
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    }
}

pub async fn an_approval_has_a_reference_and_a_decline_a_reason<G: Gateway>(case: GatewayCase<G>) {
    let approved = case.gateway.authorize(&request(case.approved)).await.unwrap();
    assert!(matches!(&approved, AuthorizationResult::Approved { reference, .. } if !reference.is_empty()));
    let declined = case.gateway.authorize(&request(case.declined)).await.unwrap();
    let AuthorizationResult::Declined { reason } = declined else { panic!("{declined:?}") };
    assert!(!reason.is_empty() && reason.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{reason}");
}

pub async fn what_was_answered_is_found<G: Gateway>(case: GatewayCase<G>) {
    for number in [case.approved, case.declined] {
        let request = request(number);
        let id = request.reference;
        assert_eq!(case.gateway.find(id).await.unwrap(), None, "nobody asked yet");
        let answer = case.gateway.authorize(&request).await.unwrap();
        assert_eq!(case.gateway.find(id).await.unwrap(), case.keeps.then_some(answer));
    }
    let erring = request(case.erring);
    assert!(case.gateway.authorize(&erring).await.is_err());
    assert_eq!(case.gateway.find(erring.reference).await.unwrap(), None, "an error decides nothing");
}

pub async fn a_voided_transaction_is_not_charged_whenever_it_is_asked_for<G: Gateway>(case: GatewayCase<G>) {
    let voided = AuthorizationResult::Declined { reason: VOIDED.to_owned() };
    for asked_before in [true, false] {
        let request = request(case.approved);
        let id = request.reference;
        if asked_before {
            assert!(matches!(case.gateway.authorize(&request).await, Ok(AuthorizationResult::Approved { .. })));
        }
        for _again in 0..2 {
            case.gateway.void(id).await.unwrap();
        }
        if case.keeps {
            assert_eq!(case.gateway.find(id).await.unwrap().as_ref(), Some(&voided), "asked before: {asked_before}");
            assert_eq!(case.gateway.authorize(&request).await.unwrap(), voided, "asked before: {asked_before}");
        }
    }
    let declined = request(case.declined);
    let answer = case.gateway.authorize(&declined).await.unwrap();
    case.gateway.void(declined.reference).await.unwrap();
    assert_eq!(case.gateway.authorize(&declined).await.unwrap(), answer, "a decline charged nothing and stays");
}

pub async fn no_answer_shows_card_data<G: Gateway>(case: GatewayCase<G>) {
    for number in [case.approved, case.declined, case.erring] {
        let request = request(number);
        let shown = match case.gateway.authorize(&request).await {
            Ok(answer) => format!("{answer:?}"),
            Err(error) => format!("{error} {error:?}"),
        };
        // The id of the transaction may be in a reference, and has digits of its own.
        let shown = shown.replace(&request.reference.to_string(), "");
        let card = request.card.clone().unwrap();
        assert!(!card.number.appears_in(&shown), "{shown}");
        assert!(!shown.contains(card.holder_name.as_str()), "{shown}");
        assert!(!shown.contains(card.verification_code.expose()), "{shown}");
        assert!(!format!("{request:?}").contains(number), "nor does the request");
    }
    assert!(case.gateway.authorize(&request(case.erring)).await.is_err());
}

pub async fn deposits_withdrawals_and_methods_without_a_card_are_taken<G: Gateway>(case: GatewayCase<G>) {
    for kind in TransactionKind::ALL {
        for method in PaymentMethod::ALL.into_iter().filter(|method| !method.is_card()) {
            let request = cardless_request(kind, method);
            let answer = case.gateway.authorize(&request).await.unwrap();
            match &answer {
                AuthorizationResult::Approved { amount, .. } => {
                    assert!(amount.is_none_or(|amount| amount == request.amount), "{kind} {method}: {answer:?}");
                }
                AuthorizationResult::Pending { .. } => assert_ne!(kind, TransactionKind::Payment, "{method}"),
                AuthorizationResult::Declined { .. } => panic!("{kind} {method}: {answer:?}"),
            }
            case.gateway.void(request.reference).await.unwrap();
        }
    }
}

pub async fn a_refund_is_answered_again_as_it_was<G: Gateway>(case: GatewayCase<G>) {
    let charge = request(case.approved);
    case.gateway.authorize(&charge).await.unwrap();
    let refund = refund_request(charge.reference);
    let answer = case.gateway.refund(&refund).await.unwrap();
    assert!(matches!(answer, AuthorizationResult::Approved { .. }), "{answer:?}");
    assert_eq!(case.gateway.refund(&refund).await.unwrap(), answer);
    assert_eq!(case.gateway.find(refund.reference).await.unwrap(), case.keeps.then_some(answer));
}

#[expect(clippy::unused_async, reason = "every test of a contract is async")]
pub async fn who_signs_callbacks_refuses_those_that_are_not_signed<G: Gateway>(case: GatewayCase<G>) {
    let unsigned = CallbackSignature { path: "/callback/1", timestamp: None, signature: None, body: b"{}" };
    let forged = CallbackSignature { timestamp: Some("1769860800"), signature: Some("v1=00"), ..unsigned };
    assert_eq!(case.gateway.verify_callback(&unsigned).is_err(), case.signs);
    assert_eq!(case.gateway.verify_callback(&forged).is_err(), case.signs);
    if case.signs {
        assert_eq!(case.gateway.verify_callback(&unsigned), Err(ForgedCallback::Signature));
    }
}
