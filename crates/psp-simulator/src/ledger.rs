//! What was decided and charged, by reference.

use std::collections::{BTreeMap, HashMap};

use psp_domain::ports::VOIDED;
use psp_domain::{Installments, Money, PaymentMethod, TransactionId};
use psp_gateways::Behaviour as CardBehaviour;
use serde::{Deserialize, Serialize};

/// What is asked for beside the card; under one reference it is always the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) amount: Money,
    pub(crate) method: PaymentMethod,
    pub(crate) installments: Installments,
}

/// A decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    Approved,
    Declined(&'static str),
}

/// What became of a request to authorize.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    Decided(Decision),
    /// Not taken: the card asks for an error.
    Refused,
    /// The reference was used for something else.
    Conflict,
    /// No room to remember it.
    Full,
}

#[derive(Debug, Default)]
struct Entry {
    /// `None` until it was asked for.
    terms: Option<Terms>,
    decision: Option<Decision>,
    requests: u32,
    charges: u32,
    voided: bool,
}

pub(crate) struct Ledger {
    entries: HashMap<TransactionId, Entry>,
    max: usize,
}

/// What was charged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// How often a card was charged, also where that was voided later.
    pub charges: u64,
    /// How many of those charges were voided.
    pub voided: u64,
    /// What is charged and not voided, in minor units, by ISO 4217 code.
    pub sums: BTreeMap<String, i64>,
    /// Each reference that was asked for or voided.
    pub references: BTreeMap<TransactionId, ReferenceTotals>,
}

/// What became of one reference.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReferenceTotals {
    /// How often it was asked to be authorized.
    pub requests: u32,
    /// How often it was charged: 0 or 1.
    pub charges: u32,
    /// Whether it was voided.
    pub voided: bool,
}

impl Ledger {
    pub(crate) fn new(max: usize) -> Self {
        Self { entries: HashMap::new(), max }
    }

    fn entry(&mut self, id: TransactionId) -> Option<&mut Entry> {
        let has_room = self.entries.len() < self.max || self.entries.contains_key(&id);
        has_room.then(|| self.entries.entry(id).or_default())
    }

    pub(crate) fn authorize(&mut self, id: TransactionId, terms: Terms, card: CardBehaviour) -> Taken {
        let Some(entry) = self.entry(id) else { return Taken::Full };
        if *entry.terms.get_or_insert(terms) != terms {
            return Taken::Conflict;
        }
        entry.requests += 1;
        if let Some(decision) = entry.decision {
            return Taken::Decided(decision);
        }
        let decision = match card {
            CardBehaviour::FailAlways => return Taken::Refused,
            CardBehaviour::FailOnce if entry.requests == 1 => return Taken::Refused,
            CardBehaviour::Decline(reason) => Decision::Declined(reason),
            CardBehaviour::Approve | CardBehaviour::ApproveSlowly | CardBehaviour::FailOnce => Decision::Approved,
        };
        entry.charges += u32::from(decision == Decision::Approved);
        entry.decision = Some(decision);
        Taken::Decided(decision)
    }

    pub(crate) fn find(&self, id: TransactionId) -> Option<Decision> {
        self.entries.get(&id)?.decision
    }

    /// `false` where there is no room to remember it.
    pub(crate) fn void(&mut self, id: TransactionId) -> bool {
        let Some(entry) = self.entry(id) else { return false };
        entry.voided = true;
        if !matches!(entry.decision, Some(Decision::Declined(_))) {
            entry.decision = Some(Decision::Declined(VOIDED));
        }
        true
    }

    pub(crate) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for (id, entry) in &self.entries {
            let Entry { requests, charges, voided, .. } = *entry;
            totals.charges += u64::from(charges);
            totals.voided += if voided { u64::from(charges) } else { 0 };
            if let (Some(terms), false) = (entry.terms, voided || charges == 0) {
                // At most 10^5 charges of 10^12 each.
                *totals.sums.entry(terms.amount.currency().code().to_owned()).or_default() +=
                    terms.amount.minor() * i64::from(charges);
            }
            totals.references.insert(*id, ReferenceTotals { requests, charges, voided });
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use psp_domain::Currency;
    use psp_domain::ports::{IdGenerator, UuidV7Generator};

    use super::*;

    const APPROVED: Taken = Taken::Decided(Decision::Approved);

    fn terms(minor: i64) -> Terms {
        let amount = Money::new(minor, Currency::BRL);
        Terms { amount, method: PaymentMethod::CreditCard, installments: Installments::ONE }
    }

    fn id() -> TransactionId {
        TransactionId(UuidV7Generator.next_id())
    }

    #[test]
    fn a_reference_is_charged_once_and_for_one_amount() {
        let (mut ledger, id) = (Ledger::new(10), id());
        for _ in 0..3 {
            assert_eq!(ledger.authorize(id, terms(2500), CardBehaviour::Approve), APPROVED);
        }
        assert_eq!(ledger.authorize(id, terms(2501), CardBehaviour::Approve), Taken::Conflict);
        let totals = ledger.totals();
        assert_eq!((totals.charges, totals.sums["BRL"]), (1, 2500));
        assert_eq!(totals.references[&id], ReferenceTotals { requests: 3, charges: 1, voided: false });
    }

    #[test]
    fn a_void_takes_a_charge_back_and_forestalls_a_later_one() {
        let mut ledger = Ledger::new(10);
        let (charged, early) = (id(), id());
        assert_eq!(ledger.authorize(charged, terms(2500), CardBehaviour::Approve), APPROVED);
        for id in [charged, early] {
            assert!(ledger.void(id) && ledger.void(id));
            let voided = Decision::Declined(VOIDED);
            assert_eq!(ledger.find(id), Some(voided));
            assert_eq!(ledger.authorize(id, terms(2500), CardBehaviour::Approve), Taken::Decided(voided));
        }
        let totals = ledger.totals();
        assert_eq!((totals.charges, totals.voided, totals.sums.len()), (1, 1, 0));
    }

    #[test]
    fn what_it_cannot_remember_it_does_not_take() {
        let mut ledger = Ledger::new(1);
        let known = id();
        assert_eq!(ledger.authorize(known, terms(1), CardBehaviour::Approve), APPROVED);
        assert_eq!(ledger.authorize(id(), terms(1), CardBehaviour::Approve), Taken::Full);
        assert!(!ledger.void(id()));
        assert_eq!(ledger.authorize(known, terms(1), CardBehaviour::Approve), APPROVED);
    }
}
