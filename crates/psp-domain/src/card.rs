//! Card data. Types that hold the number or the code redact `Debug`, have no `Display` and zeroize on drop
//! (PCI DSS 3.3, 3.4, 3.5).

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// What can be wrong with card data. Never carries the rejected value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CardError {
    /// ISO/IEC 7812: 12 to 19 digits with a Luhn check digit.
    #[error("must be 12 to 19 digits with a valid check digit")]
    Number,
    /// The code printed on the card.
    #[error("must be 3 or 4 digits")]
    VerificationCode,
    /// Month and year of expiry.
    #[error("must be MM/YY or MM/YYYY")]
    Expiry,
    /// The name embossed on the card.
    #[error("must be 1 to {} characters, without control characters", CardHolderName::MAX_CHARS)]
    HolderName,
}

/// A primary account number: 12 to 19 digits that pass Luhn (ISO/IEC 7812-1).
///
/// ```
/// use psp_domain::CardNumber;
/// let number: CardNumber = "4111111111111111".parse()?;
/// assert_eq!(number.last_four(), "1111");
/// assert_eq!(format!("{number:?}"), "CardNumber(***)");
/// assert!("4111111111111112".parse::<CardNumber>().is_err());
/// # Ok::<(), psp_domain::CardError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct CardNumber(String);

impl CardNumber {
    /// The digits. For a gateway or a vault only.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The last four digits, which may be shown (PCI DSS 3.4.1).
    pub fn last_four(&self) -> &str {
        &self.0[self.0.len() - 4..]
    }

    /// Whether a text that will be stored in the clear carries this number, whatever stands between its digits.
    ///
    /// ```
    /// # let number: psp_domain::CardNumber = "4111111111111111".parse()?;
    /// assert!(number.appears_in("paid with 4111 1111-1111 1111"));
    /// assert!(!number.appears_in("order 4111"));
    /// # Ok::<(), psp_domain::CardError>(())
    /// ```
    pub fn appears_in(&self, text: &str) -> bool {
        let mut digits: String = text.chars().filter(char::is_ascii_digit).collect();
        let found = digits.contains(&self.0);
        digits.zeroize();
        found
    }

    /// Whether a text seems to hold a card number: digits, perhaps in groups, that are one, or among which stands one of a
    /// known brand. Long numbers that mean something else now and then do, too, so this decides what is shown, never what
    /// is refused.
    ///
    /// ```
    /// # use psp_domain::CardNumber;
    /// assert!(CardNumber::may_stand_in("pay4111-1111-1111-1111-2024"));
    /// assert!(!CardNumber::may_stand_in("01a1fc23-adfc-74b8-ab63-7bfa62344961"));
    /// ```
    pub fn may_stand_in(text: &str) -> bool {
        let joins = |c: char| c.is_ascii_digit() || matches!(c, ' ' | '-' | '.' | '/' | '_' | ':');
        text.split(|c| !joins(c)).any(|run| {
            let digits = zeroize::Zeroizing::new(run.chars().filter(char::is_ascii_digit).collect::<String>());
            digits.parse::<Self>().is_ok() || (13..=19).any(|length| Self::stands_within(&digits, length))
        })
    }

    /// Whether a text is a card number of a known brand as a whole, spaces and hyphens aside: no name, and nothing to be stored
    /// in the clear. Numbers of 12 to 14 digits mean something else too often, but 14 for Diners Club.
    ///
    /// ```
    /// # use psp_domain::CardNumber;
    /// assert!(CardNumber::is_all_of("4111 1111-1111 1111"));
    /// assert!(!CardNumber::is_all_of("order 4111111111111111"));
    /// assert!(!CardNumber::is_all_of("9999999999999995"), "no brand begins so");
    /// ```
    pub fn is_all_of(text: &str) -> bool {
        // Room for all of it at once: a text that grew would leave copies behind.
        let mut digits = zeroize::Zeroizing::new(String::with_capacity(text.len()));
        digits.extend(text.chars().filter(|c| !matches!(c, ' ' | '-')));
        digits.parse::<Self>().is_ok_and(|number| match number.brand() {
            CardBrand::Unknown => false,
            CardBrand::Diners => number.0.len() >= 14,
            _ => number.0.len() >= 15,
        })
    }

    fn stands_within(digits: &str, length: usize) -> bool {
        let windows = (0..digits.len().saturating_sub(length - 1)).map(|from| &digits[from..from + length]);
        windows.filter_map(|window| window.parse::<Self>().ok()).any(|number| number.brand() != CardBrand::Unknown)
    }

    /// The brand, by issuer identification number.
    pub fn brand(&self) -> CardBrand {
        CardBrand::of(&self.0)
    }
}

impl FromStr for CardNumber {
    type Err = CardError;

