//! The contract's examples of payments, deposits, withdrawals and callbacks, as printed, against a freshly started server with
//! the default settings; and their errors.

use http_body_util::Full;
use hyper::{Method, Request};
use serde_json::{Value, json};

use crate::acquirers::{post, until};
use crate::support::{Answer, Api, Place};

const JSON: &str = "application/json";
const XML: &str = "application/xml";
const TEXT_XML: &str = "text/xml";
const PAYMENTS: &str = "/api/v1/payments";
const PAYMENT: &str = r#"{ "order_id": "order_123", "amount": 50000, "currency": "INR", "method": "upi" }"#;
const DEPOSIT: &str = r#"{ "user_id": 123, "amount": "100.50", "currency": "USD" }"#;
const WITHDRAWAL: &str = r#"{ "user_id": 123, "amount": "50.25", "currency": "USD" }"#;
const CALLBACK: &str = r#"{ "gateway_txn_id": "gw-tx-12345", "status": "completed" }"#;
const DEPOSIT_XML: &str = "<deposit><user_id>123</user_id><amount>100.50</amount><currency>USD</currency></deposit>";
const WITHDRAWAL_XML: &str =
    "<withdrawal><user_id>123</user_id><amount>50.25</amount><currency>USD</currency></withdrawal>";
const CALLBACK_XML: &str =
    "<callback><gateway_txn_id>gw-tx-12345</gateway_txn_id><status>completed</status></callback>";
const NOBODY: &str = "01a1fc23-adfc-74b8-ab63-7bfa62344961";

/// Asks without naming a customer.
pub(crate) async fn ask(api: &Api, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut request = Request::builder().method(method).uri(path).header("host", "psp");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    api.client().await.send(request.body(Full::from(body.to_owned())).unwrap()).await.unwrap()
}

async fn get(api: &Api, path: &str, accept: &str) -> Answer {
    ask(api, Method::GET, path, &[("accept", accept)], "").await
}

fn content_type(answer: &Answer) -> &str {
    answer.headers["content-type"].to_str().unwrap()
}

/// The texts of all elements of that name, in order.
fn elements<'x>(xml: &'x str, name: &str) -> Vec<&'x str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    xml.split(&open).skip(1).map(|rest| rest.split(&close).next().unwrap()).collect()
}

/// A whole document with that root.
fn document(root: &str, inside: &str) -> String {
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{root}>{inside}</{root}>")
}

/// The id that an answer of either format names.
fn transaction_id(answer: &Answer) -> String {
    assert_eq!(answer.status, 202, "{}", answer.text);
    if content_type(answer) == JSON {
        answer.json()["transaction_id"].as_str().unwrap().to_owned()
    } else {
        elements(&answer.text, "transaction_id")[0].to_owned()
    }
}

