//! The sandbox: deterministic, in memory, steered by the card's number.
//!
//! | number | answer |
//! | --- | --- |
//! | 4111111111111111, and every other | approved |
//! | 4000000000009995 | declined: `insufficient_funds` |
//! | 4000000000000002 | declined: `do_not_honor` |
//! | 4000000000000069 | declined: `expired_card` |
//! | 4000000000000127 | declined: `incorrect_verification_code` |
//! | 4000000000000119 | gateway error at the first attempt, approved at the second |
//! | 4000000000000341 | gateway error at every attempt: the transaction fails |
//! | 4000000000003220 | approved, slowly |
//!
//! An expiry in the past is not judged: use the card that says so. Methods without a card, and refunds, are decided by the amount:
//! 400,000 minor units and the number that a card's last five digits are have that card's answer, such as 400,002. Deposits and
//! withdrawals are pending, and a callback ends them, which needs no signature.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use psp_domain::ports::{
    AuthorizationRequest, AuthorizationResult, CallbackSignature, ForgedCallback, Gateway, GatewayError, RefundRequest,
};
use psp_domain::{AttemptReference, GatewayName, TransactionId, TransactionKind};

/// The most transactions of which is known that they failed once; when there are more, all are forgotten, and fail again.
const MAX_FAILED: usize = 10_000;

/// What the sandbox does with a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Approves at once.
    Approve,
    /// Declines for this reason.
    Decline(&'static str),
    /// Fails at the first attempt, approves at later ones.
    FailOnce,
    /// Fails at every attempt.
    FailAlways,
    /// Approves after the sandbox's slow answer time.
    ApproveSlowly,
}

/// A card number of the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TestCard {
    /// The number. Every other number is approved.
    pub number: &'static str,
    /// What happens.
    pub behaviour: Behaviour,
}

/// The amounts that mean something begin there, in minor units.
const FIRST_AMOUNT: i64 = 400_000;

/// Every number that means something.
pub const TEST_CARDS: [TestCard; 8] = [
    TestCard { number: "4111111111111111", behaviour: Behaviour::Approve },
    TestCard { number: "4000000000009995", behaviour: Behaviour::Decline("insufficient_funds") },
    TestCard { number: "4000000000000002", behaviour: Behaviour::Decline("do_not_honor") },
    TestCard { number: "4000000000000069", behaviour: Behaviour::Decline("expired_card") },
    TestCard { number: "4000000000000127", behaviour: Behaviour::Decline("incorrect_verification_code") },
    TestCard { number: "4000000000000119", behaviour: Behaviour::FailOnce },
    TestCard { number: "4000000000000341", behaviour: Behaviour::FailAlways },
    TestCard { number: "4000000000003220", behaviour: Behaviour::ApproveSlowly },
];

/// A gateway that decides by the card's number and keeps no decision: asking again gives the same answer. It charges nobody,
/// so there is nothing to find and nothing to void.
#[derive(Debug)]
pub struct SandboxGateway {
    name: GatewayName,
    slow_answer: Duration,
    /// Whose first attempt failed because their card asks for it.
    failed: Mutex<HashSet<TransactionId>>,
}

impl Behaviour {
    /// What happens to a card of that number.
    pub fn of(number: &str) -> Self {
        TEST_CARDS.iter().find(|card| card.number == number).map_or(Self::Approve, |card| card.behaviour)
    }

    /// What happens to an amount, in minor units, where there is no card to decide by.
    pub fn of_amount(minor: i64) -> Self {
        TEST_CARDS.iter().find(|card| card.amount_minor() == minor).map_or(Self::Approve, |card| card.behaviour)
    }
}

impl TestCard {
    /// The amount, in minor units, that has this card's answer where there is no card.
    pub fn amount_minor(&self) -> i64 {
        self.number.chars().skip(11).filter_map(|c| c.to_digit(10)).fold(0, |sum, digit| 10 * sum + i64::from(digit))
            + FIRST_AMOUNT
    }
}