    fn from_str(s: &str) -> Result<Self, CardError> {
        let digits = (12..=19).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_digit());
        if digits && luhn::valid(s) { Ok(Self(s.to_owned())) } else { Err(CardError::Number) }
    }
}

impl fmt::Debug for CardNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CardNumber(***)")
    }
}

/// The card verification code (CVV2, CVC2, CID): 3 or 4 digits.
///
/// Sensitive authentication data: gone once authorization ended, even encrypted (PCI DSS 3.3.1).
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct CardVerificationCode(String);

impl CardVerificationCode {
    /// The digits. For a gateway or a vault only.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for CardVerificationCode {
    type Err = CardError;

    fn from_str(s: &str) -> Result<Self, CardError> {
        let fits = (3..=4).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_digit());
        if fits { Ok(Self(s.to_owned())) } else { Err(CardError::VerificationCode) }
    }
}

impl fmt::Debug for CardVerificationCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CardVerificationCode(***)")
    }
}

/// Month and year of expiry.
///
/// ```
/// use psp_domain::CardExpiry;
/// let expiry: CardExpiry = "10/25".parse()?;
/// assert_eq!(expiry, "10/2025".parse()?);
/// assert_eq!(expiry.first_day().to_rfc3339(), "2025-10-01T00:00:00+00:00");
/// # Ok::<(), psp_domain::CardError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CardExpiry {
    first_day: NaiveDate,
}

impl CardExpiry {
    /// The expiry of a month (1 to 12) and a year (2000 to 2099).
    ///
    /// # Errors
    /// [`CardError::Expiry`] outside those ranges.
    pub fn new(month: u32, year: i32) -> Result<Self, CardError> {
        if !(2000..=2099).contains(&year) {
            return Err(CardError::Expiry);
        }
        let first_day = NaiveDate::from_ymd_opt(year, month, 1).ok_or(CardError::Expiry)?;
        Ok(Self { first_day })
    }

    /// Midnight UTC of the first day of the month.
    pub fn first_day(self) -> DateTime<Utc> {
        self.first_day.and_time(chrono::NaiveTime::MIN).and_utc()
    }

    /// Whether the month has ended at `now`.
    pub fn is_past(self, now: DateTime<Utc>) -> bool {
        self.first_day
            .checked_add_months(chrono::Months::new(1))
            .is_some_and(|next_month| next_month <= now.date_naive())
    }
}

impl FromStr for CardExpiry {
    type Err = CardError;

    fn from_str(s: &str) -> Result<Self, CardError> {
        let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        let (month, year) = s.split_once('/').ok_or(CardError::Expiry)?;
        if month.len() != 2 || !matches!(year.len(), 2 | 4) || !digits(month) || !digits(year) {
            return Err(CardError::Expiry);
        }
        let month: u32 = month.parse().map_err(|_| CardError::Expiry)?;
        let number: i32 = year.parse().map_err(|_| CardError::Expiry)?;
        Self::new(month, if year.len() == 2 { 2000 + number } else { number })
    }
}

/// The name on the card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct CardHolderName(String);

impl CardHolderName {
    /// The largest length, in characters.
    pub const MAX_CHARS: usize = 100;

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CardHolderName {
    type Err = CardError;

    fn from_str(s: &str) -> Result<Self, CardError> {
        let trimmed = s.trim();
        let fits =
            !trimmed.is_empty() && trimmed.chars().count() <= Self::MAX_CHARS && !trimmed.chars().any(char::is_control);
        if fits { Ok(Self(trimmed.to_owned())) } else { Err(CardError::HolderName) }
    }
}

/// The brand of a card, by the ranges of its issuer identification number (ISO/IEC 7812).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CardBrand {
    /// Visa: 4.
    Visa,
    /// Mastercard: 51–55, 2221–2720.
    Mastercard,
    /// American Express: 34, 37.
    Amex,
    /// Elo: its Brazilian ranges.
    Elo,
    /// Hipercard: 606282, 384100, 384140, 384160.
    Hipercard,
    /// Diners Club: 300–305, 36, 38, 39.
    Diners,
    /// Discover: 6011, 644–649, 65.
    Discover,
    /// JCB: 3528–3589.
    Jcb,
    /// `UnionPay`: 62.
    Unionpay,
    /// Any other.
    Unknown,
}

