//! Requests that make no sense, or worse: refused in the words of their protocol, and nothing is charged for them.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use psp_domain::ports::SystemClock;
use psp_gateways::soap::{Envelope, Fault, NAMESPACE, Writer, action, read};
use psp_gateways::{Incoming, Outgoing, SignedClient, Trust};
use psp_simulator::Totals;
use serde_json::{Value, json};
use support::{SECRET, World, key};
use zeroize::Zeroizing;

const ID: &str = "01a1fc23-adfc-74b8-ab63-7bfa62344961";

async fn send(world: &World, path: &str, content_type: &'static str, operation: Option<&str>, body: &str) -> Incoming {
    let limit = Duration::from_secs(10);
    let client = SignedClient::new(key(SECRET), Trust::Nobody, (limit, limit), Arc::new(SystemClock)).unwrap();
    let outgoing = Outgoing {
        method: Method::POST,
        path: path.to_owned(),
        content_type: Some(content_type),
        action: operation.map(action),
        body: Zeroizing::new(body.as_bytes().to_vec()),
    };
    client.call(&format!("http://{}", world.address).parse().unwrap(), outgoing).await.unwrap()
}

async fn soap(world: &World, operation: &str, body: &str) -> Incoming {
    send(world, "/soap", "text/xml; charset=utf-8", Some(operation), body).await
}

fn fault(answer: &Incoming) -> (u16, Fault) {
    match read(answer.body.as_ref().unwrap()) {
        Ok(Envelope::Fault(fault)) => (answer.status.as_u16(), fault),
        other => panic!("{other:?}"),
    }
}

fn client_fault(error: &str) -> Fault {
    Fault { is_client: true, error: Some(error.to_owned()) }
}

fn envelope(operation: &str, fields: &[(&str, &str)]) -> String {
    let mut writer = Writer::new(operation, 0);
    for (name, text) in fields {
        writer.field(name, text);
    }
    String::from_utf8(writer.finish().to_vec()).unwrap()
}

/// A charge of 25.00 BRL by bank transfer.
const CHARGE: [(&str, &str); 7] = [
    ("reference", ID),
    ("transaction_id", ID),
    ("kind", "deposit"),
    ("amount", "2500"),
    ("currency", "BRL"),
    ("method", "bank_transfer"),
    ("installments", "1"),
];

/// The charge with one field changed, or left out.
fn changed(name: &str, text: Option<&str>) -> Vec<(&'static str, String)> {
    let fields = CHARGE.into_iter().filter_map(|(field, old)| {
        let text = if field == name { text? } else { old };
        Some((field, text.to_owned()))
    });
    fields.collect()
}

#[tokio::test]
async fn attacks_in_xml_are_refused_and_charge_nothing() {
    let world = World::new().await;
    let good = envelope("authorize", &CHARGE);
    let typed = |kind: &str| good.replace("\"utf-8\"?>\n", &format!("\"utf-8\"?>\n<!DOCTYPE x {kind}>"));
    let bomb = "<!ENTITY a \"haha\"><!ENTITY b \"&a;&a;&a;&a;&a;&a;&a;&a;\"><!ENTITY c \"&b;&b;&b;&b;&b;&b;&b;&b;\">";
    for attack in [
        typed(""),
        typed("SYSTEM \"http://127.0.0.1:1/x.dtd\""),
        typed("[<!ENTITY e SYSTEM \"file:///etc/passwd\">]").replace("bank_transfer", "&e;"),
        typed(&format!("[{bomb}]")).replace("bank_transfer", "&c;"),
        good.replace("bank_transfer", "&e;"),
        good.replace("<kind>", &format!("{}{}<kind>", "<x>".repeat(500), "</x>".repeat(500))),
        good.replace("<kind>", "<kind>deposit</kind><kind>"),
        good.replace(NAMESPACE, "urn:other"),
        "<a>".into(),
        String::new(),
    ] {
        assert_ne!(attack, good);
        assert_eq!(fault(&soap(&world, "authorize", &attack).await), (500, client_fault("malformed")), "{attack}");
    }
    let large = good.replace("bank_transfer", &"x".repeat(16 * 1024));
    assert_eq!(fault(&soap(&world, "authorize", &large).await), (413, client_fault("body_too_large")));
    assert_eq!(world.simulator.totals(), Totals::default());
    let answer = soap(&world, "authorize", &good).await;
    assert_eq!((answer.status.as_u16(), world.simulator.totals().sums["BRL"]), (200, 2500));
}

