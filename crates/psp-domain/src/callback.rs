//! Callbacks: what a gateway tells later, stored before it is believed.

use chrono::{DateTime, Utc};

use crate::{CallbackId, GatewayName, Money, TransactionId};

/// What a gateway told of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Callback {
    /// Its id.
    pub id: CallbackId,
    /// Of which transaction.
    pub transaction_id: TransactionId,
    /// Who told.
    pub gateway: GatewayName,
    /// The gateway's own reference of the transaction.
    pub gateway_reference: String,
    /// The gateway's word for it; see [`CallbackStatus`].
    pub status: String,
    /// How much, where the gateway says so.
    pub amount: Option<Money>,
    /// When it came.
    pub received_at: DateTime<Utc>,
    /// What became of it; `None` until it was looked at.
    pub outcome: Option<CallbackOutcome>,
}

/// What a status of a callback means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallbackStatus {
    /// `completed`: the money moved.
    Completed,
    /// `failed`: it did not, and will not.
    Failed,
    /// `rejected`: somebody said no.
    Rejected,
    /// Any other: not the end.
    Other,
}

impl CallbackStatus {
    /// The meaning of a gateway's word.
    pub fn of(status: &str) -> Self {
        match status {
            "completed" => Self::Completed,
            "failed" => Self::Failed,
            "rejected" => Self::Rejected,
            _ => Self::Other,
        }
    }
}

/// What became of a callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallbackOutcome {
    /// The transaction ended by it, or had ended so before.
    Applied,
    /// Its status is not the end, or the charge it is of cannot be told: kept, and nothing changed.
    Noted,
    /// The transaction had ended otherwise, or the attempt is being taken back: nothing changed.
    TooLate,
    /// It names another amount than was asked for: nothing changed, and somebody must look.
    WrongAmount,
    /// It is not from the gateway, or not of the charge, that the transaction is with: nothing changed.
    Foreign,
}

impl CallbackOutcome {
    /// Every outcome.
    pub const ALL: [Self; 5] = [Self::Applied, Self::Noted, Self::TooLate, Self::WrongAmount, Self::Foreign];

    /// The name in metrics and the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Noted => "noted",
            Self::TooLate => "too_late",
            Self::WrongAmount => "wrong_amount",
            Self::Foreign => "foreign",
        }
    }

    /// The outcome of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == name)
    }
}

impl Callback {
    /// The longest reference of a gateway, in bytes of visible ASCII.
    pub const MAX_REFERENCE_LEN: usize = 100;
    /// The most callbacks of one transaction.
    pub const MAX_PER_TRANSACTION: u32 = 100;
    /// The longest status, in bytes of `a` to `z`, digits, `_` and `-`.
    pub const MAX_STATUS_LEN: usize = 64;

    /// Whether a text can be a gateway's reference.
    pub fn is_reference(text: &str) -> bool {
        (1..=Self::MAX_REFERENCE_LEN).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
    }

    /// Whether a text can be a status.
    pub fn is_status(text: &str) -> bool {
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
        (1..=Self::MAX_STATUS_LEN).contains(&text.len()) && text.bytes().all(fits)
    }
}
