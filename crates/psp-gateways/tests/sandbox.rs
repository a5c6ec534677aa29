//! What the sandbox answers to each of its cards, and to what has no card.

use std::time::Duration;

use psp_domain::ports::{AuthorizationRequest, AuthorizationResult, Gateway, GatewayError, RefundRequest};
use psp_domain::{Currency, Money, PaymentMethod, TransactionKind};
use psp_gateways::{Behaviour, SandboxGateway, TEST_CARDS, TestCard};
use psp_testkit::contract::gateway::{cardless_request, request};
use psp_testkit::fixtures;
use tokio::time::Instant;

const SLOW: Duration = Duration::from_secs(20);

async fn ask(request: &AuthorizationRequest) -> Result<AuthorizationResult, GatewayError> {
    SandboxGateway::new(SLOW).authorize(request).await
}

fn is_approved(answer: &Result<AuthorizationResult, GatewayError>) -> bool {
    matches!(answer, Ok(AuthorizationResult::Approved { .. }))
}

#[tokio::test(start_paused = true)]
async fn every_card_is_answered_as_documented_and_so_is_its_amount_without_a_card() {
    let sandbox = SandboxGateway::new(SLOW);
    let without = |card: TestCard| AuthorizationRequest {
        amount: Money::new(card.amount_minor(), Currency::BRL),
        ..cardless_request(TransactionKind::Payment, PaymentMethod::Wallet)
    };
    for (card, has_card) in TEST_CARDS.into_iter().flat_map(|card| [(card, true), (card, false)]) {
        let first = request(card.number);
        for attempt in 1..=5 {
            // Every attempt of a transaction has a reference of its own.
            let again = if has_card { request(card.number) } else { without(card) };
            let request = AuthorizationRequest { transaction_id: first.transaction_id, ..again };
            let started = Instant::now();
            let answer = sandbox.authorize(&request).await;
            let took = started.elapsed();
            let declined = |reason: &str| Ok(AuthorizationResult::Declined { reason: reason.to_owned() });
            match card.behaviour {
                Behaviour::Approve | Behaviour::ApproveSlowly => assert!(is_approved(&answer), "{answer:?}"),
                Behaviour::Decline(reason) => assert_eq!(answer, declined(reason)),
                Behaviour::FailOnce => assert_eq!(is_approved(&answer), attempt > 1, "{answer:?}"),
                Behaviour::FailAlways => assert!(matches!(answer, Err(GatewayError::Unavailable(_))), "{answer:?}"),
            }
            let expected = if card.behaviour == Behaviour::ApproveSlowly { SLOW } else { Duration::ZERO };
            assert_eq!(took.as_secs(), expected.as_secs(), "{card:?}");
        }
    }
}

#[tokio::test]
async fn every_other_card_is_approved_whatever_its_expiry() {
    for length in 12..=19 {
        for expiry in ["10/25", "01/2000", "12/2099"] {
            let mut request = request(&fixtures::card_number_of_length(length));
            let card = request.card.as_mut().unwrap();
            card.expiry = expiry.parse().unwrap();
            assert!(is_approved(&ask(&request).await), "{length} digits, {expiry}");
        }
    }
}

#[tokio::test]
async fn the_reference_follows_from_the_attempts() {
    let (one, other) = (request("4111111111111111"), request("4111111111111111"));
    assert_eq!(ask(&one).await, ask(&one).await);
    assert_ne!(ask(&one).await, ask(&other).await);
}

#[tokio::test]
async fn payments_without_a_card_are_approved_and_a_callback_ends_deposits_and_withdrawals() {
    for method in [PaymentMethod::Upi, PaymentMethod::Pix, PaymentMethod::BankTransfer] {
        assert!(is_approved(&ask(&cardless_request(TransactionKind::Payment, method)).await));
        for kind in [TransactionKind::Deposit, TransactionKind::Withdrawal] {
            let answer = ask(&cardless_request(kind, method)).await;
            assert_eq!(answer, Ok(AuthorizationResult::Pending { reference: None }), "{kind}");
        }
    }
}

#[test]
fn it_is_named_sandbox_or_as_it_is_told() {
    assert_eq!(SandboxGateway::new(SLOW).name().as_str(), "sandbox");
    assert_eq!(SandboxGateway::named("second".parse().unwrap(), SLOW).name().as_str(), "second");
}

#[tokio::test]
async fn a_refund_is_answered_as_its_amount_asks() {
    let sandbox = SandboxGateway::new(SLOW);
    for (minor, expected) in [(400_002, Some(false)), (400_341, None), (400_119, Some(true)), (2500, Some(true))] {
        let reference = request("4111111111111111").reference;
        let amount = Money::new(minor, Currency::BRL);
        let answer = sandbox.refund(&RefundRequest { reference, of: reference, amount }).await;
        assert_eq!(answer.as_ref().ok().map(|_| is_approved(&answer)), expected, "{answer:?}");
    }
}
