use std::slice::from_ref;
use std::time::Duration;

use psp_domain::ports::Clock;
use psp_domain::{
    BreakerState, Currency, GatewayHealth, GatewayName, GatewayProtocol, GatewayRecord, PaymentMethod, Route,
    RoutingTable, TransactionKind,
};

use crate::Ports;

fn name(name: &str) -> GatewayName {
    name.parse().unwrap()
}

fn gateway(ports: &Ports, of: &str, protocol: GatewayProtocol) -> GatewayRecord {
    GatewayRecord {
        name: name(of),
        protocol,
        url: format!("https://{of}.example/psp?a=1&b=“2”"),
        enabled: true,
        created_at: ports.clock.now(),
        updated_at: ports.clock.now(),
    }
}

/// A route that every transaction may take.
fn route(gateway: &str, priority: u16) -> Route {
    Route {
        gateway: name(gateway),
        priority,
        country: None,
        kind: None,
        method: None,
        currency: None,
        retry_declines: Vec::new(),
    }
}

pub async fn gateways_and_routes_come_back_as_they_were_put(ports: Ports) {
    assert_eq!(ports.gateways.routing().await.unwrap(), RoutingTable::default());
    let gateways = [
        GatewayRecord { url: String::new(), ..gateway(&ports, "a", GatewayProtocol::Sandbox) },
        gateway(&ports, "b", GatewayProtocol::Json),
        GatewayRecord { enabled: false, ..gateway(&ports, "c", GatewayProtocol::Xml) },
    ];
    for gateway in gateways.iter().rev() {
        assert!(ports.gateways.put_gateway(gateway).await.unwrap());
    }
    let special = Route {
        country: Some("BR".parse().unwrap()),
        kind: Some(TransactionKind::Withdrawal),
        method: Some(PaymentMethod::Pix),
        currency: Some(Currency::BRL),
        retry_declines: vec!["do_not_honor".into(), "“quoted” \"\\\" {a,b} NULL".into(), String::new()],
        ..route("b", u16::MAX)
    };
    // A route may name the gateway of the settings, which is in no table.
    let routes =
        [special, route("b", 7), route("built-in", 0), Route { kind: Some(TransactionKind::Payment), ..route("a", 7) }];
    for route in &routes {
        ports.gateways.put_route(route).await.unwrap();
    }
    let table = ports.gateways.routing().await.unwrap();
    assert_eq!(table, RoutingTable::new(gateways.to_vec(), routes.to_vec()));
    assert_eq!(table.routes().iter().map(|route| route.priority).collect::<Vec<_>>(), [0, 7, 7, u16::MAX]);
}

pub async fn a_gateway_that_is_put_again_has_another_address_and_nothing_else(ports: Ports) {
    let first = gateway(&ports, "a", GatewayProtocol::Json);
    assert!(ports.gateways.put_gateway(&first).await.unwrap());
    ports.clock.advance_days(1);
    let now = ports.clock.now();
    assert!(ports.gateways.enable(&first.name, false, now).await.unwrap());
    assert!(!ports.gateways.enable(&name("unknown"), false, now).await.unwrap());
    let disabled = GatewayRecord { enabled: false, updated_at: now, ..first.clone() };
    assert_eq!(ports.gateways.routing().await.unwrap().gateways(), [disabled]);
    ports.clock.advance_days(1);
    let moved = GatewayRecord { url: "https://elsewhere.example".into(), ..gateway(&ports, "a", GatewayProtocol::Xml) };
    assert!(!ports.gateways.put_gateway(&moved).await.unwrap());
    let expected = GatewayRecord { enabled: false, created_at: first.created_at, ..moved };
    assert_eq!(ports.gateways.routing().await.unwrap().gateways(), from_ref(&expected));
    assert!(ports.gateways.enable(&first.name, true, ports.clock.now()).await.unwrap());
    assert_eq!(ports.gateways.routing().await.unwrap().gateways(), [GatewayRecord { enabled: true, ..expected }]);
}

pub async fn a_route_is_named_by_its_gateway_and_criteria(ports: Ports) {
    let all = route("a", 1);
    let routes = [
        all.clone(),
        route("b", 1),
        Route { country: Some("BR".parse().unwrap()), ..all.clone() },
        Route { kind: Some(TransactionKind::Deposit), ..all.clone() },
        Route { method: Some(PaymentMethod::Boleto), ..all.clone() },
        Route { currency: Some(Currency::BRL), ..all.clone() },
    ];
    for route in &routes {
        ports.gateways.put_route(route).await.unwrap();
    }
    let again = routes.clone().map(|route| Route { priority: 5, retry_declines: vec!["expired_card".into()], ..route });
    for route in &again {
        ports.gateways.put_route(route).await.unwrap();
    }
    // Routes of one gateway with one priority and as many criteria are in no order.
    let is_left = async |expected: &[Route]| {
        let table = ports.gateways.routing().await.unwrap();
        table.routes().len() == expected.len() && expected.iter().all(|route| table.routes().contains(route))
    };
    assert!(is_left(&again).await);
    for (i, route) in routes.iter().enumerate() {
        assert!(ports.gateways.remove_route(route).await.unwrap());
        assert!(!ports.gateways.remove_route(route).await.unwrap());
        assert!(is_left(&again[i + 1..]).await);
    }
}

pub async fn what_a_process_says_of_gateways_replaces_what_it_said_before(ports: Ports) {
    let begun = ports.clock.now();
    let say = |gateway: &str, instance: &str, breaker, failures| GatewayHealth {
        gateway: name(gateway),
        instance: instance.into(),
        breaker,
        failures,
        reported_at: ports.clock.now(),
    };
    let health = async |since| {
        let mut health = ports.gateways.health(since).await.unwrap();
        health.sort_by(|a, b| (&a.gateway, &a.instance).cmp(&(&b.gateway, &b.instance)));
        health
    };
    ports.gateways.report(&[]).await.unwrap();
    assert!(health(begun).await.is_empty());
    let one = [say("a", "one", BreakerState::Closed, 0), say("b", "one", BreakerState::Open, u32::MAX)];
    ports.gateways.report(&one).await.unwrap();
    ports.clock.advance(Duration::from_secs(10));
    let two = [say("a", "two", BreakerState::HalfOpen, 5)];
    ports.gateways.report(&two).await.unwrap();
    assert_eq!(health(begun).await, [one[0].clone(), two[0].clone(), one[1].clone()]);
    assert_eq!(health(ports.clock.now()).await, two);
    ports.clock.advance(Duration::from_secs(10));
    let later = [say("a", "one", BreakerState::Open, 6), say("b", "one", BreakerState::Closed, 0)];
    ports.gateways.report(&later).await.unwrap();
    assert_eq!(health(begun).await, [later[0].clone(), two[0].clone(), later[1].clone()]);
    // Long afterwards the same process speaks again.
    ports.clock.advance_days(30);
    let back = [say("a", "one", BreakerState::Closed, 0)];
    ports.gateways.report(&back).await.unwrap();
    assert_eq!(health(ports.clock.now()).await, back);
}
