//! A payment from request to payable.

use chrono::{DateTime, TimeDelta, Utc};
use hyper::StatusCode;
use serde_json::{Value, json};

use crate::support::{Place, example, example_with};

fn time(value: &Value) -> DateTime<Utc> {
    let text = value.as_str().unwrap();
    assert!(text.ends_with('Z') && text.len() == "2026-01-01T00:00:00.000Z".len(), "{text}");
    text.parse().unwrap()
}

#[tokio::test]
async fn the_example_of_the_documentation_works_as_printed() {
    let place = Place::new(&[]);
    let psp = place.serve().await;
    let answer = psp.post("123", &example()).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    let body = answer.json();
    let (id, created, updated) = (&body["id"], &body["created_at"], &body["updated_at"]);
    assert_eq!(time(created), time(updated));
    let printed = format!(
        "{{\"id\":{id},\"description\":\"Lightsaber\",\"customer_id\":\"123\",\"amount\":2500,\"currency\":\"BRL\",\
         \"payment_method\":\"credit_card\",\"status\":\"processing\",\"card_holder_name\":\"Luke Skywalker\",\
         \"card_expiration_date\":\"2025-10-01T00:00:00.000Z\",\"card_verification_code\":\"***\",\
         \"card_last_four_numbers\":\"1111\",\"card_brand\":\"visa\",\"installments\":1,\
         \"created_at\":{created},\"updated_at\":{updated}}}"
    );
    assert_eq!(answer.text, printed);

    let listed = psp.until("123", "/transactions", |list| list[0]["status"] == "pending_payment").await;
    assert!(time(&listed[0]["updated_at"]) - time(created) < TimeDelta::seconds(1), "within a second");
    let payables = psp.get("123", "/payables").await.json();
    let payable = &payables[0];
    assert_eq!(payables.as_array().unwrap().len(), 1);
    assert_eq!((&payable["fee"], &payable["receivable_amount"]), (&json!(5), &json!(2375)));
    assert_eq!((&payable["status"], &payable["transaction_id"]), (&json!("waiting_funds"), id));
    assert_eq!((&payable["customer_id"], &payable["installment"]), (&json!("123"), &json!(1)));
    assert_eq!(time(&payable["payment_date"]) - time(&payable["created_at"]), TimeDelta::days(30));
    let balance = psp.get("123", "/balance").await.json();
    assert_eq!(balance, json!({ "available": 0, "waiting_funds": 2375, "currency": "BRL" }));

    for (path, found) in [("transactions", &listed[0]), ("payables", payable)] {
        let path = format!("/{path}/{}", found["id"].as_str().unwrap());
        assert_eq!(psp.get("123", &path).await.json(), *found);
        assert_eq!(psp.get("1234", &path).await.status, StatusCode::NOT_FOUND, "another customer");
    }
}

#[tokio::test]
async fn a_debit_payment_is_paid_at_once() {
    let place = Place::new(&[]);
    let psp = place.serve().await;
    psp.post("123", &example_with(&json!({ "payment_method": "debit_card", "amount": 1000 }))).await;
    psp.until("123", "/transactions", |list| list[0]["status"] == "paid").await;
    let payable = &psp.get("123", "/payables").await.json()[0];
    assert_eq!((&payable["status"], &payable["fee"]), (&json!("paid"), &json!(3)));
    assert_eq!((&payable["receivable_amount"], &payable["fee_amount"]), (&json!(970), &json!(30)));
    assert_eq!(psp.get("123", "/balance").await.json()["available"], 970);
}

#[tokio::test]
async fn twelve_installments_add_up_and_fall_due_a_month_apart() {
    let place = Place::new(&[]);
    let psp = place.serve().await;
    psp.post("123", &example_with(&json!({ "installments": 12, "amount": 1001 }))).await;
    let payables = psp.until("123", "/payables", |list| list.as_array().unwrap().len() == 12).await;
    let sum = |field: &str| payables.as_array().unwrap().iter().map(|p| p[field].as_i64().unwrap()).sum::<i64>();
    assert_eq!(sum("receivable_amount") + sum("fee_amount"), 1001);
    assert_eq!(sum("amount"), 1001);
    for payable in payables.as_array().unwrap() {
        let number = payable["installment"].as_i64().unwrap();
        let due = time(&payable["payment_date"]) - time(&payable["created_at"]);
        assert_eq!(due, TimeDelta::days(30 * number));
        assert_eq!(payable["amount"], if number == 1 { 88 } else { 83 });
    }
}

