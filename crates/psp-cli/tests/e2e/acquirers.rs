//! Simulators, each a process of its own, and what they are told and tell.

use std::time::Instant;

use http_body_util::Full;
use hyper::Request;
use serde_json::Value;

use crate::support::{Answer, Api, PATIENCE, Place, Process, pause};

/// What requests to the built-in gateway are signed with.
pub(crate) const SECRET: &str = "a secret of the tests that is long enough";

/// What requests to a gateway of that name are signed with.
pub(crate) fn secret_of(name: &str) -> String {
    format!("a secret of the tests for {name} alone")
}

/// An address of this machine that was free just now.
pub(crate) fn free_address() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// A place whose processes retry quickly, trust these gateways' secrets, and are called back at the address that is returned,
/// where an API is to listen.
pub(crate) fn place_of(names: &[&str], env: &[(&'static str, &str)]) -> (Place, String) {
    let mut place = Place::new(&[("PSP_GATEWAY_SECRET", SECRET), ("PSP_LOG", "warn,psp=info")]);
    let address = free_address();
    let secrets: Vec<_> = names.iter().map(|name| format!("{name}={}", secret_of(name))).collect();
    place.set("PSP_GATEWAY_SECRETS", &secrets.join(","));
    place.set("PSP_PUBLIC_URL", &format!("http://{address}"));
    for (name, value) in [("PSP_RETRY_BASE_MS", "10"), ("PSP_RETRY_MAX_MS", "100")].iter().chain(env) {
        place.set(name, value);
    }
    (place, address)
}

/// Starts a simulator and adds it as a gateway of that name and protocol.
pub(crate) async fn add_gateway(place: &Place, name: &str, protocol: &str, args: &[&str]) -> Process {
    // It is one gateway, and knows none: whose secret its own is would be refused as the same.
    let env = [("PSP_GATEWAY_SECRET", &*secret_of(name)), ("PSP_GATEWAY_SECRETS", "")];
    let simulator = place.start_with(&simulator_args(args), &env).await;
    let path = if protocol == "xml" { "/soap" } else { "" };
    let url = format!("http://{}{path}", simulator.address);
    place.run(&["gateways", "add", name, "--protocol", protocol, "--url", &url]);
    simulator
}

/// Starts a simulator anew that was killed, at its address: it remembers nothing.
pub(crate) async fn restart_gateway(place: &Place, name: &str, address: &str) -> Process {
    let env = [("PSP_GATEWAY_SECRET", &*secret_of(name)), ("PSP_GATEWAY_SECRETS", "")];
    place.start_with(&["gateway-simulator", "--listen", address], &env).await
}

/// Starts a simulator for the built-in gateway.
pub(crate) async fn start_simulator(place: &Place, args: &[&str]) -> Process {
    place.start(&simulator_args(args)).await
}

fn simulator_args<'a>(args: &[&'a str]) -> Vec<&'a str> {
    [&["gateway-simulator", "--listen", "127.0.0.1:0"], args].concat()
}

/// Starts everything, with the API at that address.
pub(crate) async fn serve_at(place: &Place, address: &str) -> Process {
    place.start_with(&["serve"], &[("PSP_LISTEN", address)]).await
}

pub(crate) async fn totals(simulator: &Api) -> Value {
    simulator.get("", "/admin/totals").await.json()
}

pub(crate) async fn behave(simulator: &Api, change: &Value) {
    let request = Request::patch("/admin/behaviour").header("host", "x").header("content-type", "application/json");
    let request = request.body(Full::from(change.to_string())).unwrap();
    let answer = simulator.client().await.send(request).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text);
}

/// How often a simulator charged.
pub(crate) async fn charges(simulator: &Api) -> u64 {
    totals(simulator).await["charges"].as_u64().unwrap()
}

pub(crate) async fn await_charges(simulator: &Api, wanted: u64) {
    let begun = Instant::now();
    while charges(simulator).await < wanted {
        assert!(begun.elapsed() < PATIENCE, "{}", totals(simulator).await);
        pause().await;
    }
}

/// A POST with a body of that type, for a customer or for none.
pub(crate) async fn post(api: &Api, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut request = Request::post(path).header("host", "psp");
    if !headers.iter().any(|(name, _)| *name == "content-type") {
        request = request.header("content-type", "application/json");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    api.client().await.send(request.body(Full::from(body.to_owned())).unwrap()).await.unwrap()
}

/// Asks for JSON without naming a customer, until the answer is as wanted.
pub(crate) async fn until(api: &Api, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    let mut client = api.client().await;
    loop {
        let request = Request::get(path).header("host", "psp").body(Full::default()).unwrap();
        let json = client.send(request).await.unwrap().json();
        if wanted(&json) {
            return json;
        }
        assert!(begun.elapsed() < PATIENCE, "{path} stays {json}");
        pause().await;
    }
}
