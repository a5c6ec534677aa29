//! What was decided and moved, by reference.

use std::collections::{HashMap, HashSet};

use psp_domain::{AttemptReference, Installments, Money, PaymentMethod, TransactionId};
use psp_gateways::Behaviour as CardBehaviour;

use crate::totals::{ReferenceTotals, Totals};

/// Which way the money goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Movement {
    /// From the payer.
    Charge,
    /// To the payee.
    Payout,
    /// Back to the payer of that charge.
    Refund(AttemptReference),
}

/// What is asked for beside the card; under one reference it is always the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) movement: Movement,
    /// Refunds name none.
    pub(crate) transaction_id: Option<TransactionId>,
    pub(crate) amount: Money,
    pub(crate) method: Option<PaymentMethod>,
    pub(crate) installments: Installments,
}

/// A decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    Approved,
    Declined(&'static str),
    /// Taken, and decided later.
    Pending,
    Voided,
}

/// What became of a request to move money.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// With whether this is the first to hear it.
    Decided(Decision, bool),
    /// Not taken: the card asks for an error.
    Refused,
    /// The reference was used for something else.
    Conflict,
    /// No room to remember it.
    Full,
}

/// What is told of a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) decision: Decision,
    /// `None` of what was voided before it was asked for.
    pub(crate) terms: Option<Terms>,
}

#[derive(Debug, Default)]
struct Entry {
    /// `None` until it was asked for.
    terms: Option<Terms>,
    decision: Option<Decision>,
    /// What a pending one becomes.
    coming: Option<Decision>,
    requests: u32,
    /// How often money moved.
    moves: u32,
    /// What was given back of a charge, in minor units.
    refunded: i64,
    voided: bool,
}

pub(crate) struct Ledger {
    entries: HashMap<AttemptReference, Entry>,
    /// Whose card has failed once: no more than there are entries.
    failed: HashSet<TransactionId>,
    max: usize,
}

impl Ledger {
    pub(crate) fn new(max: usize) -> Self {
        Self { entries: HashMap::new(), failed: HashSet::new(), max }
    }

    fn entry(&mut self, reference: AttemptReference) -> Option<&mut Entry> {
        let has_room = self.entries.len() < self.max || self.entries.contains_key(&reference);
        has_room.then(|| self.entries.entry(reference).or_default())
    }

    /// Decides a charge or a payout. What is decided later is pending until [`Self::complete`].
    pub(crate) fn authorize(
        &mut self,
        reference: AttemptReference,
        terms: Terms,
        card: CardBehaviour,
        is_later: bool,
    ) -> Taken {
        if let Some(known) = self.repeated(reference, terms) {
            return known;
        }
        let decision = match card {
            CardBehaviour::FailAlways => return Taken::Refused,
            // A gateway is asked again under another reference.
            CardBehaviour::FailOnce if terms.transaction_id.is_some_and(|id| self.failed.insert(id)) => {
                return Taken::Refused;
            }
            CardBehaviour::Decline(reason) => Decision::Declined(reason),
            CardBehaviour::Approve | CardBehaviour::ApproveSlowly | CardBehaviour::FailOnce => Decision::Approved,
        };
        self.decide(reference, decision, is_later)
    }

    /// Decides a refund: approved as long as the charge stands and has that much left, and its amount does not ask for another
    /// answer.
    pub(crate) fn refund(&mut self, reference: AttemptReference, of: AttemptReference, terms: Terms) -> Taken {
        if let Some(known) = self.repeated(reference, terms) {
            return known;
        }
        match CardBehaviour::of_amount(terms.amount.minor()) {
            CardBehaviour::Decline(reason) => return self.decide(reference, Decision::Declined(reason), false),
            CardBehaviour::FailAlways => return Taken::Refused,
            _ => {}
        }
        let decision = match self.entries.get_mut(&of) {
            Some(Entry { decision: Some(Decision::Approved), terms: Some(charge), refunded, .. })
                if charge.movement == Movement::Charge && charge.amount.currency() == terms.amount.currency() =>
            {
                if charge.amount.minor() - *refunded >= terms.amount.minor() {
                    *refunded += terms.amount.minor();
                    Decision::Approved
                } else {
                    Decision::Declined("exceeds_charge")
                }
            }
            _ => Decision::Declined("not_charged"),
        };
        self.decide(reference, decision, false)
    }

