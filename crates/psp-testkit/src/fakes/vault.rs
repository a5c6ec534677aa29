use async_trait::async_trait;
use psp_domain::ports::{CardVault, FingerprintError, RequestFingerprint, SecretVault, VaultError};
use psp_domain::{Card, Fingerprint, SealedCard, SealedSecret, TransactionId};
use zeroize::Zeroizing;

/// A vault that hides nothing: for tests of what stands around it.
#[derive(Debug, Default, Clone, Copy)]
pub struct PlainVault;

#[async_trait]
impl CardVault for PlainVault {
    async fn seal(&self, _: TransactionId, card: &Card) -> Result<SealedCard, VaultError> {
        let expiry = card.expiry.first_day().format("%m/%Y");
        let (number, code, name) = (card.number.expose(), card.verification_code.expose(), card.holder_name.as_str());
        Ok(SealedCard(format!("{number}\n{code}\n{expiry}\n{name}").into_bytes()))
    }

    async fn open(&self, _: TransactionId, sealed: &SealedCard) -> Result<Card, VaultError> {
        let text = std::str::from_utf8(&sealed.0).map_err(|_| VaultError::Damaged)?;
        let mut lines = text.lines();
        let mut line = || lines.next().ok_or(VaultError::Damaged);
        Ok(Card {
            number: line()?.parse().map_err(|_| VaultError::Damaged)?,
            verification_code: line()?.parse().map_err(|_| VaultError::Damaged)?,
            expiry: line()?.parse().map_err(|_| VaultError::Damaged)?,
            holder_name: line()?.parse().map_err(|_| VaultError::Damaged)?,
        })
    }
}

#[async_trait]
impl SecretVault for PlainVault {
    async fn seal_secret(&self, name: &str, secret: &[u8]) -> Result<SealedSecret, VaultError> {
        Ok(SealedSecret([name.as_bytes(), b"\n", secret].concat()))
    }

    async fn open_secret(&self, name: &str, sealed: &SealedSecret) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let secret = sealed.0.strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"\n"));
        secret.map(|secret| Zeroizing::new(secret.to_vec())).ok_or(VaultError::Damaged)
    }
}

#[async_trait]
impl RequestFingerprint for PlainVault {
    async fn fingerprint(&self, canonical: &[u8]) -> Result<Fingerprint, FingerprintError> {
        let mut sum = [0; 32];
        for (index, byte) in canonical.iter().enumerate() {
            let place: &mut u8 = &mut sum[index % 32];
            *place = place.rotate_left(1) ^ byte;
        }
        Ok(Fingerprint(sum))
    }
}
