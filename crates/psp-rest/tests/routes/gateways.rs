//! The list of gateways.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use psp_domain::TransactionKind;
use psp_domain::ports::GatewayStore;
use psp_domain::{BreakerState, Currency, GatewayHealth, GatewayProtocol, GatewayRecord, PaymentMethod, Route};

use crate::support::{Answer, World};

/// What anybody sees: no customer is named.
async fn listed(world: &World) -> Answer {
    world.ask(Request::get("/gateways").body(Body::empty()).unwrap()).await
}

fn record(world: &World, name: &str, enabled: bool) -> GatewayRecord {
    GatewayRecord {
        name: name.parse().unwrap(),
        protocol: GatewayProtocol::Xml,
        url: format!("https://{name}.example:8443/hidden/path"),
        enabled,
        created_at: world.now(),
        updated_at: world.now(),
    }
}

fn route(gateway: &str, priority: u16) -> Route {
    Route {
        gateway: gateway.parse().unwrap(),
        priority,
        country: None,
        kind: None,
        method: None,
        currency: None,
        retry_declines: Vec::new(),
    }
}

async fn report(world: &World, instance: &str, breaker: BreakerState, failures: u32) {
    let (gateway, instance) = ("acquirer-b".parse().unwrap(), instance.to_owned());
    let health = GatewayHealth { gateway, instance, breaker, failures, reported_at: world.now() };
    world.memory.report(&[health]).await.unwrap();
}

#[tokio::test]
async fn without_others_the_built_in_gateway_is_listed_alone() {
    let answer = listed(&World::new()).await;
    assert_eq!((answer.status.as_u16(), &answer.headers["content-type"]), (200, &"application/json".parse().unwrap()));
    insta::assert_snapshot!(answer.text, @r#"[{"name":"sandbox","protocol":"sandbox","enabled":true,"default":true,"host":null,"routes":[],"breaker":null}]"#);
}

#[tokio::test]
async fn gateways_are_listed_with_their_routes_and_the_worst_breaker_of_late() {
    let world = World::new();
    for (name, enabled) in [("acquirer-b", true), ("acquirer-a", false)] {
        assert!(world.memory.put_gateway(&record(&world, name, enabled)).await.unwrap());
    }
    let special = Route {
        country: Some("BR".parse().unwrap()),
        kind: Some(TransactionKind::Payment),
        method: Some(PaymentMethod::CreditCard),
        currency: Some(Currency::BRL),
        retry_declines: vec!["do_not_honor".into(), "insufficient_funds".into()],
        ..route("acquirer-b", 20)
    };
    for route in [special, route("acquirer-b", 10), route("sandbox", 30)] {
        world.memory.put_route(&route).await.unwrap();
    }
    report(&world, "gone", BreakerState::Open, 17).await;
    world.clock.advance(Duration::from_secs(31));
    report(&world, "one", BreakerState::HalfOpen, 5).await;
    world.clock.advance(Duration::from_secs(1));
    report(&world, "two", BreakerState::Closed, 2).await;
    let answer = listed(&world).await;
    insta::assert_snapshot!(answer.text, @r#"[{"name":"sandbox","protocol":"sandbox","enabled":true,"default":true,"host":null,"routes":[{"priority":30,"country":null,"kind":null,"method":null,"currency":null,"retry_declines":[]}],"breaker":null},{"name":"acquirer-a","protocol":"xml","enabled":false,"default":false,"host":"acquirer-a.example","routes":[],"breaker":null},{"name":"acquirer-b","protocol":"xml","enabled":true,"default":false,"host":"acquirer-b.example","routes":[{"priority":10,"country":null,"kind":null,"method":null,"currency":null,"retry_declines":[]},{"priority":20,"country":"BR","kind":"payment","method":"credit_card","currency":"BRL","retry_declines":["do_not_honor","insufficient_funds"]}],"breaker":{"state":"half_open","failures":5,"instances":2,"reported_at":"2026-01-31T12:00:32.000Z"}}]"#);

    let document = serde_json::to_value(psp_rest::openapi()).unwrap();
    let gateway = &answer.json()[2];
    for (schema, body) in
        [("Gateway", gateway), ("GatewayRoute", &gateway["routes"][0]), ("GatewayBreaker", &gateway["breaker"])]
    {
        let required = document["components"]["schemas"][schema]["required"].as_array().unwrap();
        let required: BTreeSet<_> = required.iter().filter_map(|field| field.as_str()).collect();
        let given: BTreeSet<_> = body.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(required, given, "{schema}");
    }
}

#[tokio::test]
async fn addresses_are_told_without_port_and_path() {
    let world = World::new();
    world.memory.put_gateway(&record(&world, "acquirer-a", true)).await.unwrap();
    let text = listed(&world).await.text;
    assert!(text.contains(r#""host":"acquirer-a.example""#) && !text.contains("hidden"), "{text}");
}
