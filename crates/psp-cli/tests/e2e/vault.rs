//! Master keys are changed while payments wait, and cards that wait too long are erased.

use std::time::Instant;

use serde_json::{Value, json};

use crate::support::{PATIENCE, Place, example, example_with, pause};

const OLD: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const NEW: &str = "AQECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn with_keys(keys: &str) -> Place {
    let shortly = [("PSP_RETRY_BASE_MS", "1"), ("PSP_RETRY_MAX_MS", "5")];
    Place::new(&[&[("PSP_CARD_KEYS", keys)][..], &shortly].concat())
}

fn rotate(place: &Place) -> Value {
    serde_json::from_str(&place.run(&["vault", "rotate", "--json"])).unwrap()
}

#[tokio::test]
async fn payments_that_wait_are_authorized_under_the_new_key_alone() {
    let mut place = with_keys(OLD);
    let api = place.start(&["api"]).await;
    for customer in ["1", "2", "3"] {
        assert_eq!(api.post(customer, &example()).await.status, 201);
    }
    // Beside the running process, which still seals with the old key and need not open.
    place.set("PSP_CARD_KEYS", &format!("{NEW},{OLD}"));
    let rotation = rotate(&place);
    assert_eq!((&rotation["cards"], &rotation["current"], &rotation["unopened"]), (&json!(3), &json!(0), &json!(0)));
    assert_eq!(rotation["key"].as_str().unwrap().split_once(':').unwrap().0, "local");
    let again = rotate(&place);
    assert_eq!((&again["cards"], &again["current"]), (&json!(0), &json!(3)));
    assert!(place.run(&["vault", "rotate"]).contains("current   3"));

    // Who has the old key alone says what is missing, and leaves the payment as it is.
    let mut stale = place.start_with(&["worker"], &[("PSP_CARD_KEYS", OLD)]).await;
    let letters = dead_letters(&place, 3).await;
    stale.kill();
    for letter in letters.as_array().unwrap() {
        assert!(letter["reason"].as_str().unwrap().contains("sealed with a key that is not configured"), "{letters}");
    }
    assert_eq!(api.get("1", "/transactions").await.json()[0]["status"], "processing");

    place.set("PSP_CARD_KEYS", NEW);
    let _worker = place.start(&["worker"]).await;
    assert_eq!(place.run(&["dlq", "replay", "--all", "transactions"]), "3 replayed\n");
    for customer in ["1", "2", "3"] {
        api.until(customer, "/transactions", |list| list[0]["status"] == "pending_payment").await;
    }
    assert_eq!(place.count("SELECT 1 FROM transactions WHERE sealed_card IS NOT NULL").await, 0);
}

/// The dead letters, once there are that many.
async fn dead_letters(place: &Place, count: usize) -> Value {
    let begun = Instant::now();
    loop {
        let letters: Value = serde_json::from_str(&place.run(&["dlq", "list", "--json"])).unwrap();
        if letters.as_array().unwrap().len() == count {
            return letters;
        }
        assert!(begun.elapsed() < PATIENCE, "{letters}");
        pause().await;
    }
}

#[tokio::test]
async fn a_rotation_while_a_payment_is_with_its_gateway_disturbs_nobody() {
    let mut place = with_keys(OLD);
    place.set("PSP_SANDBOX_SLOW_MS", "1500");
    let psp = place.serve().await;
    psp.post("123", &example_with(&json!({ "card_number": "4000000000003220" }))).await;
    place.set("PSP_CARD_KEYS", &format!("{NEW},{OLD}"));
    let rotation = rotate(&place);
    assert_eq!(rotation["cards"], 1, "it was still with its gateway: {rotation}");
    psp.until("123", "/transactions", |list| list[0]["status"] == "pending_payment").await;
    assert_eq!(place.count("SELECT 1 FROM transactions WHERE sealed_card IS NOT NULL").await, 0);
    assert_eq!(psp.get("123", "/payables").await.json().as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_rotation_without_the_old_key_changes_nothing_and_says_so() {
    let mut place = with_keys(OLD);
    let api = place.start(&["api"]).await;
    api.post("123", &example()).await;
    place.set("PSP_CARD_KEYS", NEW);
    let output = place.command(&["vault", "rotate", "--json"]).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("1 do not open: with a key that is not configured"), "{error}");
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap()["unopened"], 1);

    place.set("PSP_CARD_KEYS", OLD);
    let _worker = place.start(&["worker"]).await;
    api.until("123", "/transactions", |list| list[0]["status"] == "pending_payment").await;
}

#[tokio::test]
async fn cards_that_wait_too_long_are_erased_and_young_ones_stay() {
    let place = with_keys(OLD);
    let api = place.start(&["api"]).await;
    api.post("123", &example()).await;
    assert!(place.run(&["job", "shred-cards"]).starts_with("0 sealed cards erased"));
    place.execute(&["UPDATE transactions SET created_at = 0", "UPDATE transactions SET created_at = 'epoch'"]).await;
    assert!(place.run(&["job", "shred-cards"]).starts_with("1 sealed cards erased"));
    assert_eq!(place.count("SELECT 1 FROM transactions WHERE sealed_card IS NOT NULL").await, 0);
    let _worker = place.start(&["worker"]).await;
    api.until("123", "/transactions", |list| list[0]["status"] == "failed").await;
    assert_eq!(place.count("SELECT 1 FROM transactions WHERE status_reason = 'card_erased'").await, 1);
}

#[tokio::test]
async fn the_scheduler_erases_what_waits_too_long() {
    let mut place = with_keys(OLD);
    place.set("PSP_SHRED_CRON", "* * * * * *");
    let api = place.start(&["api"]).await;
    api.post("123", &example()).await;
    place.execute(&["UPDATE transactions SET created_at = 0", "UPDATE transactions SET created_at = 'epoch'"]).await;
    let mut scheduler = place.start(&["scheduler"]).await;
    scheduler.await_log("sealed cards erased").await;
    assert_eq!(place.count("SELECT 1 FROM transactions WHERE sealed_card IS NOT NULL").await, 0);
}