impl SandboxGateway {
    /// The sandbox named `sandbox`, which takes this long for its slow card.
    pub fn new(slow_answer: Duration) -> Self {
        Self::named("sandbox".parse().expect("a name"), slow_answer)
    }

    /// A sandbox of another name.
    pub fn named(name: GatewayName, slow_answer: Duration) -> Self {
        Self { name, slow_answer, failed: Mutex::default() }
    }

    /// Whether this transaction fails for the first time.
    fn fails_first(&self, id: TransactionId) -> bool {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.len() >= MAX_FAILED {
            failed.clear();
        }
        failed.insert(id)
    }
}

fn approved(reference: AttemptReference) -> AuthorizationResult {
    AuthorizationResult::Approved { reference: format!("sandbox-{reference}"), amount: None }
}

#[async_trait]
impl Gateway for SandboxGateway {
    fn name(&self) -> &GatewayName {
        &self.name
    }

    async fn authorize(&self, request: &AuthorizationRequest) -> Result<AuthorizationResult, GatewayError> {
        if request.kind != TransactionKind::Payment {
            return Ok(AuthorizationResult::Pending { reference: None });
        }
        let approved = approved(request.reference);
        let failure = || Err(GatewayError::Unavailable("the sandbox was asked to fail".into()));
        let behaviour = match &request.card {
            Some(card) => Behaviour::of(card.number.expose()),
            None => Behaviour::of_amount(request.amount.minor()),
        };
        match behaviour {
            Behaviour::Decline(reason) => Ok(AuthorizationResult::Declined { reason: reason.to_owned() }),
            Behaviour::FailOnce if self.fails_first(request.transaction_id) => failure(),
            Behaviour::Approve | Behaviour::FailOnce => Ok(approved),
            Behaviour::FailAlways => failure(),
            Behaviour::ApproveSlowly => {
                tokio::time::sleep(self.slow_answer).await;
                Ok(approved)
            }
        }
    }

    async fn find(&self, _: AttemptReference) -> Result<Option<AuthorizationResult>, GatewayError> {
        Ok(None)
    }

    async fn void(&self, _: AttemptReference) -> Result<(), GatewayError> {
        Ok(())
    }

    async fn refund(&self, request: &RefundRequest) -> Result<AuthorizationResult, GatewayError> {
        match Behaviour::of_amount(request.amount.minor()) {
            Behaviour::Decline(reason) => Ok(AuthorizationResult::Declined { reason: reason.to_owned() }),
            Behaviour::FailAlways => Err(GatewayError::Unavailable("the sandbox was asked to fail".into())),
            _ => Ok(approved(request.reference)),
        }
    }

    fn verify_callback(&self, _: &CallbackSignature<'_>) -> Result<(), ForgedCallback> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_test_card_is_a_valid_number_and_documented() {
        for text in [include_str!("../../../docs/test-cards.md"), include_str!("sandbox.rs")] {
            let lines = text.lines().map(|line| line.trim_start_matches("//! "));
            let rows: Vec<_> = lines.filter_map(|line| line.strip_prefix("| ")?.split_at_checked(16)).collect();
            let rows: Vec<_> = rows.into_iter().filter(|(number, _)| number.parse::<u64>().is_ok()).collect();
            assert_eq!(rows.len(), TEST_CARDS.len());
            for (card, (number, answer)) in TEST_CARDS.iter().zip(rows) {
                assert_eq!(card.number, number);
                assert!(number.parse::<psp_domain::CardNumber>().is_ok(), "{number}");
                let words = match card.behaviour {
                    Behaviour::Approve => "| approved |",
                    Behaviour::Decline(reason) => &format!("| declined: `{reason}` |"),
                    Behaviour::FailOnce => "| gateway error at the first attempt, approved at the second |",
                    Behaviour::FailAlways => "| gateway error at every attempt",
                    Behaviour::ApproveSlowly => "| approved, ",
                };
                assert!(answer.contains(words), "{number}: {answer}");
                let amount = card.amount_minor();
                assert_eq!(
                    (amount, Behaviour::of_amount(amount)),
                    (400_000 + number[11..].parse::<i64>().unwrap(), card.behaviour)
                );
            }
        }
    }
}
