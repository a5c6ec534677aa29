//! Deposits and withdrawals, in JSON and XML.

use axum::http::StatusCode;
use psp_domain::ports::Store;
use psp_testkit::fixtures;
use serde_json::{Value, json};

use crate::support::{Answer, World};

const UNPROCESSABLE: StatusCode = StatusCode::UNPROCESSABLE_ENTITY;
const XML: (&str, &str) = ("content-type", "application/xml");
const DEPOSIT: &str = "<deposit><user_id>123</user_id><amount>100.50</amount><currency>USD</currency></deposit>";

fn deposit() -> Value {
    json!({ "user_id": 123, "amount": "100.50", "currency": "USD" })
}

fn with(fields: Value) -> Value {
    let mut body = deposit();
    let Value::Object(fields) = fields else { panic!("fields are an object") };
    body.as_object_mut().unwrap().extend(fields);
    body
}

fn id(answer: &Answer) -> String {
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
    answer.json()["transaction_id"].as_str().unwrap().to_owned()
}

/// The text of the first element of that name.
fn element<'x>(xml: &'x str, name: &str) -> &'x str {
    xml.split_once(&format!("<{name}>")).unwrap().1.split_once(&format!("</{name}>")).unwrap().0
}

/// The paths of the faults of a problem in XML, in order of the alphabet.
fn faults(answer: &Answer) -> Vec<&str> {
    assert_eq!(answer.headers["content-type"], "application/problem+xml", "{}", answer.text);
    let mut paths: Vec<_> = answer.text.split("<i>").skip(1).map(|fault| element_or_empty(fault, "path")).collect();
    paths.sort_unstable();
    paths
}

fn element_or_empty<'x>(xml: &'x str, name: &str) -> &'x str {
    if xml.starts_with(&format!("<{name}/>")) { "" } else { element(xml, name) }
}