/// Sees that an answer is a problem of that status, in that format, which names exactly those faults.
fn assert_problem(answer: &Answer, status: u16, format: &str, faults: &[&str]) {
    assert_eq!(answer.status, status, "{}", answer.text);
    let request = answer.headers["x-request-id"].to_str().unwrap();
    let instance = format!("urn:psp:request:{request}");
    let mut named = if format == JSON {
        assert_eq!(content_type(answer), "application/problem+json", "{}", answer.text);
        let problem = answer.json();
        assert_eq!((&problem["status"], &problem["instance"]), (&json!(status), &json!(instance)), "{problem}");
        assert!(["type", "title", "detail"].iter().all(|name| problem[name].is_string()), "{problem}");
        answer.faults()
    } else {
        assert_eq!(content_type(answer), "application/problem+xml", "{}", answer.text);
        assert!(answer.text.contains("<problem xmlns=\"urn:ietf:rfc:7807\"><type>"), "{}", answer.text);
        assert_eq!(elements(&answer.text, "status"), [status.to_string()]);
        assert_eq!(elements(&answer.text, "instance"), [instance]);
        elements(&answer.text, "path").into_iter().map(str::to_owned).collect()
    };
    named.sort();
    assert_eq!(named, faults, "{}", answer.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_is_taken_as_printed_and_succeeds() {
    let place = Place::new(&[]);
    let psp = place.serve().await;
    let answer = post(&psp, PAYMENTS, &[], PAYMENT).await;
    assert_eq!((answer.status.as_u16(), content_type(&answer)), (202, JSON), "{}", answer.text);
    let id = &answer.json()["id"];
    let printed = format!(
        "{{\"message\":\"Payment initiated successfully\",\"status\":\"PENDING\",\"id\":{id},\"order_id\":\"order_123\"}}"
    );
    assert_eq!(answer.text, printed);
    let path = format!("{PAYMENTS}/{}", id.as_str().unwrap());
    let seen = until(&psp, &path, |payment| payment["status"] != "PENDING").await;
    let expected = json!({
        "id": id, "order_id": "order_123", "amount": 50000, "currency": "INR", "method": "upi", "status": "SUCCESS",
        "description": "", "gateway": "sandbox", "installments": 1,
        "created_at": seen["created_at"], "updated_at": seen["updated_at"]
    });
    assert_eq!(seen, expected);
    assert_eq!(get(&psp, PAYMENTS, JSON).await.json(), json!([expected]));
    // Without the header it is the configured default customer's, and nobody else's.
    assert_eq!(psp.get("default", &path).await.json(), expected);
    assert_eq!(psp.get("123", &path).await.status, 404);
    assert_eq!(psp.get("123", PAYMENTS).await.text, "[]");
}

#[tokio::test(flavor = "multi_thread")]
async fn deposits_and_withdrawals_in_json_are_as_printed_and_end_by_their_callbacks() {
    let place = Place::new(&[]);
    let psp = place.serve().await;
    for (to, list, body, amount) in
        [("/deposit", "/deposits", DEPOSIT, "100.50"), ("/withdrawal", "/withdrawals", WITHDRAWAL, "50.25")]
    {
        for (status, ends, reason) in [
            ("completed", "completed", None),
            ("failed", "failed", Some("gateway_failed")),
            ("rejected", "failed", Some("rejected")),
        ] {
            let answer = post(&psp, to, &[], body).await;
            let id = transaction_id(&answer);
            assert_eq!(answer.text, format!("{{\"transaction_id\":\"{id}\",\"status\":\"pending\"}}"));
            let path = format!("{list}/{id}");
            let pending = get(&psp, &path, JSON).await.json();
            assert_eq!((&pending["status"], &pending["amount"]), (&json!("pending"), &json!(amount)), "{pending}");
            let callback = CALLBACK.replace("completed", status);
            let taken = post(&psp, &format!("/callback/{id}"), &[], &callback).await;
            assert_eq!(taken.status, 202, "{}", taken.text);
            assert_eq!(taken.text, format!("{{\"transaction_id\":\"{id}\",\"status\":\"accepted\"}}"));
            let ended = until(&psp, &path, |transfer| transfer["status"] != "pending").await;
            let mut expected = json!({
                "transaction_id": id, "user_id": "123", "amount": amount, "currency": "USD", "status": ends,
                "created_at": pending["created_at"], "updated_at": ended["updated_at"]
            });
            if let Some(reason) = reason {
                expected["reason"] = json!(reason);
            }
            assert_eq!(ended, expected);
        }
    }
    let with_country = json!({ "user_id": 123, "amount": "100.50", "currency": "USD", "country": "US" });
    transaction_id(&post(&psp, "/deposit", &[], &with_country.to_string()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_in_xml_under_both_of_its_names() {
    let place = Place::new(&[]);
    let psp = place.serve().await;
    for format in [XML, TEXT_XML] {
        for (root, body, amount) in [("deposit", DEPOSIT_XML, "100.50"), ("withdrawal", WITHDRAWAL_XML, "50.25")] {
            let answer = post(&psp, &format!("/{root}"), &[("content-type", format)], body).await;
            assert_eq!(content_type(&answer), format, "{}", answer.text);
            let id = transaction_id(&answer);
            let inside = format!("<transaction_id>{id}</transaction_id><status>pending</status>");
            assert_eq!(answer.text, document(root, &inside));
            let path = format!("/callback/{id}");
            let taken = post(&psp, &path, &[("content-type", format)], CALLBACK_XML).await;
            assert_eq!((taken.status.as_u16(), content_type(&taken)), (202, format), "{}", taken.text);
            let inside = format!("<transaction_id>{id}</transaction_id><status>accepted</status>");
            assert_eq!(taken.text, document("callback", &inside));
            let path = format!("/{root}s/{id}");
            let ended = until(&psp, &path, |transfer| transfer["status"] == "completed").await;
            let found = get(&psp, &path, format).await;
            assert_eq!((found.status.as_u16(), content_type(&found)), (200, format), "{}", found.text);
            let time = |name: &str| ended[name].as_str().unwrap().to_owned();
            let inside = format!(
                "<transaction_id>{id}</transaction_id><user_id>123</user_id><amount>{amount}</amount>\
                 <currency>USD</currency><status>completed</status><created_at>{}</created_at>\
                 <updated_at>{}</updated_at>",
                time("created_at"),
                time("updated_at")
            );
            assert_eq!(found.text, document(root, &inside));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn accept_decides_the_format_of_the_answer() {
    let place = Place::new(&[]);
    let psp = place.serve().await;
    for (sent, body) in [(JSON, DEPOSIT), (XML, DEPOSIT_XML), (TEXT_XML, DEPOSIT_XML)] {
        for wanted in [JSON, XML, TEXT_XML] {
            let headers = [("content-type", sent), ("accept", wanted)];
            let answer = post(&psp, "/deposit", &headers, body).await;
            assert_eq!(content_type(&answer), wanted, "{sent}: {}", answer.text);
            let id = transaction_id(&answer);
            assert_eq!(content_type(&get(&psp, &format!("/deposits/{id}"), wanted).await), wanted);
            let answer = post(&psp, "/deposit", &headers, "").await;
            assert_problem(&answer, 400, wanted, &[]);
        }
        let headers = [("content-type", sent), ("accept", "text/html")];
        assert_problem(&post(&psp, "/deposit", &headers, body).await, 406, sent, &[]);
        let headers = [("content-type", sent), ("accept", "text/html, */*;q=0.1")];
        assert_eq!(content_type(&post(&psp, "/deposit", &headers, body).await), sent);
    }
    assert_problem(&get(&psp, &format!("/deposits/{NOBODY}"), "image/png").await, 406, JSON, &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_cannot_be_read_are_refused_in_their_format() {
    let place = Place::new(&[]);
    let psp = place.serve().await;
    let large = " ".repeat(64 * 1024 + 1);
    let callback = format!("/callback/{NOBODY}");
    for path in ["/deposit", "/withdrawal", &callback] {
        for (format, malformed) in
            [(JSON, "{"), (JSON, ""), (XML, "<deposit>"), (TEXT_XML, ""), (XML, "<!DOCTYPE deposit><deposit/>")]
        {
            let sent = [("content-type", format)];
            assert_problem(&post(&psp, path, &sent, malformed).await, 400, format, &[]);
            assert_problem(&post(&psp, path, &sent, &large).await, 413, format, &[]);
        }
        for unknown in ["text/plain", "application/xml; charset=iso-8859-1", "application/x-www-form-urlencoded"] {
            assert_problem(&post(&psp, path, &[("content-type", unknown)], DEPOSIT).await, 415, JSON, &[]);
            let headers = [("content-type", unknown), ("accept", XML)];
            assert_problem(&post(&psp, path, &headers, DEPOSIT).await, 415, XML, &[]);
        }
    }
    for path in [PAYMENTS, "/card_tokens"] {
        assert_problem(&post(&psp, path, &[], "{").await, 400, JSON, &[]);
        assert_problem(&post(&psp, path, &[], &large).await, 413, JSON, &[]);
        assert_problem(&post(&psp, path, &[("content-type", XML)], DEPOSIT_XML).await, 415, JSON, &[]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_is_named_at_once_in_both_formats() {
    let place = Place::new(&[]);
    let psp = place.serve().await;
    let headers = |format| [("content-type", format), ("x-customer-id", ""), ("idempotency-key", "a b")];
    let all = ["amount", "country", "currency", "gateway", "idempotency-key", "method", "user_id", "x-customer-id"];
    for root in ["deposit", "withdrawal"] {
        let path = format!("/{root}");
        let wrong = json!({
            "user_id": [], "amount": "-1", "currency": "usd", "country": "XX", "method": "cash", "gateway": "nobody"
        });
        assert_problem(&post(&psp, &path, &headers(JSON), &wrong.to_string()).await, 422, JSON, &all);
        let wrong = format!(
            "<{root}><user_id/><amount>-1</amount><currency>usd</currency><country>XX</country><method>cash</method>\
             <gateway>nobody</gateway></{root}>"
        );
        assert_problem(&post(&psp, &path, &headers(TEXT_XML), &wrong).await, 422, TEXT_XML, &all);
        let nothing = ["amount", "currency", "user_id"];
        assert_problem(&post(&psp, &path, &[], "{}").await, 422, JSON, &nothing);
        let empty = format!("<{root}/>");
        assert_problem(&post(&psp, &path, &[("content-type", XML)], &empty).await, 422, XML, &nothing);
        let digits = json!({ "user_id": 123, "amount": "1.234", "currency": "USD" }).to_string();
        assert_problem(&post(&psp, &path, &[], &digits).await, 422, JSON, &["amount"]);
    }
    let path = format!("/callback/{NOBODY}");
    let faults = ["amount", "currency", "gateway_txn_id", "status"];
    let wrong = json!({ "gateway_txn_id": "a b", "status": "DONE", "amount": "x", "currency": "usd" }).to_string();
    assert_problem(&post(&psp, &path, &[], &wrong).await, 422, JSON, &faults);
    let wrong = "<callback><gateway_txn_id>a b</gateway_txn_id><status>DONE</status><amount>x</amount>\
                 <currency>usd</currency></callback>";
    assert_problem(&post(&psp, &path, &[("content-type", XML)], wrong).await, 422, XML, &faults);
    let wrong = json!({ "order_id": "", "amount": 0, "currency": "inr", "method": "cash", "country": "XX" });
    let faults = ["amount", "country", "currency", "method", "order_id"];
    assert_problem(&post(&psp, PAYMENTS, &[], &wrong.to_string()).await, 422, JSON, &faults);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_404_and_what_a_path_does_not_take_405() {
    let place = Place::new(&[]);
    let psp = place.serve().await;
    let deposit = transaction_id(&post(&psp, "/deposit", &[], DEPOSIT).await);
    let withdrawal = transaction_id(&post(&psp, "/withdrawal", &[], WITHDRAWAL).await);
    for format in [JSON, XML, TEXT_XML] {
        for path in [
            format!("/deposits/{NOBODY}"),
            format!("/withdrawals/{NOBODY}"),
            format!("/deposits/{withdrawal}"),
            format!("/withdrawals/{deposit}"),
            "/deposits/1".to_owned(),
        ] {
            assert_problem(&get(&psp, &path, format).await, 404, format, &[]);
        }
        let body = if format == JSON { CALLBACK } else { CALLBACK_XML };
        for id in [NOBODY, "1"] {
            let answer = post(&psp, &format!("/callback/{id}"), &[("content-type", format)], body).await;
            assert_problem(&answer, 404, format, &[]);
        }
        for (method, path, allow) in [
            (Method::GET, "/deposit".to_owned(), "POST"),
            (Method::PUT, "/withdrawal".to_owned(), "POST"),
            (Method::DELETE, format!("/deposits/{deposit}"), "GET,HEAD"),
            (Method::POST, format!("/withdrawals/{withdrawal}"), "GET,HEAD"),
            (Method::GET, format!("/callback/{deposit}"), "POST"),
        ] {
            let answer = ask(&psp, method, &path, &[("accept", format)], "").await;
            assert_problem(&answer, 405, format, &[]);
            assert_eq!(answer.headers["allow"], allow, "{path}");
        }
    }
    for path in [format!("{PAYMENTS}/{NOBODY}"), format!("{PAYMENTS}/{deposit}"), "/api/v1/nothing".to_owned()] {
        assert_problem(&get(&psp, &path, JSON).await, 404, JSON, &[]);
    }
    let answer = ask(&psp, Method::DELETE, PAYMENTS, &[], "").await;
    assert_problem(&answer, 405, JSON, &[]);
    let mut allowed: Vec<_> = answer.headers["allow"].to_str().unwrap().split(',').collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["GET", "HEAD", "POST"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_ended_takes_no_other_callback() {
    let place = Place::new(&[]);
    let psp = place.serve().await;
    let id = transaction_id(&post(&psp, "/deposit", &[], DEPOSIT).await);
    let path = format!("/callback/{id}");
    assert_eq!(post(&psp, &path, &[], CALLBACK).await.status, 202);
    until(&psp, &format!("/deposits/{id}"), |deposit| deposit["status"] == "completed").await;
    let again = post(&psp, &path, &[("content-type", XML)], CALLBACK_XML).await;
    assert_eq!(again.status, 202, "the same again is known: {}", again.text);
    for (format, body) in [(JSON, CALLBACK), (XML, CALLBACK_XML), (TEXT_XML, CALLBACK_XML)] {
        let other = body.replace("completed", "failed");
        assert_problem(&post(&psp, &path, &[("content-type", format)], &other).await, 409, format, &[]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_give_the_first_answer_and_are_good_for_no_other_request() {
    let place = Place::new(&[]);
    let psp = place.serve().await;
    for (path, format, body, other) in [
        (PAYMENTS, JSON, PAYMENT, PAYMENT.replace("50000", "50001")),
        ("/deposit", JSON, DEPOSIT, DEPOSIT.replace("100.50", "100.51")),
        ("/withdrawal", XML, WITHDRAWAL_XML, WITHDRAWAL_XML.replace("50.25", "50.26")),
    ] {
        let key = format!("key-of-{}", path.rsplit('/').next().unwrap());
        let headers = [("content-type", format), ("idempotency-key", key.as_str())];
        let first = post(&psp, path, &headers, body).await;
        assert_eq!((first.status.as_u16(), first.headers.get("idempotency-replayed")), (202, None), "{}", first.text);
        let again = post(&psp, path, &headers, body).await;
        assert_eq!((again.status.as_u16(), &again.text), (202, &first.text));
        assert_eq!(again.headers["idempotency-replayed"], "true");
        assert_problem(&post(&psp, path, &headers, &other).await, 422, format, &["idempotency-key"]);
    }
    // In the other format it is the same request.
    let headers = [("content-type", XML), ("idempotency-key", "key-of-deposit")];
    let again = post(&psp, "/deposit", &headers, DEPOSIT_XML).await;
    assert_eq!((again.headers["idempotency-replayed"].to_str().unwrap(), content_type(&again)), ("true", XML));
    let rows = "SELECT id FROM transactions";
    assert_eq!(place.count(rows).await, 3);
}

async fn cancel(psp: &Api, id: &Value, headers: &[(&str, &str)]) -> Answer {
    post(psp, &format!("{PAYMENTS}/{}/cancel", id.as_str().unwrap()), headers, "").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_is_cancelled_before_its_approval_and_not_after() {
    let place = Place::new(&[]);
    let api = place.start(&["api"]).await;
    let id = post(&api, PAYMENTS, &[], PAYMENT).await.json()["id"].clone();
    let key = [("idempotency-key", "cancel-1")];
    let cancelled = cancel(&api, &id, &key).await;
    let printed = format!("{{\"id\":{id},\"status\":\"CANCELLED\",\"message\":\"Payment cancelled\"}}");
    assert_eq!((cancelled.status.as_u16(), &cancelled.text), (202, &printed));
    let again = cancel(&api, &id, &key).await;
    assert_eq!((again.headers["idempotency-replayed"].to_str().unwrap(), &again.text), ("true", &printed));
    let other = post(&api, PAYMENTS, &[], PAYMENT).await.json()["id"].clone();
    assert_problem(&cancel(&api, &other, &key).await, 422, JSON, &["idempotency-key"]);
    assert_problem(&cancel(&api, &json!(NOBODY), &[]).await, 404, JSON, &[]);
    // The worker that comes now approves the other one, and leaves this one alone.
    let _worker = place.start(&["worker"]).await;
    until(&api, &format!("{PAYMENTS}/{}", other.as_str().unwrap()), |payment| payment["status"] == "SUCCESS").await;
    assert_problem(&cancel(&api, &other, &[]).await, 409, JSON, &[]);
    let path = format!("{PAYMENTS}/{}", id.as_str().unwrap());
    assert_eq!(get(&api, &path, JSON).await.json()["status"], "CANCELLED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_pays_once_and_its_payment_is_replayed_by_its_key() {
    let place = Place::new(&[]);
    let psp = place.serve().await;
    let card = json!({
        "card_number": "4111111111111111", "card_holder_name": "Luke Skywalker", "card_expiration_date": "10/25",
        "card_verification_code": "123"
    });
    let kept = post(&psp, "/card_tokens", &[], &card.to_string()).await;
    assert_eq!(kept.status, 201, "{}", kept.text);
    let (token, expires) = (&kept.json()["card_token"], &kept.json()["expires_at"]);
    let printed = format!(
        "{{\"card_token\":{token},\"card_last_four_numbers\":\"1111\",\"card_brand\":\"visa\",\"expires_at\":{expires}}}"
    );
    assert_eq!(kept.text, printed);
    let body = json!({ "order_id": "order_124", "amount": 2500, "method": "credit_card", "card_token": token });
    let body = body.to_string();
    let key = [("idempotency-key", "token-1")];
    let first = post(&psp, PAYMENTS, &key, &body).await;
    assert_eq!((first.status.as_u16(), &first.json()["status"]), (202, &json!("PENDING")), "{}", first.text);
    let path = format!("{PAYMENTS}/{}", first.json()["id"].as_str().unwrap());
    let paid = until(&psp, &path, |payment| payment["status"] == "SUCCESS").await;
    assert_eq!((&paid["card_last_four_numbers"], &paid["card_brand"]), (&json!("1111"), &json!("visa")));
    let again = post(&psp, PAYMENTS, &key, &body).await;
    assert_eq!((again.status.as_u16(), &again.text), (202, &first.text));
    assert_eq!(again.headers["idempotency-replayed"], "true");
    for headers in [&[][..], &[("idempotency-key", "token-2")]] {
        assert_problem(&post(&psp, PAYMENTS, headers, &body).await, 422, JSON, &["card_token"]);
    }
    assert_eq!(get(&psp, PAYMENTS, JSON).await.json().as_array().unwrap().len(), 1);
    assert_problem(
        &post(&psp, "/card_tokens", &[], "{}").await,
        422,
        JSON,
        &["card_expiration_date", "card_holder_name", "card_number", "card_verification_code"],
    );
}
