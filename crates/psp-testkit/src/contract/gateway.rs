//! What every gateway does.

#![expect(missing_docs, reason = "the names of tests are sentences, and their factories async")]

use psp_domain::ports::{AuthorizationRequest, AuthorizationResult, Gateway, IdGenerator, UuidV7Generator};
use psp_domain::{Currency, Installments, Money, PaymentMethod, TransactionId};

use crate::fixtures;

/// Runs the gateway contract over what an async function makes: a gateway, a card number that it approves, and one that it
/// declines.
#[macro_export]
macro_rules! gateway_contract {
    ($make:path) => {
        $crate::contract_tests! { $make, $crate::contract::gateway,
            the_same_transaction_asked_again_gets_the_same_answer
            a_decline_has_a_reason_and_no_card_data
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
}

fn request(number: &str, attempt: u32) -> AuthorizationRequest {
    AuthorizationRequest {
        transaction_id: TransactionId(UuidV7Generator.next_id()),
        amount: Money::new(2500, Currency::BRL),
        payment_method: PaymentMethod::CreditCard,
        installments: Installments::ONE,
        card: fixtures::card_numbered(number),
        attempt,
    }
}

pub async fn the_same_transaction_asked_again_gets_the_same_answer<G: Gateway>(case: GatewayCase<G>) {
    for number in [case.approved, case.declined] {
        let mut request = request(number, 1);
        let first = case.gateway.authorize(&request).await.unwrap();
        request.attempt = 2;
        assert_eq!(case.gateway.authorize(&request).await.unwrap(), first);
    }
    assert!(!case.gateway.name().is_empty());
}

pub async fn a_decline_has_a_reason_and_no_card_data<G: Gateway>(case: GatewayCase<G>) {
    let approved = case.gateway.authorize(&request(case.approved, 1)).await.unwrap();
    assert!(matches!(&approved, AuthorizationResult::Approved { reference } if !reference.is_empty()));
    let declined = case.gateway.authorize(&request(case.declined, 1)).await.unwrap();
    let AuthorizationResult::Declined { reason } = declined else { panic!("{declined:?}") };
    assert!(!reason.is_empty() && reason.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{reason}");
}
