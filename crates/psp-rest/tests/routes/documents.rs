//! The OpenAPI document and the page that shows it.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use psp_rest::openapi;
use serde_json::{Value, json};

use crate::support::{World, example, example_with};

const PATHS: [&str; 34] = [
    "/transactions",
    "/transactions/{id}",
    "/transactions/{id}/refund",
    "/transactions/{id}/refunds",
    "/api/v1/payments",
    "/api/v1/payments/{id}",
    "/api/v1/payments/{id}/cancel",
    "/card_tokens",
    "/deposit",
    "/deposits/{id}",
    "/withdrawal",
    "/withdrawals/{id}",
    "/callback/{transaction_id}",
    "/api/orders",
    "/api/orders/{id}",
    "/api/orders/{id}/cancel",
    "/api/payments",
    "/api/payments/{id}",
    "/api/payments/order/{orderId}",
    "/api/payments/stats",
    "/events",
    "/events/{id}",
    "/events/{id}/deliveries",
    "/events/{id}/redeliver",
    "/webhook_endpoints",
    "/webhook_endpoints/{id}",
    "/webhook_endpoints/{id}/rotate_secret",
    "/webhook_endpoints/{id}/redeliver",
    "/payables",
    "/payables/{id}",
    "/balance",
    "/gateways",
    "/_liveness_check_",
    "/_readiness_check_",
];

fn document() -> Value {
    serde_json::to_value(openapi()).unwrap()
}

/// Every operation with its path and method.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().unwrap();
    let of_path = |(path, item): (&String, &Value)| {
        let methods = item.as_object().unwrap().clone();
        methods.into_iter().map(|(method, operation)| (path.clone(), method, operation)).collect::<Vec<_>>()
    };
    paths.iter().flat_map(of_path).collect()
}

#[tokio::test]
async fn the_document_has_every_route_and_the_router_has_no_other() {
    let (world, document) = (World::new(), document());
    let paths: BTreeSet<_> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(paths, BTreeSet::from(PATHS));
    for path in PATHS {
        let id = "01a1fc08-5b46-770d-81ce-6b6e95afa0a3";
        let uri = path.replace("{id}", id).replace("{transaction_id}", id).replace("{orderId}", id);
        for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let request = Request::builder().method(&method).uri(&uri).header("x-customer-id", "123");
            let answer = world.ask(request.body(Body::empty()).unwrap()).await;
            let documented = document["paths"][path].get(method.as_str().to_lowercase()).is_some();
            let taken = answer.status != StatusCode::METHOD_NOT_ALLOWED && !answer.text.contains("no such path");
            assert_eq!(documented, taken, "{method} {path}: {}", answer.status);
        }
    }
    let served: Value = world.get("/openapi.json").await.json();
    assert_eq!(served, document);
}

/// The families whose bodies may be XML.
fn speaks_xml(path: &str) -> bool {
    ["/deposit", "/withdrawal", "/callback"].iter().any(|family| path.starts_with(family))
}

#[test]
fn operations_have_names_of_their_own_and_document_their_failures() {
    let operations = operations(&document());
    let names: BTreeSet<_> = operations.iter().map(|(_, _, o)| o["operationId"].as_str().unwrap()).collect();
    assert_eq!(names.len(), operations.len(), "{names:?}");
    for (path, method, operation) in &operations {
        let responses = operation["responses"].as_object().unwrap();
        for (status, response) in responses {
            assert!(response["headers"]["x-request-id"].is_object(), "{method} {path} {status}");
            if status == "204" {
                assert!(response["content"].is_null(), "{method} {path}");
                continue;
            }
            let kinds: &[_] = match (status.starts_with('2'), speaks_xml(path)) {
                (true, false) => &["application/json"],
                (true, true) => &["application/json", "application/xml", "text/xml"],
                (false, false) => &["application/problem+json"],
                (false, true) => &["application/problem+json", "application/problem+xml"],
            };
            let content = response["content"].as_object().unwrap();
            assert_eq!(content.keys().map(String::as_str).collect::<BTreeSet<_>>(), kinds.iter().copied().collect());
            assert!(content.values().all(|body| body["schema"].is_object()), "{method} {path} {status}");
        }
        if path == "/gateways" {
            assert!(["500", "503"].into_iter().all(|status| responses.contains_key(status)), "{method} {path}");
        } else if !path.starts_with("/_") {
            assert!(["422", "500", "503"].into_iter().all(|status| responses.contains_key(status)), "{method} {path}");
            let customer = json!({ "type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[!-~]+$" });
            let parameters = operation["parameters"].as_array().unwrap();
            let found = parameters.iter().find(|p| p["name"] == "x-customer-id");
            if path.starts_with("/callback/") {
                assert!(found.is_none(), "gateways know no customers");
                continue;
            }
            let is_required = ["/transactions", "/payables", "/balance"].iter().any(|family| path.starts_with(family));
            let found = found.unwrap();
            assert_eq!(
                (&found["in"], found["required"].as_bool().unwrap_or_default(), &found["schema"]),
                (&json!("header"), is_required, &customer),
                "{path}"
            );
        }
    }
}

