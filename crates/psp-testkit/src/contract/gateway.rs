//! What every gateway does.

#![expect(missing_docs, reason = "the names of tests are sentences, and their factories async")]

use std::sync::Arc;

use psp_domain::ports::{AuthorizationRequest, AuthorizationResult, Gateway, IdGenerator, UuidV7Generator, VOIDED};
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
