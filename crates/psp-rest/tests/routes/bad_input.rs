//! Bad input gets a 4xx that names every fault and repeats no value; never a 5xx.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::{Answer, World, example, example_with, post_of};

const UNPROCESSABLE: StatusCode = StatusCode::UNPROCESSABLE_ENTITY;
const REQUIRED: [&str; 7] = [
    "amount",
    "card_expiration_date",
    "card_holder_name",
    "card_number",
    "card_verification_code",
    "description",
    "payment_method",
];

#[tokio::test]
async fn a_problem_is_as_the_rfc_has_it() {
    let world = World::new();
    let mut request = post_of("123", None, "{\"amount\":0}");
    request.headers_mut().insert("x-request-id", "mine-1".parse().unwrap());
    let answer = world.ask(request).await;
    answer.assert_problem(UNPROCESSABLE);
    insta::assert_snapshot!(answer.text, @r#"{"type":"urn:psp:problem:invalid-request","title":"Unprocessable Entity","status":422,"detail":"the request has faults; `errors` names each of them","instance":"urn:psp:request:mine-1","errors":[{"path":"description","message":"is required"},{"path":"amount","message":"must be an integer or a string of digits, from 1 to 1000000000000"},{"path":"payment_method","message":"is required"},{"path":"card_number","message":"is required"},{"path":"card_holder_name","message":"is required"},{"path":"card_expiration_date","message":"is required"},{"path":"card_verification_code","message":"is required"}]}"#);
}

#[tokio::test]
async fn every_fault_of_headers_and_body_is_told_at_once() {
    let world = World::new();
    let all_wrong = json!({
        "description": 1, "amount": 1.5, "currency": "XXX", "payment_method": [], "card_number": "4111111111111112",
        "card_holder_name": {}, "card_expiration_date": "13/25", "card_verification_code": 123, "installments": 13
    });
    let answer = world.ask(post_of("", Some("two words"), all_wrong.to_string())).await;
    answer.assert_problem(UNPROCESSABLE);
    let mut expected = REQUIRED.map(str::to_owned).to_vec();
    expected.extend(["currency", "installments", "x-customer-id", "idempotency-key"].map(str::to_owned));
    expected.sort();
    assert_eq!(answer.faults(), expected);
    let no_object = world.ask(post_of("", Some(""), "[]")).await;
    assert_eq!(no_object.faults(), ["", "idempotency-key", "x-customer-id"]);
    let malformed = world.ask(post_of("", None, "{")).await;
    malformed.assert_problem(StatusCode::BAD_REQUEST);
    assert_eq!(malformed.faults(), ["x-customer-id"]);
}

#[tokio::test]
async fn rules_across_fields_are_told_together_with_faults_of_others() {
    let world = World::new();
    let fields =
        json!({ "payment_method": "debit_card", "installments": 3, "amount": 2, "card_verification_code": "x" });
    let answer = world.post(example_with(fields).to_string()).await;
    assert_eq!(answer.faults(), ["amount", "card_verification_code", "installments"]);
    let fields = json!({ "description": "card 4111-1111-1111-1111", "currency": "nope" });
    let answer = world.post(example_with(fields).to_string()).await;
    assert_eq!(answer.faults(), ["card_number", "currency"]);
}

#[tokio::test]
async fn rejected_values_are_not_repeated() {
    let world = World::new();
    for field in REQUIRED.into_iter().chain(["currency", "installments"]) {
        for wrong in [json!("rejected-7351"), json!({ "rejected-7351": 7351 }), json!(["rejected-7351"]), json!(-7351)]
        {
            let answer = world.post(example_with(json!({ field: wrong })).to_string()).await;
            let accepts = wrong.is_string() && ["description", "card_holder_name"].contains(&field);
            assert!(accepts || !without_id(&answer).contains("7351"), "{}", answer.text);
        }
    }
    let answer = world.get("/transactions?page=rejected-7351&limit=-7351&cursor=rejected-7351").await;
    assert_eq!(answer.faults(), ["cursor", "cursor", "limit", "page"]);
    assert!(!without_id(&answer).contains("7351"), "{}", answer.text);
}

/// The answer without its request id, which may hold any digits.
fn without_id(answer: &Answer) -> String {
    answer.text.replace(answer.headers["x-request-id"].to_str().unwrap(), "")
}

#[tokio::test]
async fn what_is_no_object_is_no_transaction() {
    let world = World::new();
    // An array of the right values in the right order is still no object.
    let array = json!(["Lightsaber", 2500, null, "credit_card", "4111111111111111", "Luke", "10/25", "123", null]);
    for body in ["null", "1", "\"text\"", "[]", " \n[[]]", "{\"amount\":1,\"amount\":2}", &array.to_string()] {
        let answer = world.post(body.to_owned()).await;
        answer.assert_problem(UNPROCESSABLE);
        assert_eq!(answer.faults(), [""], "{body}");
    }
    for body in ["", " ", "{", "[", "[1,]", "{\"amount\":}", "\u{0}", "{}{}", "nul", "{'amount':1}"] {
        world.post(body.to_owned()).await.assert_problem(StatusCode::BAD_REQUEST);
    }
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = format!("{}1{}", open.repeat(9_000), close.repeat(9_000));
        assert!(world.post(deep).await.status.is_client_error());
    }
    assert_eq!(world.get("/transactions").await.text, "[]", "nothing was written");
}