#[tokio::test]
async fn deposits_and_withdrawals_are_as_printed_in_the_documentation() {
    let world = World::new();
    let answer = world.post_to("/deposit", &deposit()).await;
    insta::assert_snapshot!(answer.hidden(), @r#"{"transaction_id":"[id]","status":"pending"}"#);
    let found = world.get_with(&format!("/deposits/{}", id(&answer)), &[]).await;
    assert_eq!(found.headers["content-type"], "application/json");
    insta::assert_snapshot!(found.hidden(), @r#"{"transaction_id":"[id]","user_id":"123","amount":"100.50","currency":"USD","status":"pending","created_at":"2026-01-31T12:00:00.000Z","updated_at":"2026-01-31T12:00:00.000Z"}"#);
    let withdrawal = json!({ "user_id": 123, "amount": "50.25", "currency": "USD" });
    let answer = world.post_to("/withdrawal", &withdrawal).await;
    let found = world.get_with(&format!("/withdrawals/{}", id(&answer)), &[]).await;
    insta::assert_snapshot!(found.hidden(), @r#"{"transaction_id":"[id]","user_id":"123","amount":"50.25","currency":"USD","status":"pending","created_at":"2026-01-31T12:00:00.000Z","updated_at":"2026-01-31T12:00:00.000Z"}"#);
}

#[tokio::test]
async fn the_same_in_xml() {
    let world = World::new();
    let answer = world.send("/deposit", &[XML], DEPOSIT).await;
    assert_eq!(
        (answer.status, &answer.headers["content-type"]),
        (StatusCode::ACCEPTED, &"application/xml".parse().unwrap())
    );
    insta::assert_snapshot!(answer.hidden(), @r#"
    <?xml version="1.0" encoding="UTF-8"?>
    <deposit><transaction_id>[id]</transaction_id><status>pending</status></deposit>
    "#);
    let path = format!("/deposits/{}", element(&answer.text, "transaction_id"));
    let found = world.get_with(&path, &[("accept", "text/xml")]).await;
    assert_eq!((found.status, &found.headers["content-type"]), (StatusCode::OK, &"text/xml".parse().unwrap()));
    insta::assert_snapshot!(found.hidden(), @r#"
    <?xml version="1.0" encoding="UTF-8"?>
    <deposit><transaction_id>[id]</transaction_id><user_id>123</user_id><amount>100.50</amount><currency>USD</currency><status>pending</status><created_at>2026-01-31T12:00:00.000Z</created_at><updated_at>2026-01-31T12:00:00.000Z</updated_at></deposit>
    "#);
    let withdrawal = DEPOSIT.replace("deposit", "withdrawal");
    let answer = world.send("/withdrawal", &[("content-type", "text/xml; charset=utf-8")], withdrawal).await;
    assert_eq!(answer.headers["content-type"], "text/xml");
    assert!(answer.text.contains("<withdrawal><transaction_id>"), "{}", answer.text);
}

#[tokio::test]
async fn both_formats_give_the_same_transaction() {
    let world = World::new();
    let body = json!({
        "user_id": "user-1", "amount": "100.50", "currency": "USD", "country": "US", "method": "wallet", "gateway": "scripted"
    });
    let xml = "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<!-- one --><deposit xmlns=\"urn:x\">\r\n\
               <user_id a='1'>user-1</user_id>\n<amount> 100.<!-- two -->50\t</amount><currency><![CDATA[USD]]></currency>\
               <country>&#85;S</country><method>wal&#x6c;et</method><gateway>scripted</gateway><new><er/></new></deposit>\n";
    let headers = |content_type| [("content-type", content_type), ("idempotency-key", "key-1")];
    let first = world.send("/deposit", &headers("application/json"), body.to_string()).await;
    assert_eq!(first.status, StatusCode::ACCEPTED, "{}", first.text);
    let again = world.send("/deposit", &headers("application/xml"), xml).await;
    assert_eq!(again.headers["idempotency-replayed"], "true", "{}", again.text);
    assert_eq!(
        again.headers["content-type"], "application/xml",
        "the first answer, in the format of the second request"
    );
    assert_eq!(element(&again.text, "transaction_id"), id(&first));
}

#[tokio::test]
async fn amounts_keep_every_digit_and_users_may_be_numbers() {
    let world = World::new();
    for (body, amount) in [
        (r#"{"user_id":"a","amount":100.50,"currency":"USD"}"#, "100.50"),
        (r#"{"user_id":"a","amount":"100.5","currency":"USD"}"#, "100.50"),
        (r#"{"user_id":"a","amount":100,"currency":"USD"}"#, "100.00"),
        (r#"{"user_id":"a","amount":9007199254.74,"currency":"USD"}"#, "9007199254.74"),
        (r#"{"user_id":"a","amount":0.1,"currency":"USD"}"#, "0.10"),
        (r#"{"user_id":"a","amount":"100","currency":"JPY"}"#, "100"),
        (r#"{"user_id":"a","amount":"1.234","currency":"KWD"}"#, "1.234"),
    ] {
        let answer = world.send("/withdrawal", &[("content-type", "application/json")], body).await;
        let found = world.get_with(&format!("/withdrawals/{}", id(&answer)), &[]).await;
        assert_eq!(found.json()["amount"], amount, "{body}");
    }
    for (user, shown) in [(json!(123), "123"), (json!("123"), "123"), (json!("u-1"), "u-1"), (json!(0), "0")] {
        let answer = world.post_to("/deposit", &with(json!({ "user_id": user }))).await;
        let found = world.get_with(&format!("/deposits/{}", id(&answer)), &[]).await;
        assert_eq!(found.json()["user_id"], shown);
    }
    for amount in [
        json!("100.505"),
        json!(100.505),
        json!("100.500"),
        json!("0"),
        json!("-1"),
        json!(-1),
        json!("1e2"),
        json!(1e30),
        json!("1,5"),
        json!(""),
        json!(true),
        json!([]),
        json!("10000000000.01"),
        json!("1".repeat(60_000)),
    ] {
        let answer = world.post_to("/deposit", &with(json!({ "amount": amount }))).await;
        answer.assert_problem(UNPROCESSABLE);
        assert_eq!(answer.faults(), ["amount"]);
    }
    for user in [json!(1.5), json!(-1), json!(""), json!("two words"), json!({}), json!("x".repeat(129))] {
        assert_eq!(world.post_to("/deposit", &with(json!({ "user_id": user }))).await.faults(), ["user_id"], "{user}");
    }
}

#[tokio::test]
async fn every_state_has_its_word_and_a_failure_its_reason() {
    let world = World::new();
    for (path, list) in [("/deposit", "/deposits"), ("/withdrawal", "/withdrawals")] {
        let mut found = Vec::new();
        for end in [None, Some(fixtures::approve as fn(&_, _) -> _), Some(fixtures::decline), Some(fixtures::fail)] {
            let id = id(&world.post_to(path, &deposit()).await);
            if let Some(end) = end {
                let loaded = world.loaded(&id).await;
                world.memory.apply(end(&loaded, world.now())).await.unwrap();
            }
            let body = world.get_with(&format!("{list}/{id}"), &[]).await.json();
            found.push((body["status"].clone(), body.get("reason").cloned()));
        }
        let expected = [
            (json!("pending"), None),
            (json!("completed"), None),
            (json!("failed"), Some(json!("do_not_honor"))),
            (json!("failed"), Some(json!("gateway_unavailable"))),
        ];
        assert_eq!(found, expected, "{path}");
    }
    assert_eq!(world.get_as("default", "/payables").await.text, "[]", "they owe the customer nothing");
    assert_eq!(world.get_as("default", "/transactions").await.text, "[]");
}

#[tokio::test]
async fn a_transfer_is_found_by_its_customer_and_under_its_kind_only() {
    let world = World::new();
    let deposit_id = id(&world.post_to("/deposit", &deposit()).await);
    let withdrawal_id = id(&world.post_to("/withdrawal", &deposit()).await);
    for path in [
        format!("/withdrawals/{deposit_id}"),
        format!("/deposits/{withdrawal_id}"),
        format!("/transactions/{deposit_id}"),
        format!("/api/v1/payments/{deposit_id}"),
        "/deposits/1".to_owned(),
    ] {
        world.get_as("default", &path).await.assert_problem(StatusCode::NOT_FOUND);
    }
    let found = world.get_as("123", &format!("/deposits/{deposit_id}")).await;
    found.assert_problem(StatusCode::NOT_FOUND);
    let missing = world.get_with("/deposits/1", &[("accept", "application/xml")]).await;
    assert_eq!((missing.status, faults(&missing)), (StatusCode::NOT_FOUND, vec![]));
}

#[tokio::test]
async fn every_fault_is_told_at_once_in_both_formats() {
    let world = World::new();
    let headers = |content_type| [("content-type", content_type), ("x-customer-id", ""), ("idempotency-key", "a b")];
    let all = ["amount", "country", "currency", "gateway", "idempotency-key", "method", "user_id", "x-customer-id"];
    let wrong = json!({
        "user_id": [], "amount": {}, "currency": 1, "country": "usa", "method": "credit_card", "gateway": "unknown"
    });
    assert_eq!(world.send("/deposit", &headers("application/json"), wrong.to_string()).await.faults(), all);
    let wrong = "<deposit><user_id> </user_id><amount><b>1</b></amount><currency/><country>usa</country>\
                 <method>credit_card</method><gateway>unknown</gateway></deposit>";
    let answer = world.send("/deposit", &headers("application/xml"), wrong).await;
    assert_eq!((answer.status, faults(&answer)), (UNPROCESSABLE, all.to_vec()));
    assert_eq!(faults(&world.send("/deposit", &[XML], "<deposit/>").await), ["amount", "currency", "user_id"]);
    let twice = DEPOSIT.replace("<user_id>", "<amount>1</amount><amount>2</amount><user_id>");
    assert_eq!(faults(&world.send("/deposit", &[XML], twice).await), ["amount"], "once, however often it comes");
    let root = world.send("/withdrawal", &[XML], DEPOSIT.replace("USD", "XXX")).await;
    assert_eq!(faults(&root), ["", "currency"], "a deposit is no withdrawal");
    let text = world.send("/deposit", &[XML], DEPOSIT.replace("<user_id>", "text<user_id>")).await;
    assert_eq!(faults(&text), [""]);
    let malformed = world.send("/deposit", &headers("application/xml"), "<deposit>").await;
    assert_eq!(
        (malformed.status, faults(&malformed)),
        (StatusCode::BAD_REQUEST, vec!["idempotency-key", "x-customer-id"])
    );
    assert_eq!(world.post_to("/deposit", &json!([])).await.faults(), [""]);
}

#[tokio::test]
async fn an_amount_that_no_currency_has_is_told_beside_the_currency() {
    let world = World::new();
    for amount in ["0", "0.00", "-1", "1000000000001", &"9".repeat(28), &"1".repeat(29), "", "1e2"] {
        for currency in [json!("XXX"), json!(null), json!(1)] {
            let answer = world.post_to("/deposit", &with(json!({ "amount": amount, "currency": currency }))).await;
            assert_eq!(answer.faults(), ["amount", "currency"], "{amount} {currency}");
        }
        let missing = json!({ "user_id": 1, "amount": amount });
        assert_eq!(world.post_to("/withdrawal", &missing).await.faults(), ["amount", "currency"], "{amount}");
    }
    // Whether it fits depends on the currency: nothing is wrong with it yet.
    for amount in ["1.2345", "1000000000000"] {
        let answer = world.post_to("/deposit", &with(json!({ "amount": amount, "currency": "XXX" }))).await;
        assert_eq!(answer.faults(), ["currency"], "{amount}");
    }
}

#[tokio::test]
async fn a_problem_in_xml_is_as_the_rfc_has_it() {
    let world = World::new();
    let headers = [XML, ("x-request-id", "<mine>&1")];
    let answer = world.send("/deposit", &headers, "<deposit><amount>x</amount></deposit>").await;
    insta::assert_snapshot!(answer.text, @r#"
    <?xml version="1.0" encoding="UTF-8"?>
    <problem xmlns="urn:ietf:rfc:7807"><type>urn:psp:problem:invalid-request</type><title>Unprocessable Entity</title><status>422</status><detail>the request has faults; `errors` names each of them</detail><instance>urn:psp:request:&lt;mine&gt;&amp;1</instance><errors><i><path>user_id</path><message>is required</message></i><i><path>amount</path><message>must be a decimal number of major units, such as "100.50", without sign or exponent</message></i><i><path>currency</path><message>is required</message></i></errors></problem>
    "#);
}

#[tokio::test]
async fn accept_wins_over_the_format_of_the_body() {
    let world = World::new();
    let json = ("content-type", "application/json");
    for (sent, accept, answered) in [
        (json, "application/xml", "application/xml"),
        (json, "text/xml", "text/xml"),
        (XML, "application/json", "application/json"),
        (XML, "*/*", "application/xml"),
        (XML, "text/html, application/json;q=0.5, application/xml;q=0.4", "application/json"),
        (json, "text/html, */*;q=0.1", "application/json"),
    ] {
        let body = if sent == XML { DEPOSIT.to_owned() } else { deposit().to_string() };
        let answer = world.send("/deposit", &[sent, ("accept", accept)], body).await;
        assert_eq!(answer.headers["content-type"], answered, "{sent:?} {accept}");
        let wrong = if sent == XML { "<deposit/>" } else { "{}" };
        let problem = world.send("/deposit", &[sent, ("accept", accept)], wrong).await;
        let kind = if answered.ends_with("json") { "application/problem+json" } else { "application/problem+xml" };
        assert_eq!(
            (problem.status, problem.headers["content-type"].to_str().unwrap()),
            (UNPROCESSABLE, kind),
            "{accept}"
        );
    }
    let before = world.memory.events().len();
    for (sent, kind) in [(json, "application/problem+json"), (XML, "application/problem+xml")] {
        let body = if sent == XML { DEPOSIT.to_owned() } else { deposit().to_string() };
        let answer = world.send("/deposit", &[sent, ("accept", "text/html")], body).await;
        assert_eq!(
            (answer.status, answer.headers["content-type"].to_str().unwrap()),
            (StatusCode::NOT_ACCEPTABLE, kind)
        );
    }
    assert_eq!(world.memory.events().len(), before, "nothing was written");
    let found = world.get_with("/deposits/1", &[("accept", "image/png")]).await;
    found.assert_problem(StatusCode::NOT_ACCEPTABLE);
    for content_type in
        ["", "text/plain", "application/xml; charset=iso-8859-1", "text/xml;charset=utf-16", "application/soap+xml"]
    {
        let answer = world.send("/deposit", &[("content-type", content_type)], DEPOSIT).await;
        answer.assert_problem(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    let answer = world.send("/api/v1/payments", &[XML], DEPOSIT).await;
    answer.assert_problem(StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn keys_of_deposits_and_withdrawals_give_the_first_answer() {
    let world = World::new();
    let headers = [("content-type", "application/json"), ("idempotency-key", "key-1")];
    for path in ["/deposit", "/withdrawal"] {
        let world = World::new();
        let first = world.send(path, &headers, deposit().to_string()).await;
        let same = with(json!({ "user_id": "123", "amount": 100.5, "method": "bank_transfer" }));
        let again = world.send(path, &headers, same.to_string()).await;
        assert_eq!((again.status, &again.text), (StatusCode::ACCEPTED, &first.text));
        assert_eq!(again.headers["idempotency-replayed"], "true");
        for other in [json!({ "user_id": 124 }), json!({ "amount": "100.51" }), json!({ "country": "US" })] {
            let answer = world.send(path, &headers, with(other).to_string()).await;
            assert_eq!((answer.status, answer.faults()), (UNPROCESSABLE, vec!["idempotency-key".to_owned()]));
        }
    }
    world.send("/deposit", &headers, deposit().to_string()).await;
    let other_kind = world.send("/withdrawal", &headers, deposit().to_string()).await;
    assert_eq!(other_kind.faults(), ["idempotency-key"]);
}
