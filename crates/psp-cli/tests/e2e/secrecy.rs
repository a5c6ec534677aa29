//! Card numbers and codes are nowhere in the clear.

use serde_json::json;

use crate::acquirers::post;
use crate::support::{Api, Backend, Place, example_with};

/// A number and a code that do not come about by chance.
const NUMBER: &str = "4929138265174050";
const CODE: &str = "9173";

/// What of the code could be found: as a JSON string, as a field's value, or beside its name.
fn code_in(text: &str) -> bool {
    let quoted = [format!("\"{CODE}\""), format!("\\\"{CODE}\\\""), format!("={CODE}"), format!("code {CODE}")];
    quoted.iter().any(|form| text.contains(form.as_str()))
}

async fn assert_clean(place: &Place, answers: &[String]) {
    let number_as_integer = NUMBER.parse::<u64>().unwrap().to_be_bytes();
    for (path, bytes) in place.files() {
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains(NUMBER), "the number is in {}", path.display());
        assert!(!bytes.windows(8).any(|window| window == number_as_integer), "the number is in {}", path.display());
        assert!(!code_in(&text), "the code is in {}", path.display());
    }
    // Digits are the bytes 0x30 to 0x39.
    let hex: String = NUMBER.chars().flat_map(|digit| ['3', digit]).collect();
    for row in place.dump().await {
        assert!(!row.contains(NUMBER) && !row.contains(&hex) && !code_in(&row), "{row}");
    }
    for answer in answers {
        assert!(!answer.contains(NUMBER) && !code_in(answer), "{answer}");
    }
}

/// Gives cards for tokens, and pays with every second one. What was answered.
async fn pay_by_tokens(place: &Place, psp: &Api) -> Vec<String> {
    let card = json!({
        "card_number": NUMBER, "card_holder_name": "Luke Skywalker", "card_expiration_date": "10/25",
        "card_verification_code": CODE
    });
    let mut answers = Vec::new();
    for n in 0..20 {
        let kept = post(psp, "/card_tokens", &[("x-customer-id", "tokens")], &card.to_string()).await;
        assert_eq!(kept.status, 201, "{}", kept.text);
        if n % 2 == 0 {
            let token = &kept.json()["card_token"];
            let body =
                json!({ "order_id": n.to_string(), "amount": 700, "method": "credit_card", "card_token": token });
            let paid = post(psp, "/api/v1/payments", &[("x-customer-id", "tokens")], &body.to_string()).await;
            assert_eq!(paid.status, 202, "{}", paid.text);
            answers.push(paid.text);
        }
        answers.push(kept.text);
    }
    let list = psp.until("tokens", "/api/v1/payments", |list| {
        list.as_array().unwrap().iter().all(|payment| payment["status"] == "SUCCESS")
    });
    answers.push(list.await.to_string());
    assert_eq!(place.count("SELECT 1 FROM card_tokens").await, 10, "a spent token is gone with its card");
    answers
}

#[tokio::test]
async fn neither_number_nor_code_is_in_any_file_log_metric_or_answer() {
    let environment = [("PSP_LOG", "trace"), ("PSP_SANDBOX_SLOW_MS", "60000"), ("PSP_GATEWAY_TIMEOUT_MS", "100000")];
    let place = Place::new(&environment);
    let mut psp = place.serve().await;
    let mut client = psp.client().await;
    let body = example_with(&json!({ "card_number": NUMBER, "card_verification_code": CODE }));
    let mut answers = Vec::new();
    for i in 0..200 {
        let key = format!("key-{}", i / 2);
        let answer = client.post("123", &body, Some(&key)).await.unwrap();
        assert_eq!(answer.status, 201, "{}", answer.text);
        answers.push(answer.text);
    }
    for field in ["card_number", "amount", "card_holder_name", "description", "card_expiration_date"] {
        for wrong in [json!(format!("{NUMBER}0")), json!(NUMBER), json!([NUMBER, CODE])] {
            let mut bad = body.clone();
            bad[field] = wrong;
            bad["payment_method"] = json!(CODE);
            let answer = client.post("123", &bad, None).await.unwrap();
            assert_eq!(answer.status, 422);
            answers.push(answer.text);
        }
    }
    psp.until("123", "/payables", |list| list.as_array().unwrap().len() == 100).await;
    answers.extend(pay_by_tokens(&place, &psp).await);
    let left = place.count("SELECT 1 FROM transactions WHERE sealed_card IS NOT NULL").await;
    assert_eq!(left, 0, "the sealed card is erased once authorization ended");

    // A payment that waits for its gateway: its card must be on the disk, sealed.
    client.post("slow", &example_with(&json!({ "card_number": "4000000000003220" })), None).await.unwrap();
    let sealed = place.count("SELECT 1 FROM transactions WHERE sealed_card IS NOT NULL").await;
    assert_eq!(sealed, 1);
    for (path, bytes) in place.files() {
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("4000000000003220"), "the number is in {}", path.display());
    }
    answers.push(client.get("123", "/metrics").await.unwrap().text);
    answers.push(psp.get("123", "/transactions").await.text);
    assert_clean(&place, &answers).await;
    psp.kill();
    assert_clean(&place, &[]).await;
}