#[tokio::test]
async fn an_envelope_names_its_operation_twice_and_is_signed() {
    let world = World::new().await;
    let good = envelope("authorize", &CHARGE);
    assert_eq!(fault(&soap(&world, "find", &good).await), (500, client_fault("wrong SOAPAction")));
    let unnamed = send(&world, "/soap", "text/xml", None, &good).await;
    assert_eq!(fault(&unnamed), (500, client_fault("wrong SOAPAction")));
    let json = send(&world, "/soap", "application/json", Some("authorize"), &good).await;
    assert_eq!(fault(&json), (415, client_fault("text_xml_required")));
    let other = envelope("settle", &CHARGE);
    assert_eq!(fault(&soap(&world, "settle", &other).await), (500, client_fault("unknown_operation")));
    let find = envelope("find", &[("reference", ID)]);
    assert_eq!(fault(&soap(&world, "find", &find).await), (500, client_fault("unknown_reference")));
    world.simulator.change(&psp_simulator::BehaviourChange { outage: Some(true), ..Default::default() }).unwrap();
    let away = Fault { is_client: false, error: Some("unavailable".into()) };
    assert_eq!(fault(&soap(&world, "find", &find).await), (503, away));
    assert_eq!(world.simulator.totals(), Totals::default());
}

#[tokio::test]
async fn both_protocols_refuse_the_same_fields() {
    let world = World::new().await;
    for (name, text, error) in [
        ("reference", Some("1"), "malformed"),
        ("transaction_id", None, "malformed"),
        ("kind", Some("withdrawal"), "wrong kind"),
        ("kind", Some("gift"), "malformed"),
        ("amount", Some("0"), "wrong amount"),
        ("amount", Some("-1"), "wrong amount"),
        ("amount", Some("1000000000001"), "wrong amount"),
        ("amount", Some("25.00"), "malformed"),
        ("currency", Some("XXX"), "wrong currency"),
        ("method", Some("credit_card"), "wrong card"),
        ("method", Some("barter"), "malformed"),
        ("installments", Some("13"), "wrong installments"),
    ] {
        let fields = changed(name, text);
        let texts: Vec<_> = fields.iter().map(|(name, text)| (*name, text.as_str())).collect();
        let refused = soap(&world, "authorize", &envelope("authorize", &texts)).await;
        assert_eq!(fault(&refused), (500, client_fault(error)), "{name} {text:?}");
        let refused = send(&world, "/authorizations", "application/json", None, &json_of(&fields)).await;
        let body: Value = serde_json::from_slice(refused.body.as_ref().unwrap()).unwrap();
        assert_eq!(body, json!({ "error": error }), "{name} {text:?}");
        assert_eq!(refused.status.as_u16(), if error == "malformed" { 400 } else { 422 }, "{name} {text:?}");
    }
    assert_eq!(world.simulator.totals(), Totals::default());
}

fn json_of(fields: &[(&str, String)]) -> String {
    let value = |name: &str, text: &str| match text.parse::<i64>() {
        Ok(number) if matches!(name, "amount" | "installments") => json!(number),
        _ => json!(text),
    };
    let fields = fields.iter().map(|(name, text)| ((*name).to_owned(), value(name, text)));
    Value::Object(fields.collect()).to_string()
}

#[tokio::test]
async fn nobody_is_called_back_over_a_network_in_the_clear() {
    let world = World::new().await;
    for (url, status) in [
        ("http://psp.example/callback/1", 422),
        ("http://169.254.169.254/latest", 422),
        ("http://10.0.0.1/callback/1", 422),
        ("ftp://127.0.0.1/callback/1", 422),
        ("file:///etc/passwd", 422),
        ("http://127.0.0.1:1/callback/1", 200),
    ] {
        let body = [&CHARGE[..], &[("callback_url", url)]].concat();
        assert_eq!(soap(&world, "authorize", &envelope("authorize", &body)).await.status.is_success(), status == 200);
        let fields: Vec<_> = body.iter().map(|(name, text)| (*name, (*text).to_owned())).collect();
        let answer = send(&world, "/authorizations", "application/json", None, &json_of(&fields)).await;
        assert_eq!(answer.status.as_u16(), status, "{url}");
    }
}
