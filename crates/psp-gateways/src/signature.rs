//! Signatures of requests: HMAC-SHA256 (RFC 2104) under a secret that both sides have.

use std::fmt::Write;
use std::time::Duration;

use ring::hmac;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

/// The header with the time of signing, in seconds since 1970.
pub const TIMESTAMP_HEADER: &str = "psp-timestamp";
/// The header with the signature.
pub const SIGNATURE_HEADER: &str = "psp-signature";
/// How far the time of signing may be from the receiver's, before and after.
pub const WINDOW: Duration = Duration::from_mins(5);
/// What a signature starts with; a new way of signing gets a new version.
const VERSION: &str = "v1=";

/// The secret of a gateway. `Debug` does not show it.
#[derive(Debug, Clone)]
pub struct SigningKey(SecretString);

/// A secret that could be guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must have {} characters or more, as `openssl rand -base64 32` prints them", SigningKey::MIN_LEN)]
pub struct ShortSecret;

/// Why a signature is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSignature {
    /// The time of signing is outside [`WINDOW`].
    #[error("the signature is too old, or of the future")]
    Stale,
    /// Signed with another secret, or something else was signed.
    #[error("the signature is wrong")]
    Forged,
}

/// What is signed.
#[derive(Clone, Copy)]
pub struct Signed<'a> {
    /// Seconds since 1970.
    pub timestamp: i64,
    /// The method, in capitals.
    pub method: &'a str,
    /// The path as it is sent, without the host.
    pub path: &'a str,
    /// The body, byte by byte; empty where there is none.
    pub body: &'a [u8],
}

impl Signed<'_> {
    /// Neither number, method nor path can hold a line feed, so no two requests have the same text.
    fn text(&self) -> Zeroizing<Vec<u8>> {
        let head = format!("{}\n{}\n{}\n", self.timestamp, self.method, self.path);
        let mut text = Zeroizing::new(Vec::with_capacity(head.len() + self.body.len()));
        text.extend_from_slice(head.as_bytes());
        text.extend_from_slice(self.body);
        text
    }
}

impl SigningKey {
    /// The shortest secret, in bytes.
    pub const MIN_LEN: usize = 32;

    /// The key of that secret.
    ///
    /// # Errors
    /// [`ShortSecret`] below [`Self::MIN_LEN`].
    pub fn new(secret: SecretString) -> Result<Self, ShortSecret> {
        if secret.expose_secret().len() < Self::MIN_LEN { Err(ShortSecret) } else { Ok(Self(secret)) }
    }

    /// The value of [`SIGNATURE_HEADER`].
    pub fn sign(&self, signed: &Signed<'_>) -> String {
        let mut text = String::from(VERSION);
        for byte in hmac::sign(&self.key(), &signed.text()).as_ref() {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        text
    }

    /// Checks a signature at that time (seconds since 1970), comparing in constant time.
    ///
    /// # Errors
    /// [`BadSignature`].
    pub fn verify(&self, signed: &Signed<'_>, signature: &str, now: i64) -> Result<(), BadSignature> {
        if now.abs_diff(signed.timestamp) > WINDOW.as_secs() {
            return Err(BadSignature::Stale);
        }
        let tag = signature.strip_prefix(VERSION).and_then(bytes_of).ok_or(BadSignature::Forged)?;
        hmac::verify(&self.key(), &signed.text(), &tag).map_err(|_| BadSignature::Forged)
    }

    fn key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, self.0.expose_secret().as_bytes())
    }
}

/// The 32 bytes of 64 hexadecimal digits.
fn bytes_of(text: &str) -> Option<[u8; 32]> {
    let digits = text.bytes().map(|digit| char::from(digit).to_digit(16)).collect::<Option<Vec<_>>>()?;
    let bytes: Vec<_> = digits.chunks_exact(2).filter_map(|pair| u8::try_from(pair[0] * 16 + pair[1]).ok()).collect();
    if digits.len() == 64 { bytes.try_into().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "an example: take openssl rand -base64 32";
    const BODY: &[u8] = br#"{"reference":"01a1fc23-adfc-74b8-ab63-7bfa62344961"}"#;

    fn key(secret: &str) -> SigningKey {
        SigningKey::new(secret.into()).unwrap()
    }

    fn example() -> Signed<'static> {
        Signed { timestamp: 1_769_860_800, method: "POST", path: "/v1/authorizations", body: BODY }
    }

    #[test]
    fn the_documented_example_is_signed_as_documented() {
        let page = include_str!("../../../docs/gateway-protocol.md");
        let example = example();
        for part in [SECRET, std::str::from_utf8(BODY).unwrap(), &key(SECRET).sign(&example)] {
            assert!(page.contains(part), "docs/gateway-protocol.md must have {part}");
        }
    }

    #[test]
    fn whatever_is_changed_the_signature_no_longer_fits() {
        let (signed, now) = (example(), 1_769_860_801);
        let signature = key(SECRET).sign(&signed);
        assert_eq!(key(SECRET).verify(&signed, &signature, now), Ok(()));
        let others = [
            Signed { timestamp: signed.timestamp + 1, ..signed },
            Signed { method: "GET", ..signed },
            Signed { path: "/v1/authorizations/", ..signed },
            Signed { body: b"{}", ..signed },
        ];
        for other in others {
            assert_eq!(key(SECRET).verify(&other, &signature, now), Err(BadSignature::Forged), "{}", other.path);
        }
        let stranger = key("another secret that is long enough, too");
        assert_eq!(stranger.verify(&signed, &signature, now), Err(BadSignature::Forged));
        for garbage in ["", "v1=", "v1=zz", &signature[3..], &signature.replace("v1", "v2"), &format!("{signature}00")]
        {
            assert_eq!(key(SECRET).verify(&signed, garbage, now), Err(BadSignature::Forged), "{garbage}");
        }
    }

    #[test]
    fn a_signature_holds_for_five_minutes_before_and_after() {
        let (signed, key) = (example(), key(SECRET));
        let signature = key.sign(&signed);
        for (seconds, expected) in
            [(-301, Err(BadSignature::Stale)), (-300, Ok(())), (300, Ok(())), (301, Err(BadSignature::Stale))]
        {
            assert_eq!(key.verify(&signed, &signature, signed.timestamp + seconds), expected, "{seconds} s");
        }
        let extreme = Signed { timestamp: i64::MIN, ..signed };
        assert_eq!(key.verify(&extreme, &signature, i64::MAX), Err(BadSignature::Stale));
    }

    #[test]
    fn short_secrets_are_refused_and_none_is_shown() {
        assert_eq!(SigningKey::new("short".into()).map(drop), Err(ShortSecret));
        assert!(!format!("{:?}", key(SECRET)).contains("example"));
    }
}