#[tokio::test]
async fn a_stopped_process_leaves_no_ciphertext_of_ended_payments_in_its_file() {
    if crate::BACKEND != Backend::Sqlite {
        // On a server, dead rows stay until a vacuum: docs/operations.md.
        return;
    }
    let place = Place::new(&[]);
    let mut psp = place.serve().await;
    psp.post("123", &example_with(&json!({ "card_number": "4000000000000341" }))).await;
    let sealed: Vec<u8> = {
        use sqlx::Row;
        let rows = place.sqlite("SELECT sealed_card FROM transactions").await;
        rows[0].get(0)
    };
    assert!(sealed.len() > 80, "the card waits, sealed");
    psp.terminate();
    assert!(psp.ended().await.success());
    // With shorter delays the payment ends: no gateway answers it.
    let short = [("PSP_RETRY_BASE_MS", "1"), ("PSP_RETRY_MAX_MS", "5"), ("PSP_VISIBILITY_TIMEOUT_MS", "200")];
    let mut second = place.start_with(&["serve"], &short).await;
    let begun = std::time::Instant::now();
    while place.count("SELECT 1 FROM transactions WHERE status = 'failed'").await == 0 {
        assert!(begun.elapsed() < crate::support::PATIENCE, "the payment does not end");
        crate::support::pause().await;
    }
    second.terminate();
    assert!(second.ended().await.success());
    let database = std::fs::read(place.path().join("psp.db")).unwrap();
    // Before the last one, the tag, and long before it the wrapped key.
    for part in [&sealed[33..65], &sealed[sealed.len() - 48..sealed.len() - 16]] {
        assert!(!database.windows(32).any(|window| window == part), "ciphertext is left in a free page");
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_crash_leaves_no_core_of_a_process_that_has_cards() {
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::process::ExitStatusExt;

    let place = Place::new(&[]);
    // As much as whoever starts it may give.
    let generous = ["sh", "-c", "ulimit -S -c hard; exec \"$@\"", "sh"];
    for role in ["serve", "api", "worker"] {
        let mut psp = place.start_through(&generous, &[role]).await;
        let process = format!("/proc/{}", psp.id());
        let limits = std::fs::read_to_string(format!("{process}/limits")).unwrap();
        let limit = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
        assert_eq!(limit.split_whitespace().collect::<Vec<_>>(), ["0", "0", "bytes"], "soft and hard, {role}");
        // What cannot be dumped belongs to root, whoever runs it.
        assert_eq!(std::fs::metadata(format!("{process}/environ")).unwrap().uid(), 0, "{role}");
        psp.signal("-ABRT");
        let status = psp.ended().await;
        assert!(status.signal().is_some() && !status.core_dumped(), "{role}: {status}");
        assert!(!psp.log().contains("core dump"), "{}", psp.log());
    }
    let is_core = |path: &std::path::Path| path.file_name().unwrap().to_string_lossy().starts_with("core");
    assert!(!place.files().iter().any(|(path, _)| is_core(path)));
}
