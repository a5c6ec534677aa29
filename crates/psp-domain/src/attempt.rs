//! Attempts: what a gateway is asked, written before it is asked.
//!
//! ```text
//! open ── did not take it ──▶ not_taken        pending ── callback or question ──▶ approved | declined
//!   │ answered later ──▶ pending                  │ given up ──▶ voiding ── confirmed ──▶ voided
//!   │ yes ──▶ approved
//!   │ no ──▶ declined
//!   │ no answer, cancelled ──▶ voiding ── confirmed ──▶ voided
//! ```
//!
//! A transaction has at most one attempt that is unresolved (`open`, `pending`, `voiding`), and it is its latest. Every
//! write of an attempt moves the version of its transaction on, so two workers never both act on what they read.

use chrono::{DateTime, Utc};

use crate::{AttemptReference, GatewayName, TransactionId};

/// How far an attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AttemptState {
    /// The gateway is being asked, or was when its worker was killed: it may have charged.
    Open,
    /// The gateway has taken it and will answer by a callback.
    Pending,
    /// It is to be taken back: whatever the gateway answers, it does not count.
    Voiding,
    /// The gateway did not take it, and charged nothing.
    NotTaken,
    /// The gateway took it back, and charges nothing.
    Voided,
    /// The gateway said yes.
    Approved,
    /// The gateway said no.
    Declined,
}

impl AttemptState {
    /// Every state.
    pub const ALL: [Self; 7] =
        [Self::Open, Self::Pending, Self::Voiding, Self::NotTaken, Self::Voided, Self::Approved, Self::Declined];

    /// The name in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Pending => "pending",
            Self::Voiding => "voiding",
            Self::NotTaken => "not_taken",
            Self::Voided => "voided",
            Self::Approved => "approved",
            Self::Declined => "declined",
        }
    }

    /// The state of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// Whether the gateway may have charged, or still may.
    pub const fn is_unresolved(self) -> bool {
        matches!(self, Self::Open | Self::Pending | Self::Voiding)
    }
}

/// One attempt to have a transaction authorized by one gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Of which transaction.
    pub transaction_id: TransactionId,
    /// The how-manieth: from 1.
    pub number: u16,
    /// Which gateway is asked.
    pub gateway: GatewayName,
    /// Under which reference.
    pub reference: AttemptReference,
    /// How far it is.
    pub state: AttemptState,
    /// The gateway's own reference, once it gave one.
    pub gateway_reference: Option<String>,
    /// Why it was declined, not taken or taken back.
    pub reason: Option<String>,
    /// While it is unresolved: when the gateway is asked again at the latest.
    pub check_at: Option<DateTime<Utc>>,
    /// When it was opened.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

impl Attempt {
    /// The most attempts of one transaction.
    pub const MAX_PER_TRANSACTION: u16 = 100;

    /// The attempt in that state, with a reason where there is one. Resolved ones are not checked again.
    #[must_use]
    pub fn into_state(mut self, state: AttemptState, reason: Option<&str>, now: DateTime<Utc>) -> Self {
        self.state = state;
        if let Some(reason) = reason {
            self.reason = Some(reason.to_owned());
        }
        if !state.is_unresolved() {
            self.check_at = None;
        }
        self.updated_at = now;
        self
    }
}
