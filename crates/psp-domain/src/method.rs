//! What transactions are for, and how they are paid.

use serde::{Deserialize, Serialize};

/// What a transaction is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransactionKind {
    /// Somebody pays the customer, who is owed payables for it.
    Payment,
    /// A user of the customer's pays in.
    Deposit,
    /// A user of the customer's is paid out.
    Withdrawal,
}

impl TransactionKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Payment, Self::Deposit, Self::Withdrawal];

    /// The name in the API and the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Payment => "payment",
            Self::Deposit => "deposit",
            Self::Withdrawal => "withdrawal",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

impl std::fmt::Display for TransactionKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How the payer pays, or is paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaymentMethod {
    /// Credit card: may be divided into instalments.
    CreditCard,
    /// Debit card.
    DebitCard,
    /// India's Unified Payments Interface.
    Upi,
    /// The payer's own online bank.
    Netbanking,
    /// An electronic wallet.
    Wallet,
    /// A transfer between bank accounts.
    BankTransfer,
    /// Brazil's instant payments.
    Pix,
    /// Brazil's payment slip.
    Boleto,
}

impl PaymentMethod {
    /// Every method.
    pub const ALL: [Self; 8] = [
        Self::CreditCard,
        Self::DebitCard,
        Self::Upi,
        Self::Netbanking,
        Self::Wallet,
        Self::BankTransfer,
        Self::Pix,
        Self::Boleto,
    ];

    /// Whether it needs a card; all others must not have one.
    pub const fn is_card(self) -> bool {
        matches!(self, Self::CreditCard | Self::DebitCard)
    }

    /// The name in the API and the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CreditCard => "credit_card",
            Self::DebitCard => "debit_card",
            Self::Upi => "upi",
            Self::Netbanking => "netbanking",
            Self::Wallet => "wallet",
            Self::BankTransfer => "bank_transfer",
            Self::Pix => "pix",
            Self::Boleto => "boleto",
        }
    }

    /// The method of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.as_str() == name)
    }
}

impl std::fmt::Display for PaymentMethod {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
