//! Transactions as customers ask for them, and the rules across their fields.

use crate::{
    CardHolderName, CardNumber, CustomerId, Installments, Money, Named, OrderLink, PaymentMethod, Transaction,
    TransactionKind,
};

/// A transaction as a customer asks for it: every part already valid.
#[derive(Debug, Clone)]
pub struct NewTransaction {
    /// What for.
    pub kind: TransactionKind,
    /// Who asks.
    pub customer_id: CustomerId,
    /// Their words; at most [`Transaction::DESCRIPTION_MAX_CHARS`] characters.
    pub description: String,
    /// How much: positive, at most [`Money::MAX_MINOR`].
    pub amount: Money,
    /// How.
    pub payment_method: PaymentMethod,
    /// The card, for the methods that need one.
    pub card: Option<crate::Card>,
    /// In how many parts; more than one for credit cards only.
    pub installments: Installments,
    /// What else the customer names.
    pub named: Named,
    /// The order that is paid with it, where it was placed here.
    pub order: Option<OrderLink>,
}

/// The fields of a new transaction as far as they are known: what an entrypoint could read of a faulty request, so that the
/// rules across fields are told together with the faults of single ones.
#[derive(Clone, Copy, Default)]
pub struct KnownFields<'a> {
    /// How much.
    pub amount: Option<Money>,
    /// The customer's words.
    pub description: Option<&'a str>,
    /// How.
    pub payment_method: Option<PaymentMethod>,
    /// The card's number.
    pub card_number: Option<&'a CardNumber>,
    /// The name on the card.
    pub card_holder_name: Option<&'a CardHolderName>,
    /// In how many parts.
    pub installments: Option<Installments>,
}

/// A new transaction that breaks a rule across its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidTransaction {
    /// The amount is not positive or too large.
    #[error("amount must be from 1 to {}", Money::MAX_MINOR)]
    Amount,
    /// The description is too long, or holds U+0000, which not every store can keep.
    #[error("description must be at most {} characters, none of them U+0000", Transaction::DESCRIPTION_MAX_CHARS)]
    Description,
    /// Instalments are for credit cards.
    #[error("installments above 1 need payment_method credit_card")]
    InstallmentsNeedCredit,
    /// Each instalment must be at least one minor unit.
    #[error("amount must be at least one minor unit for each instalment")]
    InstallmentBelowOneUnit,
    /// A card where there must be none, or none where there must be one.
    #[error("a card is needed for credit_card and debit_card, and for no other payment_method")]
    Card,
    /// The card's number stands in a text that is stored in the clear.
    #[error("description and card_holder_name must not carry the card's number")]
    CardNumberInText,
}

impl NewTransaction {
    /// Every rule across the fields that is broken.
    pub fn faults(&self) -> Vec<InvalidTransaction> {
        let known = KnownFields {
            amount: Some(self.amount),
            description: Some(&self.description),
            payment_method: Some(self.payment_method),
            card_number: self.card.as_ref().map(|card| &card.number),
            card_holder_name: self.card.as_ref().map(|card| &card.holder_name),
            installments: Some(self.installments),
        };
        let mut faults = known.faults();
        if self.payment_method.is_card() != self.card.is_some() {
            faults.push(InvalidTransaction::Card);
        }
        faults
    }
}

impl KnownFields<'_> {
    /// Every rule across the fields that is broken, whatever the unknown ones may be.
    pub fn faults(&self) -> Vec<InvalidTransaction> {
        let minor = self.amount.map(Money::minor);
        let parts = self.installments.map_or(1, Installments::get);
        let holder_name = self.card_holder_name.map(CardHolderName::as_str);
        let has_number =
            |text: Option<&str>| self.card_number.zip(text).is_some_and(|(number, text)| number.appears_in(text));
        let is_no_description = |text: &str| !Transaction::is_description(text);
        let rules = [
            (minor.is_some_and(|minor| !(1..=Money::MAX_MINOR).contains(&minor)), InvalidTransaction::Amount),
            (self.description.is_some_and(is_no_description), InvalidTransaction::Description),
            (
                parts > 1 && self.payment_method.is_some_and(|method| method != PaymentMethod::CreditCard),
                InvalidTransaction::InstallmentsNeedCredit,
            ),
            (
                minor.is_some_and(|minor| minor >= 1 && minor < i64::from(parts)),
                InvalidTransaction::InstallmentBelowOneUnit,
            ),
            (has_number(self.description) || has_number(holder_name), InvalidTransaction::CardNumberInText),
        ];
        rules.into_iter().filter_map(|(broken, fault)| broken.then_some(fault)).collect()
    }
}
