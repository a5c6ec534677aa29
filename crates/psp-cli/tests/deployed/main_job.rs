//! The main job, seen from outside, wherever it is deployed.

use crate::support::{Api, example};

/// A payment is approved in the background, becomes a payable, and is settled when due; `psp` runs a command there.
pub(crate) async fn approve_and_settle(api: &Api, psp: impl Fn(&[&str]) -> String) {
    api.post("123", &example()).await;
    api.until("123", "/transactions", |list| list[0]["status"] == "pending_payment").await;
    let payable = api.get("123", "/payables").await.json()[0].clone();
    assert_eq!((&payable["fee"], &payable["receivable_amount"]), (&5.into(), &2375.into()), "{payable}");
    assert!(psp(&["job", "settle-payables"]).contains("payables      0"), "nothing is due");
    assert!(psp(&["job", "settle-payables", "--date", "2200-01-01"]).contains("payables      1"));
    assert_eq!(api.get("123", "/payables").await.json()[0]["status"], "paid");
    assert_eq!(api.get("123", "/transactions").await.json()[0]["status"], "paid");
    assert!(psp(&["job", "shred-cards"]).starts_with("0 sealed cards erased"));
    assert!(psp(&["job", "purge-events"]).starts_with("0 events deleted"));
    assert!(psp(&["job", "purge-idempotency-keys"]).contains("0 expired"));
}