#[tokio::test]
async fn every_test_card_ends_as_documented() {
    let place = Place::new(&[("PSP_RETRY_BASE_MS", "20"), ("PSP_RETRY_MAX_MS", "50"), ("PSP_SANDBOX_SLOW_MS", "300")]);
    let psp = place.serve().await;
    let cases = [
        ("4000000000009995", "declined", json!("insufficient_funds")),
        ("4000000000000002", "declined", json!("do_not_honor")),
        ("4000000000000069", "declined", json!("expired_card")),
        ("4000000000000127", "declined", json!("incorrect_verification_code")),
        ("4000000000000119", "pending_payment", Value::Null),
        ("4000000000000341", "failed", json!("gateway_unavailable")),
        ("4000000000003220", "pending_payment", Value::Null),
        ("5555555555554444", "pending_payment", Value::Null),
    ];
    for (number, status, reason) in cases {
        let customer = &number[12..];
        let created = psp.post(customer, &example_with(&json!({ "card_number": number }))).await.json();
        let path = format!("/transactions/{}", created["id"].as_str().unwrap());
        let ended = psp.until(customer, &path, |t| t["status"] == status).await;
        assert_eq!(ended["status_reason"], reason, "{number}");
        let payables = psp.get(customer, "/payables").await.json();
        assert_eq!(payables.as_array().unwrap().len(), usize::from(status == "pending_payment"), "{number}");
    }
}

#[tokio::test]
async fn an_idempotency_key_has_one_effect_also_at_once_and_after_a_restart() {
    let place = Place::new(&[]);
    let mut psp = place.serve().await;
    let mut tasks = Vec::new();
    for _ in 0..16 {
        let mut client = psp.client().await;
        tasks.push(tokio::spawn(async move { client.post("123", &example(), Some("key-1")).await.unwrap() }));
    }
    let mut bodies = Vec::new();
    for task in tasks {
        let answer = task.await.unwrap();
        match answer.status {
            StatusCode::CREATED => bodies.push(answer.text),
            status => assert_eq!(status, StatusCode::CONFLICT, "{}", answer.text),
        }
    }
    assert!(!bodies.is_empty() && bodies.iter().all(|body| *body == bodies[0]));
    psp.kill();

    let psp = place.serve().await;
    let mut client = psp.client().await;
    let again = client.post("123", &example(), Some("\"key-1\"")).await.unwrap();
    assert_eq!((again.status, &again.text), (StatusCode::CREATED, &bodies[0]));
    assert_eq!(again.headers["idempotency-replayed"], "true");
    let other = client.post("123", &example_with(&json!({ "amount": 2501 })), Some("key-1")).await.unwrap();
    assert_eq!((other.status, other.faults()), (StatusCode::UNPROCESSABLE_ENTITY, vec!["idempotency-key".into()]));
    let stranger = client.post("456", &example(), Some("key-1")).await.unwrap();
    assert_eq!(stranger.status, StatusCode::CREATED, "keys of different customers do not meet");
    assert_eq!(psp.all("123", "/transactions").await.len(), 1);
}

#[tokio::test]
async fn pages_and_cursors_walk_the_same_list() {
    let place = Place::new(&[]);
    let psp = place.serve().await;
    let mut client = psp.client().await;
    let mut ids = Vec::new();
    for _ in 0..7 {
        ids.insert(0, client.post("123", &example(), None).await.unwrap().json()["id"].clone());
    }
    let mut numbered = Vec::new();
    for page in 1..=4 {
        let answer = client.get("123", &format!("/transactions?page={page}&limit=2")).await.unwrap();
        assert_eq!(answer.headers.contains_key("link"), page < 4);
        numbered.extend(answer.json().as_array().unwrap().iter().map(|t| t["id"].clone()));
    }
    assert_eq!(numbered, ids);
    let first = client.get("123", "/transactions?limit=3").await.unwrap();
    let link = first.headers["link"].to_str().unwrap().to_owned();
    assert!(link.starts_with("</transactions?cursor=") && link.ends_with("&limit=3>; rel=\"next\""), "{link}");
    let next_path = link[1..].split('>').next().unwrap();
    let next = client.get("123", next_path).await.unwrap().json();
    assert_eq!(next[0]["id"], ids[3]);
    let stranger = client.get("456", next_path).await.unwrap();
    assert_eq!(
        (stranger.status, stranger.json()),
        (StatusCode::OK, json!([])),
        "a cursor opens no other customer's list"
    );
}
