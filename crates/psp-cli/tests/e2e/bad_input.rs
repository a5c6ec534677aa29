//! Bad input gets a clear answer that names every fault; never a 5xx, never a panic.

use http_body_util::Full;
use hyper::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Answer, Place, Process, example, example_with};

const UNPROCESSABLE: StatusCode = StatusCode::UNPROCESSABLE_ENTITY;

async fn send(psp: &Process, request: hyper::http::request::Builder, body: &str) -> Answer {
    let request = request.header("host", "psp").body(Full::from(body.to_owned())).unwrap();
    psp.client().await.send(request).await.unwrap()
}

fn post() -> hyper::http::request::Builder {
    Request::post("/transactions").header("content-type", "application/json")
}

/// A problem, as RFC 9457 has it.
fn assert_problem(answer: &Answer, status: StatusCode) {
    assert_eq!(answer.status, status, "{}", answer.text);
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    let problem = answer.json();
    assert_eq!(problem["status"], status.as_u16());
    for field in ["type", "title", "detail", "instance"] {
        assert!(problem[field].is_string(), "{field}: {}", answer.text);
    }
}

#[tokio::test]
async fn each_field_missing_wrong_or_out_of_range_is_named() {
    let place = Place::new(&[]);
    let mut psp = place.serve().await;
    let required = [
        "description",
        "amount",
        "payment_method",
        "card_number",
        "card_holder_name",
        "card_expiration_date",
        "card_verification_code",
    ];
    let mut cases: Vec<(&str, Value)> = required.iter().map(|field| (*field, Value::Null)).collect();
    for field in required.into_iter().chain(["currency", "installments"]) {
        cases.extend([json!({}), json!([]), json!(true), json!(1.5)].map(|wrong| (field, wrong)));
    }
    for (field, values) in [
        ("description", vec![json!("x".repeat(501)), json!("a\u{0}b"), json!("my card is 4111 1111 1111 1111")]),
        (
            "amount",
            vec![json!(0), json!(-1), json!("-1"), json!("1.0"), json!("1e3"), json!(""), json!(1_000_000_000_001_i64)],
        ),
        ("amount", vec![json!("99999999999999999999999"), json!("0x10"), json!(" 1"), json!("٣")]),
        ("payment_method", vec![json!("cash"), json!(""), json!("CREDIT_CARD")]),
        ("card_number", vec![json!("4111111111111112"), json!("41111111111"), json!("41111111111111111111")]),
        ("card_holder_name", vec![json!(""), json!("  "), json!("x".repeat(101)), json!("a\u{0}b")]),
        ("card_expiration_date", vec![json!("13/25"), json!("10-25"), json!("10/2"), json!("")]),
        ("card_verification_code", vec![json!("12"), json!("12345"), json!("abc")]),
        ("currency", vec![json!("XXX"), json!("brl"), json!("")]),
        ("installments", vec![json!(0), json!(13), json!("2"), json!(-1)]),
    ] {
        cases.extend(values.into_iter().map(|value| (field, value)));
    }
    let mut client = psp.client().await;
    for (field, value) in cases {
        let mut body = example();
        if value.is_null() {
            body.as_object_mut().unwrap().remove(field);
        } else {
            body[field] = value.clone();
        }
        let answer = client.post("123", &body, None).await.unwrap();
        assert_problem(&answer, UNPROCESSABLE);
        let expected = if value == "my card is 4111 1111 1111 1111" { "card_number" } else { field };
        assert_eq!(answer.faults(), [expected], "{value}");
    }
    let all = client.post("", &json!({}), Some("")).await.unwrap();
    assert_problem(&all, UNPROCESSABLE);
    let mut expected: Vec<_> = required.iter().map(|field| (*field).to_owned()).collect();
    expected.extend(["x-customer-id".into(), "idempotency-key".into()]);
    expected.sort();
    assert_eq!(all.faults(), expected);
    let debit = example_with(&json!({ "payment_method": "debit_card", "installments": 2, "amount": 1 }));
    assert_eq!(client.post("123", &debit, None).await.unwrap().faults(), ["amount", "installments"]);
    assert_eq!(psp.all("123", "/transactions").await.len(), 0, "nothing was written");
    let unknown = example_with(&json!({ "unknown": { "field": 1 } }));
    assert_eq!(psp.post("123", &unknown).await.status, StatusCode::CREATED, "unknown fields are ignored");
    assert_unharmed(&mut psp);
}

fn assert_unharmed(psp: &mut Process) {
    assert!(psp.is_running());
    let log = psp.log();
    assert!(!log.contains("panicked") && !log.contains("\"status\":5"), "{log}");
}

