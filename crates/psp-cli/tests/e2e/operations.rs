//! What operators meet: health, metrics, dead letters.

use serde_json::{Value, json};

use crate::support::{Place, example};

#[tokio::test]
async fn health_metrics_and_documents_are_served() {
    let place = Place::new(&[]);
    let psp = place.serve().await;
    for path in ["/_liveness_check_", "/_readiness_check_"] {
        assert_eq!(psp.get("", path).await.json(), json!({ "status": "ok" }));
    }
    psp.post("123", &example()).await;
    psp.until("123", "/transactions", |list| list[0]["status"] == "pending_payment").await;
    let metrics = psp.get("", "/metrics").await.text;
    for line in [
        "psp_http_requests_total{route=\"/transactions\",method=\"POST\",status=\"201\"} 1",
        "psp_transactions_total{status=\"pending_payment\"} 1",
        "psp_messages_total{queue=\"transactions\",outcome=\"done\"} 1",
        "psp_batch_size_count",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    let document = psp.get("", "/openapi.json").await.json();
    assert_eq!(document, serde_json::from_str::<Value>(&place.run(&["openapi"])).unwrap());
    let page = psp.get("", "/docs/").await.text;
    assert!(page.contains("swagger-ui") && !page.contains("https://") && !page.contains("\"//"), "{page}");
}

#[tokio::test]
async fn the_health_check_asks_whatever_role_runs() {
    let place = Place::new(&[]);
    let api = place.start(&["api"]).await;
    let worker = place.start_with(&["worker"], &[("PSP_ADMIN_LISTEN", "127.0.0.1:0")]).await;
    let check = |args: &[&str], name: &str, address: &str| {
        let mut command = place.command(args);
        command.env(name, address).status().unwrap().success()
    };
    for args in [&["healthcheck"][..], &["healthcheck", "--live"]] {
        assert!(check(args, "PSP_LISTEN", &api.address));
        assert!(check(args, "PSP_ADMIN_LISTEN", &worker.address));
        assert!(!check(args, "PSP_LISTEN", "127.0.0.1:1"));
        assert!(!check(args, "PSP_ADMIN_LISTEN", "127.0.0.1:1"));
    }
}

#[tokio::test]
async fn a_poison_message_is_a_dead_letter_that_can_be_replayed_or_discarded_and_stops_no_other() {
    let environment = [("PSP_RETRY_BASE_MS", "1"), ("PSP_RETRY_MAX_MS", "5"), ("PSP_CARD_KEYS", KEYS[0])];
    let place = Place::new(&environment);
    let api = place.start(&["api"]).await;
    api.post("123", &example()).await;
    api.post("789", &example()).await;
    // A worker with another key cannot open the card; payments under its own key pass.
    let mut stranger = place.start_with(&["serve"], &[("PSP_CARD_KEYS", KEYS[1])]).await;
    let begun = std::time::Instant::now();
    let letters = loop {
        let letters: Value = serde_json::from_str(&place.run(&["dlq", "list", "--json"])).unwrap();
        if letters.as_array().unwrap().len() == 2 {
            break letters;
        }
        assert!(begun.elapsed() < crate::support::PATIENCE, "{letters}");
        crate::support::pause().await;
    };
    stranger.kill();
    for letter in letters.as_array().unwrap() {
        assert!(letter["reason"].as_str().unwrap().contains("key that is not configured"), "{letters}");
        assert_eq!((&letter["queue"], &letter["receive_count"]), (&json!("transactions"), &json!(5)));
    }
    let id = letters[0]["id"].as_str().unwrap();
    assert!(place.run(&["dlq", "list"]).contains(id));
    assert_eq!(serde_json::from_str::<Value>(&place.run(&["dlq", "show", id])).unwrap(), letters[0]);

    let _worker = place.start(&["worker"]).await;
    api.post("456", &example()).await;
    api.until("456", "/transactions", |list| list[0]["status"] == "pending_payment").await;
    assert_eq!(api.get("123", "/transactions").await.json()[0]["status"], "processing");
    assert_eq!(place.run(&["dlq", "replay", id]), "1 replayed\n");
    api.until("123", "/transactions", |list| list[0]["status"] == "pending_payment").await;
    assert!(!place.command(&["dlq", "replay", id]).output().unwrap().status.success(), "it is no dead letter any more");
    let other = letters[1]["id"].as_str().unwrap();
    assert_eq!(place.run(&["dlq", "discard", other]), "1 discarded\n");
    assert!(!place.command(&["dlq", "show", other]).output().unwrap().status.success(), "it is given up");
    assert_eq!(api.get("789", "/transactions").await.json()[0]["status"], "processing");
    assert_eq!(place.run(&["dlq", "discard", "--all", "transactions"]), "0 discarded\n");
}

#[tokio::test]
async fn payments_whose_message_was_discarded_or_lost_are_found_and_end() {
    let environment = [("PSP_RETRY_BASE_MS", "1"), ("PSP_RETRY_MAX_MS", "5"), ("PSP_CARD_KEYS", KEYS[0])];
    let place = Place::new(&environment);
    let api = place.start(&["api"]).await;
    api.post("123", &example()).await;
    place.execute(&["DELETE FROM outbox"; 2]).await;
    api.post("789", &example()).await;
    let mut stranger = place.start_with(&["worker"], &[("PSP_CARD_KEYS", KEYS[1])]).await;
    let begun = std::time::Instant::now();
    while place.run(&["dlq", "discard", "--all", "transactions"]) != "1 discarded\n" {
        assert!(begun.elapsed() < crate::support::PATIENCE, "no dead letter: {}", stranger.log());
        crate::support::pause().await;
    }
    stranger.kill();
    let _worker = place.start_with(&["worker"], &[("PSP_AUTHORIZATION_BUDGET_MS", "1000")]).await;
    for customer in ["123", "789"] {
        api.until(customer, "/transactions", |list| list[0]["status"] == "pending_payment").await;
    }
    assert_eq!(place.run(&["dlq", "list", "--json"]).trim(), "[]");
    let swept = place.run(&["job", "sweep-attempts"]);
    assert_eq!(
        swept,
        "0 unresolved attempts are asked for, 0 pending refunds, 0 transactions whose message was lost, 0 orders\n"
    );
}

#[tokio::test]
async fn where_webhooks_are_turned_off_nobody_is_alarmed_of_what_waits() {
    for (reach, is_measured) in [("public", true), ("none", false)] {
        let place = Place::new(&[("PSP_WEBHOOK_REACH", reach)]);
        let psp = place.serve().await;
        let begun = std::time::Instant::now();
        // The queues are measured after deliveries are.
        let metrics = loop {
            let metrics = psp.get("", "/metrics").await.text;
            if metrics.contains("psp_queue_depth") {
                break metrics;
            }
            assert!(begun.elapsed() < crate::support::PATIENCE, "{metrics}");
            crate::support::pause().await;
        };
        assert_eq!(metrics.contains("psp_webhook_pending"), is_measured, "{metrics}");
        assert_eq!(metrics.contains("psp_webhook_oldest_due_seconds"), is_measured, "{metrics}");
    }
}

const KEYS: [&str; 2] =
    ["AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "AQECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="];
