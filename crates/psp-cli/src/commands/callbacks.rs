use comfy_table::Table;
use comfy_table::presets;
use psp_domain::{Callback, CallbackOutcome, Money};

use super::answer;
use crate::wiring::Wiring;

/// Lists callbacks with an outcome.
pub(crate) async fn list(wiring: Wiring, outcome: CallbackOutcome, limit: u32, json: bool) -> anyhow::Result<()> {
    let found = wiring.store.callbacks.with_outcome(outcome, limit).await;
    wiring.close().await;
    let found = found?;
    if json {
        return answer(found.iter().map(describe).collect::<serde_json::Value>());
    }
    if found.is_empty() {
        return answer("there are no such callbacks");
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["received", "transaction", "gateway", "gateway reference", "status", "amount"]);
    for callback in &found {
        table.add_row([
            callback.received_at.format("%F %T").to_string(),
            callback.transaction_id.to_string(),
            callback.gateway.to_string(),
            callback.gateway_reference.clone(),
            callback.status.clone(),
            callback.amount.map_or(String::new(), |amount| format!("{} {}", amount.minor(), amount.currency())),
        ]);
    }
    answer(table)
}

fn describe(callback: &Callback) -> serde_json::Value {
    serde_json::json!({
        "id": callback.id,
        "received_at": callback.received_at,
        "transaction_id": callback.transaction_id,
        "gateway": callback.gateway.as_str(),
        "gateway_reference": callback.gateway_reference,
        "status": callback.status,
        "amount": callback.amount.map(Money::minor),
        "currency": callback.amount.map(|amount| amount.currency().code()),
    })
}