#[tokio::test]
async fn bad_headers_bodies_and_paths_get_their_status() {
    let place = Place::new(&[]);
    let mut psp = place.serve().await;
    let (psp_ref, body) = (&psp, example().to_string());
    assert_problem(&send(psp_ref, post(), &body).await, UNPROCESSABLE);
    for customer in ["", "a b", "ünïcode", &"x".repeat(129), &"x".repeat(10_000)] {
        let answer = send(psp_ref, post().header("x-customer-id", customer.as_bytes()), &body).await;
        assert_problem(&answer, UNPROCESSABLE);
        assert_eq!(answer.faults(), ["x-customer-id"]);
        let listed = Request::get("/payables?limit=0").header("x-customer-id", customer.as_bytes());
        assert_eq!(send(psp_ref, listed, "").await.faults(), ["limit", "x-customer-id"]);
    }
    let own = || post().header("x-customer-id", "123");
    for malformed in ["", "{", "{\"amount\":}", "\u{0}", "{\"a\":1}}", "nul"] {
        assert_problem(&send(psp_ref, own(), malformed).await, StatusCode::BAD_REQUEST);
    }
    for no_object in ["null", "1", "\"text\"", "[[]]", "{\"amount\":1,\"amount\":2}"] {
        assert_problem(&send(psp_ref, own(), no_object).await, UNPROCESSABLE);
    }
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    assert!(send(psp_ref, own(), &deep).await.status.is_client_error());
    assert_problem(&send(psp_ref, own(), &" ".repeat(100_000)).await, StatusCode::PAYLOAD_TOO_LARGE);
    for content_type in ["text/plain", "", "application/x-www-form-urlencoded"] {
        let request = Request::post("/transactions").header("content-type", content_type);
        let answer = send(psp_ref, request.header("x-customer-id", "123"), &body).await;
        assert_problem(&answer, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    let get = |path: &str| Request::get(path).header("x-customer-id", "123");
    for query in ["page=0", "limit=0", "limit=100000", "cursor=garbage", "page=-1", "page=x", "limit=", "page=1001"] {
        assert_problem(&send(psp_ref, get(&format!("/transactions?{query}")), "").await, UNPROCESSABLE);
    }
    let both = send(psp_ref, get("/payables?page=0&limit=201"), "").await;
    assert_eq!(both.faults(), ["limit", "page"]);
    assert_problem(&send(psp_ref, get("/transactions?page=1&page=2"), "").await, UNPROCESSABLE);
    assert_problem(&send(psp_ref, get("/balance?currency=XXX"), "").await, UNPROCESSABLE);
    for path in
        ["/", "/nowhere", "/transactions/1", "/transactions/01a1fc08-5b46-770d-81ce-6b6e95afa0a3", "/payables/%ff"]
    {
        assert_problem(&send(psp_ref, get(path), "").await, StatusCode::NOT_FOUND);
    }
    let wrong_method = send(psp_ref, Request::builder().method(Method::DELETE).uri("/transactions"), "").await;
    assert_problem(&wrong_method, StatusCode::METHOD_NOT_ALLOWED);
    assert!(wrong_method.headers["allow"].to_str().unwrap().contains("POST"));
    assert_unharmed(&mut psp);
}

#[tokio::test]
async fn request_ids_are_taken_over_or_made() {
    let place = Place::new(&[]);
    let psp = place.serve().await;
    let answer = send(&psp, Request::get("/nowhere").header("x-request-id", "mine-1"), "").await;
    assert_eq!(answer.headers["x-request-id"], "mine-1");
    assert_eq!(answer.json()["instance"], "urn:psp:request:mine-1");
    for bad in ["", "with blank", &"x".repeat(129)] {
        let answer = send(&psp, Request::get("/nowhere").header("x-request-id", bad), "").await;
        assert_eq!(answer.headers["x-request-id"].len(), 36, "a new one");
    }
    assert!(psp.log().contains("\"request_id\":\"mine-1\""));
}

#[tokio::test]
async fn garbage_on_the_wire_harms_nobody() {
    let place = Place::new(&[]);
    let mut psp = place.serve().await;
    let big = format!("GET / HTTP/1.1\r\nhost: x\r\nx-big: {}\r\n\r\n", "x".repeat(100_000));
    let many = format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", "a: b\r\n".repeat(1_000));
    for garbage in ["\u{0}\u{1}\u{2}\r\n\r\n", "POST /transactions HTTP/1.1\r\ncontent-length: x\r\n\r\n", &big, &many]
    {
        let mut stream = TcpStream::connect(&psp.address).await.unwrap();
        // The server may close before it has read everything; what it answered first must still arrive.
        let _ = stream.write_all(garbage.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 4"), "{answer:?}");
    }
    let mut half = TcpStream::connect(&psp.address).await.unwrap();
    half.write_all(b"POST /transactions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{").await.unwrap();
    drop(half);
    assert_eq!(psp.post("123", &example()).await.status, StatusCode::CREATED);
    assert_unharmed(&mut psp);
}
