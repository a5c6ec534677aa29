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
//! An expiry in the past is not judged: use the card that says so.

use std::time::Duration;

use async_trait::async_trait;
use psp_domain::TransactionId;
use psp_domain::ports::{AuthorizationRequest, AuthorizationResult, Gateway, GatewayError};

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

/// A gateway that decides by the card's number and keeps nothing: asking again gives the same answer. It charges nobody, so
/// there is nothing to find and nothing to void.
#[derive(Debug, Clone, Copy)]
pub struct SandboxGateway {
    slow_answer: Duration,
}

impl Behaviour {
    /// What happens to a card of that number.
    pub fn of(number: &str) -> Self {
        TEST_CARDS.iter().find(|card| card.number == number).map_or(Self::Approve, |card| card.behaviour)
    }
}

impl SandboxGateway {
    /// A sandbox that takes this long for its slow card.
    pub const fn new(slow_answer: Duration) -> Self {
        Self { slow_answer }
    }
}

#[async_trait]
impl Gateway for SandboxGateway {
    fn name(&self) -> &'static str {
        "sandbox"
    }

    async fn authorize(&self, request: &AuthorizationRequest) -> Result<AuthorizationResult, GatewayError> {
        let approved = || AuthorizationResult::Approved { reference: format!("sandbox-{}", request.transaction_id) };
        match Behaviour::of(request.card.number.expose()) {
            Behaviour::Approve => Ok(approved()),
            Behaviour::Decline(reason) => Ok(AuthorizationResult::Declined { reason: reason.to_owned() }),
            Behaviour::FailOnce if request.attempt > 1 => Ok(approved()),
            Behaviour::FailOnce | Behaviour::FailAlways => {
                Err(GatewayError::Unavailable("the sandbox was asked to fail".into()))
            }
            Behaviour::ApproveSlowly => {
                tokio::time::sleep(self.slow_answer).await;
                Ok(approved())
            }
        }
    }

    async fn find(&self, _: TransactionId) -> Result<Option<AuthorizationResult>, GatewayError> {
        Ok(None)
    }

    async fn void(&self, _: TransactionId) -> Result<(), GatewayError> {
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
            }
        }
    }
}
