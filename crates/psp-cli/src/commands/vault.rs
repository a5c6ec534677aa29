use anyhow::ensure;
use psp_jobs::Rotation;
use psp_vault::FingerprintKey;

use super::answer;
use crate::cli::Vault;
use crate::wiring::Wiring;

/// Runs a command on the vault.
pub(crate) async fn run(wiring: Wiring, vault: Vault) -> anyhow::Result<()> {
    let outcome = match vault {
        Vault::Rotate { json } => rotate(&wiring, json).await,
    };
    wiring.close().await;
    outcome
}

async fn rotate(wiring: &Wiring, json: bool) -> anyhow::Result<()> {
    let (vault, store) = (wiring.vault().await?, &wiring.store);
    let names = [FingerprintKey::NAME];
    let (cards, keys, endpoints) = (&*store.sealed_cards, &*store.vault_keys, &*store.endpoints);
    let rotation = psp_jobs::rotate_vault(&*vault, cards, keys, &names, endpoints).await?;
    if json {
        answer(describe(&rotation))?;
    } else {
        answer(&rotation)?;
    }
    let unopened = rotation.unopened;
    ensure!(unopened == 0, "{unopened} do not open: with a key that is not configured, mostly; the log names them");
    Ok(())
}

fn describe(rotation: &Rotation) -> serde_json::Value {
    serde_json::json!({
        "key": rotation.key,
        "cards": rotation.cards,
        "keys": rotation.keys,
        "secrets": rotation.secrets,
        "current": rotation.current,
        "gone": rotation.gone,
        "unopened": rotation.unopened,
    })
}