#[test]
fn every_reference_of_the_document_leads_somewhere() {
    fn references<'v>(value: &'v Value, found: &mut Vec<&'v str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let document = document();
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(!found.is_empty());
    for reference in found {
        assert!(document.pointer(reference.strip_prefix('#').unwrap()).is_some(), "{reference}");
    }
}

#[tokio::test]
async fn the_document_asks_of_a_body_what_the_code_asks() {
    let (world, document) = (World::new(), document());
    let schema = &document["components"]["schemas"]["NewTransaction"];
    let required: BTreeSet<_> = schema["required"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let faults = world.post("{}").await.faults();
    assert_eq!(required, faults.iter().map(String::as_str).collect());
    let properties = &schema["properties"];
    assert_eq!(world.post(schema["example"].to_string()).await.status, StatusCode::CREATED);
    let length = |field: &str, limit: &str| properties[field][limit].as_u64().unwrap();
    let text = |length: u64| "x".repeat(usize::try_from(length).unwrap());
    let longest = |field: &str| length(field, "maxLength");
    for field in ["description", "card_holder_name"] {
        let fits = example_with(json!({ field: text(longest(field)) }));
        assert_eq!(world.post(fits.to_string()).await.status, StatusCode::CREATED, "{field}");
        let exceeds = example_with(json!({ field: text(longest(field) + 1) }));
        assert_eq!(world.post(exceeds.to_string()).await.faults(), [field]);
    }
    for (field, limit, beyond) in [("installments", "maximum", 1), ("installments", "minimum", -1)] {
        let edge = properties[field][limit].as_i64().unwrap();
        assert_eq!(world.post(example_with(json!({ field: edge })).to_string()).await.status, StatusCode::CREATED);
        let exceeds = example_with(json!({ field: edge + beyond }));
        assert_eq!(world.post(exceeds.to_string()).await.faults(), [field]);
    }
    let amounts: Vec<_> = properties["amount"]["oneOf"].as_array().unwrap().iter().map(|s| s["type"].clone()).collect();
    assert_eq!(amounts, [json!("integer"), json!("string")]);
    let edge = properties["amount"]["oneOf"][0]["maximum"].as_i64().unwrap();
    assert_eq!(world.post(example_with(json!({ "amount": edge })).to_string()).await.status, StatusCode::CREATED);
    assert_eq!(world.post(example_with(json!({ "amount": edge + 1 })).to_string()).await.faults(), ["amount"]);
}

#[tokio::test]
async fn what_the_document_requires_of_the_other_bodies_is_what_is_missed() {
    let (world, document) = (World::new(), document());
    for (schema, path) in [
        ("NewPayment", "/api/v1/payments"),
        ("NewCardToken", "/card_tokens"),
        ("NewTransfer", "/deposit"),
        ("NewTransfer", "/withdrawal"),
        ("NewOrder", "/api/orders"),
        ("NewWebhookEndpoint", "/webhook_endpoints"),
    ] {
        let schema = &document["components"]["schemas"][schema];
        let required: BTreeSet<_> = schema["required"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        let faults = world.post_to(path, &json!({})).await.faults();
        assert_eq!(required, faults.iter().map(String::as_str).collect(), "{path}");
        let answer = world.post_to(path, &schema["example"]).await;
        assert!(answer.status.is_success(), "{path}: {}", answer.text);
    }
}

#[test]
fn the_document_names_the_elements_of_xml() {
    let document = document();
    for (path, method, root) in [
        ("/deposit", "post", "deposit"),
        ("/withdrawals/{id}", "get", "withdrawal"),
        ("/callback/{transaction_id}", "post", "callback"),
    ] {
        let operation = &document["paths"][path][method];
        let success = if method == "post" { "202" } else { "200" };
        let of = |body: &Value| body["content"]["application/xml"]["schema"]["xml"]["name"].clone();
        assert_eq!(of(&operation["responses"][success]), root);
        assert!(method == "get" || of(&operation["requestBody"]) == root);
        let problem = &operation["responses"]["404"]["content"]["application/problem+xml"]["schema"];
        assert!(path == "/deposit" || problem["xml"] == json!({ "name": "problem", "namespace": "urn:ietf:rfc:7807" }));
    }
}

#[tokio::test]
async fn answers_have_the_fields_that_the_document_names() {
    let (world, document) = (World::new(), document());
    let example_of = |schema: &str| document["components"]["schemas"][schema]["example"].clone();
    let created = world.post(example().to_string()).await.json();
    let accepted = world.post_to("/api/v1/payments", &example_of("NewPayment")).await.json();
    let payment = world.get_with(&format!("/api/v1/payments/{}", accepted["id"].as_str().unwrap()), &[]).await.json();
    let deposited = world.post_to("/deposit", &example_of("NewTransfer")).await.json();
    let id = deposited["transaction_id"].as_str().unwrap().to_owned();
    let deposit = world.get_with(&format!("/deposits/{id}"), &[]).await.json();
    let token = world.post_to("/card_tokens", &example_of("NewCardToken")).await.json();
    let called_back = world.post_to(&format!("/callback/{id}"), &example_of("Callback")).await.json();
    let path = format!("/api/v1/payments/{}/cancel", accepted["id"].as_str().unwrap());
    let cancelled = world.post_to(&path, &json!({})).await.json();
    let ordered = world.post_to("/api/orders", &example_of("NewOrder")).await.json();
    world.settle_orders().await;
    let order_id = ordered["orderId"].as_str().unwrap();
    let order = world.get_with(&format!("/api/orders/{order_id}"), &[]).await.json();
    let order_payment = world.get_with(&format!("/api/payments/order/{order_id}"), &[]).await.json();
    let orders = world.get_with("/api/orders", &[]).await.json();
    let stats = world.get_with("/api/payments/stats", &[]).await.json();
    let order_cancelled = world.call("PATCH", &format!("/api/orders/{order_id}/cancel"), &[], None).await.json();
    let event = world.get_with("/events", &[]).await.json()[0].clone();
    let endpoint = world.post_to("/webhook_endpoints", &example_of("NewWebhookEndpoint")).await.json();
    let endpoint_path = format!("/webhook_endpoints/{}", endpoint["id"].as_str().unwrap());
    let recovered = world.post_to(&format!("{endpoint_path}/redeliver"), &example_of("WebhookRecovery")).await.json();
    let redelivery = json!({ "endpoint_id": endpoint["id"] });
    let event_path = format!("/events/{}", event["id"].as_str().unwrap());
    let redelivered = world.post_to(&format!("{event_path}/redeliver"), &redelivery).await.json();
    let delivery = world.get_with(&format!("{event_path}/deliveries"), &[]).await.json()[0].clone();
    let changed = world.call("PATCH", &endpoint_path, &[], Some(&example_of("WebhookEndpointPatch"))).await.json();
    let balance = world.get("/balance").await.json();
    let problem = world.post("{}").await.json();
    for (schema, body) in [
        ("Transaction", created),
        ("PaymentAccepted", accepted),
        ("Payment", payment),
        ("PaymentCancellation", cancelled),
        ("CardToken", token),
        ("TransferAccepted", deposited),
        ("Transfer", deposit),
        ("CallbackAccepted", called_back),
        ("OrderAccepted", ordered),
        ("Order", order),
        ("PageMeta", orders["meta"].clone()),
        ("OrderPayment", order_payment),
        ("OrderPaymentCount", stats["byStatus"][0].clone()),
        ("OrderPaymentStats", stats),
        ("OrderPage", orders),
        ("OrderCancellation", order_cancelled),
        ("Event", event),
        ("WebhookEndpoint", endpoint),
        ("WebhookEndpoint", changed),
        ("WebhookRecoveryAccepted", recovered),
        ("RedeliveryAccepted", redelivered),
        ("WebhookDelivery", delivery),
        ("Balance", balance),
        ("Problem", problem),
    ] {
        let schema_of = &document["components"]["schemas"][schema];
        let required: BTreeSet<_> =
            schema_of["required"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        let known: BTreeSet<_> = schema_of["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        let given: BTreeSet<_> = body.as_object().unwrap().keys().map(String::as_str).collect();
        assert!(required.is_subset(&given) && given.is_subset(&known), "{schema}: {given:?}");
    }
}

#[tokio::test]
async fn the_docs_page_needs_no_network() {
    let world = World::new();
    let page = world.get("/docs/").await;
    assert_eq!(page.status, StatusCode::OK);
    let references: Vec<_> = ["src=\"", "href=\""]
        .iter()
        .flat_map(|attribute| page.text.split(attribute).skip(1))
        .map(|rest| rest.split('"').next().unwrap())
        .collect();
    assert!(references.len() > 4, "{references:?}");
    for reference in references {
        assert!(!reference.contains("//"), "{reference} is elsewhere");
        let path = format!("/docs/{}", reference.trim_start_matches("./"));
        assert_eq!(world.get(&path).await.status, StatusCode::OK, "{path}");
    }
    let settings = world.get("/docs/swagger-initializer.js").await.text;
    assert!(settings.contains("\"/openapi.json\""), "{settings}");
    assert!(
        settings.contains("\"validatorUrl\": \"none\""),
        "the page must ask no validator on the internet: {settings}"
    );
    let bare = world.get("/docs").await;
    assert!(bare.status.is_redirection() && bare.headers["location"] == "/docs/");
}