    /// Notes a request; what became of it where it is not one to decide.
    fn repeated(&mut self, reference: AttemptReference, terms: Terms) -> Option<Taken> {
        let Some(entry) = self.entry(reference) else { return Some(Taken::Full) };
        if *entry.terms.get_or_insert(terms) != terms {
            return Some(Taken::Conflict);
        }
        entry.requests += 1;
        entry.decision.map(|decision| Taken::Decided(decision, false))
    }

    fn decide(&mut self, reference: AttemptReference, decision: Decision, is_later: bool) -> Taken {
        let Some(entry) = self.entry(reference) else { return Taken::Full };
        if is_later {
            (entry.decision, entry.coming) = (Some(Decision::Pending), Some(decision));
            return Taken::Decided(Decision::Pending, true);
        }
        entry.moves += u32::from(decision == Decision::Approved);
        entry.decision = Some(decision);
        Taken::Decided(decision, true)
    }

    /// Decides what was pending; how it is decided.
    pub(crate) fn complete(&mut self, reference: AttemptReference) -> Option<Known> {
        let entry = self.entries.get_mut(&reference)?;
        if let (Some(Decision::Pending), Some(coming)) = (entry.decision, entry.coming.take()) {
            entry.moves += u32::from(coming == Decision::Approved);
            entry.decision = Some(coming);
        }
        self.find(reference)
    }

    pub(crate) fn find(&self, reference: AttemptReference) -> Option<Known> {
        let entry = self.entries.get(&reference)?;
        Some(Known { decision: entry.decision?, terms: entry.terms })
    }

    /// `false` where there is no room to remember it.
    pub(crate) fn void(&mut self, reference: AttemptReference) -> bool {
        let Some(entry) = self.entry(reference) else { return false };
        let was_standing = entry.decision == Some(Decision::Approved) && !entry.voided;
        entry.voided = true;
        if !matches!(entry.decision, Some(Decision::Declined(_))) {
            entry.decision = Some(Decision::Voided);
        }
        if let Some(Terms { movement: Movement::Refund(of), amount, .. }) = entry.terms
            && was_standing
            && let Some(charge) = self.entries.get_mut(&of)
        {
            charge.refunded -= amount.minor();
        }
        true
    }

    pub(crate) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for (reference, entry) in &self.entries {
            let Entry { requests, moves, voided, .. } = *entry;
            totals.references.insert(*reference, ReferenceTotals { requests, charges: moves, voided });
            if let Some(terms) = entry.terms
                && moves > 0
            {
                self.add(&mut totals, terms, entry);
            }
        }
        totals
    }

    fn add(&self, totals: &mut Totals, terms: Terms, entry: &Entry) {
        let (count, code) = (u64::from(entry.moves), terms.amount.currency().code());
        // At most 10^5 movements of 10^12 each.
        let minor = terms.amount.minor() * i64::from(entry.moves);
        let sums = match terms.movement {
            Movement::Charge => {
                totals.charges += count;
                &mut totals.sums
            }
            Movement::Payout => {
                totals.payouts += count;
                &mut totals.paid_out
            }
            Movement::Refund(_) => &mut totals.refunded,
        };
        let is_of_voided_charge = match terms.movement {
            Movement::Refund(of) => self.entries.get(&of).is_none_or(|charge| charge.voided),
            Movement::Charge | Movement::Payout => {
                totals.voided += if entry.voided { count } else { 0 };
                false
            }
        };
        if entry.voided || is_of_voided_charge {
            return;
        }
        *sums.entry(code.to_owned()).or_default() += minor;
        if let Some(id) = terms.transaction_id {
            let of = totals.transactions.entry(id).or_default();
            code.clone_into(&mut of.currency);
            of.charges += entry.moves;
            of.charged += minor;
            of.refunded += entry.refunded;
        }
    }
}

#[cfg(test)]
mod tests;