#[tokio::test]
async fn bad_customers_are_refused_on_every_route() {
    let world = World::new();
    let id = "01a1fc08-5b46-770d-81ce-6b6e95afa0a3";
    let (transaction, payable) = (format!("/transactions/{id}"), format!("/payables/{id}"));
    let long = "x".repeat(10_000);
    for path in ["/transactions", "/payables", "/balance", &transaction, &payable] {
        for customer in ["", "a b", "ünïcode", &long] {
            let request = Request::get(path).header("x-customer-id", customer.as_bytes());
            let answer = world.ask(request.body(Body::empty()).unwrap()).await;
            answer.assert_problem(UNPROCESSABLE);
            assert_eq!(answer.faults(), ["x-customer-id"], "{path}");
        }
        let absent = world.ask(Request::get(path).body(Body::empty()).unwrap()).await;
        assert_eq!((absent.status, absent.faults()), (UNPROCESSABLE, vec!["x-customer-id".to_owned()]));
        let twice = Request::get(path).header("x-customer-id", "1").header("x-customer-id", "2");
        assert_eq!(world.ask(twice.body(Body::empty()).unwrap()).await.status, UNPROCESSABLE);
    }
}

#[tokio::test]
async fn paths_methods_types_and_sizes_have_their_status() {
    let world = World::new();
    for path in ["/", "/nowhere", "/transactions/", "/transactions/1", "/payables/%ff", "/docs/nowhere"] {
        world.get(path).await.assert_problem(StatusCode::NOT_FOUND);
    }
    for (method, path) in
        [(Method::DELETE, "/transactions"), (Method::POST, "/balance"), (Method::PUT, "/openapi.json")]
    {
        let answer = world.ask(Request::builder().method(&method).uri(path).body(Body::empty()).unwrap()).await;
        answer.assert_problem(StatusCode::METHOD_NOT_ALLOWED);
        assert!(answer.headers["allow"].to_str().unwrap().contains("GET"), "{method} {path}");
    }
    for content_type in ["", "text/plain", "application/jsonp", "application/x-www-form-urlencoded"] {
        let mut request = post_of("123", None, example().to_string());
        request.headers_mut().insert("content-type", content_type.parse().unwrap());
        world.ask(request).await.assert_problem(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    let largest = format!("{}{}", example(), " ".repeat(psp_rest::MAX_BODY_BYTES - example().to_string().len()));
    assert_eq!(world.post(largest.clone()).await.status, StatusCode::CREATED);
    world.post(largest + " ").await.assert_problem(StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn request_ids_are_taken_over_where_they_are_short_visible_ascii() {
    let world = World::new();
    let long = "x".repeat(129);
    for (given, kept) in [("mine-1", true), (&long[1..], true), (&long, false), ("two words", false), ("", false)] {
        let request = Request::get("/nowhere").header("x-request-id", given).body(Body::empty()).unwrap();
        let answer = world.ask(request).await;
        let id = answer.headers["x-request-id"].to_str().unwrap();
        assert_eq!(id == given, kept, "{given}");
        assert_eq!(answer.json()["instance"], format!("urn:psp:request:{id}"));
    }
    let answer = world.get("/balance").await;
    assert!(
        uuid::Uuid::try_parse(answer.headers["x-request-id"].to_str().unwrap()).is_ok(),
        "a good answer has one, too"
    );
    assert_eq!(
        (&answer.headers["cache-control"], &answer.headers["x-content-type-options"]),
        (&"no-store".parse().unwrap(), &"nosniff".parse().unwrap())
    );
}

#[tokio::test]
async fn an_expired_card_is_refused_where_configured() {
    let world = World::with(|_, options| options.refuse_expired_cards = true);
    assert_eq!(world.post(example().to_string()).await.faults(), ["card_expiration_date"]);
    let valid = example_with(json!({ "card_expiration_date": "01/2026" }));
    assert_eq!(world.post(valid.to_string()).await.status, StatusCode::CREATED, "good through the month");
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".*".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(".*", inner, 0..4).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_body_is_a_server_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let answer = run(async { World::new().post(bytes).await });
        prop_assert!(answer.status.is_client_error(), "{}", answer.status);
    }

    #[test]
    fn no_json_is_a_server_error(body in any_json()) {
        let answer = run(async { World::new().post(body.to_string()).await });
        prop_assert_eq!(answer.status, UNPROCESSABLE);
    }

    #[test]
    fn no_value_of_any_field_is_a_server_error(
        values in prop::collection::vec((0_usize..9, any_json()), 1..4),
    ) {
        let fields = ["currency", "installments"];
        let fields: Vec<_> = REQUIRED.into_iter().chain(fields).collect();
        let mut body = example();
        for (field, value) in values {
            body[fields[field]] = value;
        }
        let answer = run(async { World::new().post(body.to_string()).await });
        prop_assert!(answer.status == 201 || answer.status == 422, "{}: {}", answer.status, answer.text);
    }

    #[test]
    fn no_header_or_query_is_a_server_error(
        customer in prop::collection::vec(32_u8..=255, 0..40),
        key in prop::collection::vec(32_u8..=255, 0..40),
        query in "[!-~]{0,40}",
    ) {
        let allowed = |bytes: Vec<u8>| bytes.into_iter().filter(|b| *b != 127).collect::<Vec<_>>();
        let (customer, key) = (allowed(customer), allowed(key));
        let uri = format!("/transactions?{query}").parse::<axum::http::Uri>();
        prop_assume!(uri.is_ok());
        let uri = uri.unwrap();
        for method in [Method::GET, Method::POST] {
            let request = Request::builder().method(method).uri(uri.clone())
                .header("x-customer-id", customer.clone())
                .header("idempotency-key", key.clone())
                .header("content-type", "application/json")
                .body(Body::from(example().to_string())).unwrap();
            let answer = run(async { World::new().ask(request).await });
            prop_assert!(!answer.status.is_server_error(), "{}: {}", answer.status, answer.text);
        }
    }
}
