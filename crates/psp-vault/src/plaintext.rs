//! What is sealed: number, code, expiry and name, a line each, padded with zero bytes to one of two lengths.

use psp_domain::{Card, CardHolderName};
use zeroize::Zeroizing;

/// Fits the longest number (19), code (4), expiry (7), name (4 bytes a character) and the line ends.
const LEN: usize = 19 + 4 + 7 + CardHolderName::MAX_CHARS * 4 + 4;
/// Nearly every card fits this many bytes; the few longer names take [`LEN`].
const USUAL_LEN: usize = 80;

pub(crate) fn write(card: &Card) -> Zeroizing<Vec<u8>> {
    let mut text = Zeroizing::new(Vec::with_capacity(LEN));
    let expiry = Zeroizing::new(card.expiry.first_day().format("%m/%Y").to_string());
    let fields = [card.number.expose(), card.verification_code.expose(), &expiry, card.holder_name.as_str()];
    for field in fields {
        text.extend_from_slice(field.as_bytes());
        text.push(b'\n');
    }
    let padded = if text.len() <= USUAL_LEN { USUAL_LEN } else { LEN };
    text.resize(padded, 0);
    text
}

pub(crate) fn read(bytes: &[u8]) -> Option<Card> {
    let mut lines = std::str::from_utf8(bytes).ok()?.split('\n');
    let card = Card {
        number: lines.next()?.parse().ok()?,
        verification_code: lines.next()?.parse().ok()?,
        expiry: lines.next()?.parse().ok()?,
        holder_name: lines.next()?.parse().ok()?,
    };
    Some(card)
}