impl CardBrand {
    /// Every brand with its name in the API and the database.
    const NAMES: [(Self, &'static str); 10] = [
        (Self::Visa, "visa"),
        (Self::Mastercard, "mastercard"),
        (Self::Amex, "amex"),
        (Self::Elo, "elo"),
        (Self::Hipercard, "hipercard"),
        (Self::Diners, "diners"),
        (Self::Discover, "discover"),
        (Self::Jcb, "jcb"),
        (Self::Unionpay, "unionpay"),
        (Self::Unknown, "unknown"),
    ];

    fn of(number: &str) -> Self {
        let six: u32 = number[..6].parse().unwrap_or(0);
        match six {
            401_178..=401_179
            | 431_274
            | 438_935
            | 451_416
            | 457_393
            | 457_631..=457_632
            | 504_175
            | 506_699..=506_778
            | 509_000..=509_999
            | 627_780
            | 636_297
            | 636_368
            | 650_031..=650_033
            | 650_035..=650_051
            | 650_405..=650_439
            | 650_485..=650_538
            | 650_541..=650_598
            | 650_700..=650_718
            | 650_720..=650_727
            | 650_901..=650_978
            | 651_652..=651_679
            | 655_000..=655_019
            | 655_021..=655_058 => Self::Elo,
            606_282 | 384_100 | 384_140 | 384_160 => Self::Hipercard,
            400_000..=499_999 => Self::Visa,
            510_000..=559_999 | 222_100..=272_099 => Self::Mastercard,
            340_000..=349_999 | 370_000..=379_999 => Self::Amex,
            300_000..=305_999 | 360_000..=369_999 | 380_000..=399_999 => Self::Diners,
            352_800..=358_999 => Self::Jcb,
            601_100..=601_199 | 644_000..=659_999 => Self::Discover,
            620_000..=629_999 => Self::Unionpay,
            _ => Self::Unknown,
        }
    }

    /// The name in the API and the database.
    pub fn as_str(self) -> &'static str {
        Self::NAMES.iter().find(|(brand, _)| *brand == self).map_or("unknown", |(_, name)| name)
    }

    /// The brand of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, n)| *n == name).map(|(brand, _)| *brand)
    }
}

/// Everything an acquirer needs of a card. Lives in memory and, sealed, in the vault until authorization ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// The number.
    pub number: CardNumber,
    /// The name on it.
    pub holder_name: CardHolderName,
    /// Its expiry.
    pub expiry: CardExpiry,
    /// Its verification code.
    pub verification_code: CardVerificationCode,
}

impl Card {
    /// What may be stored and shown of it.
    pub fn summary(&self) -> CardSummary {
        CardSummary {
            holder_name: self.holder_name.clone(),
            expiry: self.expiry,
            last_four: self.number.last_four().to_owned(),
            brand: self.number.brand(),
        }
    }
}

/// What may be stored and shown of a card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CardSummary {
    /// The name on it.
    pub holder_name: CardHolderName,
    /// Its expiry.
    pub expiry: CardExpiry,
    /// The last four digits of its number.
    pub last_four: String,
    /// Its brand.
    pub brand: CardBrand,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brands_follow_the_issuer_ranges() {
        for (number, brand) in [
            ("4111111111111111", CardBrand::Visa),
            ("5555555555554444", CardBrand::Mastercard),
            ("2223003122003222", CardBrand::Mastercard),
            ("378282246310005", CardBrand::Amex),
            ("6062826786276634", CardBrand::Hipercard),
            ("36227206271667", CardBrand::Diners),
            ("6011111111111117", CardBrand::Discover),
            ("3566002020360505", CardBrand::Jcb),
            ("6200000000000005", CardBrand::Unionpay),
        ] {
            assert_eq!(number.parse::<CardNumber>().map(|n| n.brand()), Ok(brand), "{number}");
        }
        assert!(CardBrand::NAMES.iter().all(|(brand, name)| CardBrand::from_name(name) == Some(*brand)));
    }

    #[test]
    fn numbers_codes_and_expiries_of_the_wrong_shape_are_refused() {
        for number in
            ["", "4111", "4111111111111112", "4111 1111 1111 1111", "41111111111111111111", "４111111111111111"]
        {
            assert!(number.parse::<CardNumber>().is_err(), "{number}");
        }
        for code in ["", "12", "12345", "12a", "１２３"] {
            assert!(code.parse::<CardVerificationCode>().is_err(), "{code}");
        }
        for expiry in ["", "1/25", "13/25", "00/25", "10-25", "10/025", "10/", "/25", "+1/25", "10/1999"] {
            assert!(expiry.parse::<CardExpiry>().is_err(), "{expiry}");
        }
    }

    #[test]
    fn debug_shows_neither_number_nor_code() {
        let card = Card {
            number: "4111111111111111".parse().expect("number"),
            holder_name: "Luke Skywalker".parse().expect("name"),
            expiry: "10/25".parse().expect("expiry"),
            verification_code: "987".parse().expect("code"),
        };
        let text = format!("{card:?}");
        assert!(!text.contains("4111") && !text.contains("987"), "{text}");
    }

    #[test]
    fn a_card_is_good_through_the_last_day_of_its_month() {
        let expiry: CardExpiry = "10/25".parse().expect("expiry");
        let at = |s: &str| s.parse::<DateTime<Utc>>().expect("time");
        assert!(!expiry.is_past(at("2025-10-31T23:59:59Z")));
        assert!(expiry.is_past(at("2025-11-01T00:00:00Z")));
    }
}
