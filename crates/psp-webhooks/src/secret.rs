use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use psp_domain::WebhookSecret;
use psp_domain::ports::{SecretSource, VaultError};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

/// The header with the id of what is delivered: the same for every attempt.
pub const ID_HEADER: &str = "webhook-id";
/// The header with the time of the attempt, in seconds since 1970.
pub const TIMESTAMP_HEADER: &str = "webhook-timestamp";
/// The header with the signatures, with a space between two.
pub const SIGNATURE_HEADER: &str = "webhook-signature";

/// What the text of a secret begins with.
const PREFIX: &str = "whsec_";
/// How a signature by HMAC-SHA256 begins.
const VERSION: &str = "v1,";

/// The key of a secret, which signs as Standard Webhooks has it. `Debug` does not show it, and it is overwritten when it is
/// dropped.
pub struct SigningSecret(Zeroizing<Vec<u8>>);

/// Not the text of a secret. Never carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be `whsec_` and 24 to 64 bytes in base64")]
pub struct InvalidSecret;

impl std::fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningSecret(***)")
    }
}

impl SigningSecret {
    /// The shortest key, in bytes.
    pub const MIN_LEN: usize = 24;
    /// The longest key, in bytes.
    pub const MAX_LEN: usize = 64;

    /// The secret of a text such as [`RandomSecrets`] make.
    ///
    /// # Errors
    /// [`InvalidSecret`].
    pub fn parse(text: &str) -> Result<Self, InvalidSecret> {
        let text = text.strip_prefix(PREFIX).ok_or(InvalidSecret)?;
        // Room for all of it at once: a buffer that grew would leave copies behind.
        let mut key = Zeroizing::new(Vec::with_capacity(base64::decoded_len_estimate(text.len())));
        STANDARD.decode_vec(text, &mut key).map_err(|_| InvalidSecret)?;
        if (Self::MIN_LEN..=Self::MAX_LEN).contains(&key.len()) { Ok(Self(key)) } else { Err(InvalidSecret) }
    }

    /// One signature: of the id, the time and the body, with a full stop between two (Standard Webhooks, "Signature scheme").
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        let mut context = hmac::Context::with_key(&key);
        context.update(format!("{id}.{timestamp}.").as_bytes());
        context.update(body);
        let mut text = String::from(VERSION);
        STANDARD.encode_string(context.sign(), &mut text);
        text
    }
}

/// Secrets of 32 bytes from the operating system.
#[derive(Debug, Clone)]
pub struct RandomSecrets(SystemRandom);

impl RandomSecrets {
    /// The length of a key, in bytes.
    const LEN: usize = 32;
}

impl Default for RandomSecrets {
    fn default() -> Self {
        Self(SystemRandom::new())
    }
}

impl SecretSource for RandomSecrets {
    fn new_secret(&self) -> Result<WebhookSecret, VaultError> {
        let mut key = Zeroizing::new([0; Self::LEN]);
        self.0.fill(&mut *key).map_err(|_| VaultError::Provider)?;
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + Self::LEN.div_ceil(3) * 4));
        text.push_str(PREFIX);
        STANDARD.encode_string(*key, &mut text);
        Ok(WebhookSecret::new(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_specification_is_signed_as_there() {
        let secret = SigningSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn secrets_differ_parse_and_are_not_shown() {
        let (one, other) =
            (RandomSecrets::default().new_secret().unwrap(), RandomSecrets::default().new_secret().unwrap());
        assert_ne!(one, other);
        let parsed = SigningSecret::parse(one.expose()).unwrap();
        assert_eq!((parsed.0.len(), one.expose().len()), (32, 50));
        assert_eq!(format!("{one:?} {parsed:?}"), "WebhookSecret(***) SigningSecret(***)");
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        let short = format!("{PREFIX}{}", STANDARD.encode([1; 23]));
        let long = format!("{PREFIX}{}", STANDARD.encode([1; 65]));
        for text in ["", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_!!!!", &short, &long] {
            assert_eq!(SigningSecret::parse(text).map(drop), Err(InvalidSecret), "{text}");
        }
    }
}
