use std::fmt::Display;

use anyhow::{bail, ensure};
use comfy_table::Table;
use comfy_table::presets;
use psp_domain::ports::GatewayStore;
use psp_domain::{GatewayName, GatewayProtocol, GatewayRecord, PaymentMethod, Route, TransactionKind};
use psp_gateways::GatewayUrl;
use psp_rest::{BreakerBody, GatewayBody, RouteBody};

use super::answer;
use crate::cli::{Criteria, Gateways};
use crate::gateways::BUILT_IN;
use crate::wiring::Wiring;

/// The most reasons of one route, and the longest reason.
const MAX_REASONS: usize = 32;
const MAX_REASON_LEN: usize = 64;

/// Runs a command on gateways.
pub(crate) async fn run(wiring: Wiring, command: Gateways) -> anyhow::Result<()> {
    let outcome = execute(&wiring, command).await;
    wiring.close().await;
    outcome
}

async fn execute(wiring: &Wiring, command: Gateways) -> anyhow::Result<()> {
    let (store, now) = (&*wiring.store.gateways, wiring.sources.clock.now());
    match command {
        Gateways::List { json } => {
            let gateways = psp_rest::gateways(store, &wiring.built_in(), now).await?;
            if json { answer(serde_json::to_string_pretty(&gateways)?) } else { answer(table(&gateways)) }
        }
        Gateways::Add { name, protocol, url } => {
            let (name, protocol, url) = new_gateway(&name, &protocol, url)?;
            let record = GatewayRecord { name, protocol, url, enabled: true, created_at: now, updated_at: now };
            let known = store.routing().await?;
            check_kind(known.gateways(), &record)?;
            let is_new = store.put_gateway(&record).await?;
            if !is_sandbox(&record) && known.gateways().iter().chain([&wiring.built_in()]).all(is_sandbox) {
                eprintln!("psp: warning: sandboxes are asked for nothing new from now on, also where no route fits");
            }
            if protocol != GatewayProtocol::Sandbox && !wiring.settings.gateway_secrets.contains_key(&record.name) {
                eprintln!(
                    "psp: warning: PSP_GATEWAY_SECRETS has no secret for {} here: processes leave it out until theirs has",
                    record.name
                );
            }
            answer(format_args!("{} {}", record.name, if is_new { "added" } else { "changed" }))
        }
        Gateways::Enable { name } => enable(wiring, &name, true).await,
        Gateways::Disable { name } => enable(wiring, &name, false).await,
        Gateways::Route { name, priority, criteria, retry_declines } => {
            let route = route(&name, &priority, &criteria, retry_declines)?;
            add_route(store, &route).await?;
            answer(format_args!("{} is asked: {}", route.gateway, line(&RouteBody::from(&route))))
        }
        Gateways::Unroute { name, criteria } => {
            let route = route(&name, "0", &criteria, Vec::new())?;
            let criteria = fits(&RouteBody::from(&route));
            ensure!(store.remove_route(&route).await?, "{} has no route for {criteria}", route.gateway);
            answer(format_args!("{} is no longer asked: {criteria}", route.gateway))
        }
    }
}

fn is_sandbox(record: &GatewayRecord) -> bool {
    record.protocol == GatewayProtocol::Sandbox
}

/// A sandbox believes every callback and charges nobody: it may not come into the place of a gateway that has charged, nor
/// such a one into its place.
fn check_kind(known: &[GatewayRecord], record: &GatewayRecord) -> anyhow::Result<()> {
    let before = known.iter().find(|known| known.name == record.name);
    let is_same = before.is_none_or(|before| is_sandbox(before) == is_sandbox(record));
    ensure!(is_same, "--protocol of {} cannot change between sandbox and json or xml: take another name", record.name);
    Ok(())
}

async fn enable(wiring: &Wiring, name: &str, enabled: bool) -> anyhow::Result<()> {
    let mut faults = Faults::default();
    let name = faults.take("NAME", name.parse::<GatewayName>());
    faults.into_result()?;
    let Some(name) = name else { return Ok(()) };
    ensure!(!BUILT_IN.contains(&name.as_str()), "{name} is built in: it is always enabled");
    let found = wiring.store.gateways.enable(&name, enabled, wiring.sources.clock.now()).await?;
    ensure!(found, "there is no gateway {name}");
    answer(format_args!("{name} {}", if enabled { "enabled" } else { "disabled" }))
}

async fn add_route(store: &dyn GatewayStore, route: &Route) -> anyhow::Result<()> {
    let table = store.routing().await?;
    let name = &route.gateway;
    let is_known = BUILT_IN.contains(&name.as_str()) || table.gateways().iter().any(|known| known.name == *name);
    ensure!(is_known, "there is no gateway {name}: `psp gateways add` makes one");
    let is_new = !table.routes().iter().any(|known| has_same_criteria(known, route));
    ensure!(!is_new || table.routes().len() < Route::MAX, "there are {} routes, and no more may be", Route::MAX);
    Ok(store.put_route(route).await?)
}

fn has_same_criteria(a: &Route, b: &Route) -> bool {
    (&a.gateway, a.country, a.kind, a.method, a.currency) == (&b.gateway, b.country, b.kind, b.method, b.currency)
}

/// Gathers what is wrong with the words of a command.
#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    /// The value, or its fault under the name of the word.
    fn take<T>(&mut self, word: &str, read: Result<T, impl Display>) -> Option<T> {
        read.map_err(|fault| self.0.push(format!("{word} {fault}"))).ok()
    }

    fn into_result(self) -> anyhow::Result<()> {
        if self.0.is_empty() { Ok(()) } else { bail!("{}", self.0.join("; ")) }
    }
}

fn new_gateway(
    name: &str,
    protocol: &str,
    url: Option<String>,
) -> anyhow::Result<(GatewayName, GatewayProtocol, String)> {
    let mut faults = Faults::default();
    let name = faults.take("NAME", name.parse::<GatewayName>());
    if let Some(name) = name.as_ref().filter(|name| BUILT_IN.contains(&name.as_str())) {
        faults.0.push(format!("NAME {name} is built in: PSP_GATEWAY_URL says where it is"));
    }
    let read = GatewayProtocol::from_name(protocol);
    let protocol =
        faults.take("--protocol", read.ok_or_else(|| one_of(&GatewayProtocol::ALL.map(GatewayProtocol::as_str))));
    let parsed = url.as_deref().map(str::parse::<GatewayUrl>);
    if let Some(parsed) = parsed {
        faults.take("--url", parsed);
    }
    match (protocol, &url) {
        (Some(GatewayProtocol::Sandbox), Some(_)) => faults.0.push("--url is not for a sandbox".into()),
        (Some(GatewayProtocol::Json | GatewayProtocol::Xml), None) => faults.0.push("--url is required".into()),
        _ => {}
    }
    faults.into_result()?;
    let Some((name, protocol)) = name.zip(protocol) else { bail!("a word is missing") };
    Ok((name, protocol, url.unwrap_or_default()))
}

fn route(name: &str, priority: &str, criteria: &Criteria, mut retry_declines: Vec<String>) -> anyhow::Result<Route> {
    let mut faults = Faults::default();
    let name = faults.take("NAME", name.parse::<GatewayName>());
    let priority = faults.take("--priority", priority.parse().map_err(|_| "must be an integer from 0 to 65535"));
    let kinds = || one_of(&TransactionKind::ALL.map(TransactionKind::as_str));
    let methods = || one_of(&PaymentMethod::ALL.map(PaymentMethod::as_str));
    let country = criteria.country.as_deref().and_then(|text| faults.take("--country", text.parse()));
    let kind = criteria
        .kind
        .as_deref()
        .and_then(|text| faults.take("--kind", TransactionKind::from_name(text).ok_or_else(kinds)));
    let method = criteria
        .method
        .as_deref()
        .and_then(|text| faults.take("--method", PaymentMethod::from_name(text).ok_or_else(methods)));
    let currency = criteria.currency.as_deref().and_then(|text| faults.take("--currency", text.parse()));
    retry_declines.sort();
    retry_declines.dedup();
    if retry_declines.len() > MAX_REASONS || !retry_declines.iter().all(|reason| is_reason(reason)) {
        let fault = format!("must be at most {MAX_REASONS} reasons of 1 to {MAX_REASON_LEN} of a-z, 0-9 and _");
        faults.0.push(format!("--retry-declines {fault}"));
    }
    faults.into_result()?;
    let Some((gateway, priority)) = name.zip(priority) else { bail!("a word is missing") };
    Ok(Route { gateway, priority, country, kind, method, currency, retry_declines })
}

fn one_of(words: &[&str]) -> String {
    format!("must be one of {}", words.join(", "))
}

fn is_reason(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    (1..=MAX_REASON_LEN).contains(&text.len()) && text.bytes().all(fits)
}

fn table(gateways: &[GatewayBody]) -> Table {
    let mut table = Table::new();
    let header = ["gateway", "protocol", "host", "enabled", "breaker", "failures", "seen by", "routes"];
    table.load_style(presets::NOTHING).set_header(header);
    for gateway in gateways {
        let (breaker, failures, instances) = gateway.breaker.as_ref().map_or_else(Default::default, |breaker| {
            let BreakerBody { state, failures, instances, .. } = breaker;
            (state.as_str(), failures.to_string(), instances.to_string())
        });
        let routes: Vec<_> = gateway.routes.iter().map(line).collect();
        table.add_row([
            gateway.name.clone(),
            gateway.protocol.as_str().to_owned(),
            gateway.host.clone().unwrap_or_default(),
            if gateway.enabled { "yes" } else { "no" }.to_owned(),
            breaker.to_owned(),
            failures,
            instances,
            if gateway.default { [&["where no route fits".to_owned()], &*routes].concat() } else { routes }.join("\n"),
        ]);
    }
    table
}

/// A route in words.
fn line(route: &RouteBody) -> String {
    let line = format!("priority {}, {}", route.priority, fits(route));
    let reasons = route.retry_declines.join(", ");
    if reasons.is_empty() { line } else { format!("{line}, goes on after {reasons}") }
}

/// The criteria of a route in words.
fn fits(route: &RouteBody) -> String {
    let criteria = [
        ("country", route.country),
        ("kind", route.kind.map(TransactionKind::as_str)),
        ("method", route.method.map(PaymentMethod::as_str)),
        ("currency", route.currency),
    ];
    let criteria = criteria.iter().filter_map(|(name, value)| Some(format!("{name} {}", (*value)?)));
    let criteria: Vec<_> = criteria.collect();
    if criteria.is_empty() { "everything".to_owned() } else { criteria.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn criteria(texts: [Option<&str>; 4]) -> Criteria {
        let [country, kind, method, currency] = texts.map(|text| text.map(str::to_owned));
        Criteria { country, kind, method, currency }
    }

    #[test]
    fn every_fault_of_a_gateway_is_told_at_once() {
        let told = |name: &str, protocol: &str, url: Option<&str>| {
            let error = new_gateway(name, protocol, url.map(str::to_owned)).map(drop).unwrap_err();
            error.to_string()
        };
        let error = told("Acquirer A", "grpc", Some("http://me:hunter2@acquirer.example"));
        for part in ["NAME must be", "--protocol must be one of sandbox, json, xml", "--url must be https"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert!(!error.contains("hunter2") && !error.contains('\n'), "{error}");
        assert_eq!(told("acquirer-a", "xml", None), "--url is required");
        assert_eq!(told("acquirer-a", "sandbox", Some("https://acquirer.example")), "--url is not for a sandbox");
        for name in BUILT_IN {
            assert!(told(name, "json", Some("https://acquirer.example")).contains("is built in"), "{name}");
        }
    }

    #[test]
    fn safe_gateways_are_taken() {
        for url in ["https://acquirer.example/v1", "http://127.0.0.1:4000", "http://localhost:4000/soap"] {
            let (name, protocol, kept) = new_gateway("acquirer-a", "xml", Some(url.to_owned())).unwrap();
            assert_eq!((name.as_str(), protocol, &*kept), ("acquirer-a", GatewayProtocol::Xml, url));
        }
        assert_eq!(new_gateway("playground", "sandbox", None).unwrap().2, "");
    }

    #[test]
    fn no_sandbox_takes_the_place_of_a_gateway_that_charges_nor_the_other_way_round() {
        use GatewayProtocol::{Json, Sandbox, Xml};
        let record = |name: &str, protocol| {
            let now = chrono::DateTime::UNIX_EPOCH;
            let (name, url) = (name.parse().unwrap(), String::new());
            GatewayRecord { name, protocol, url, enabled: false, created_at: now, updated_at: now }
        };
        for (before, after, is_taken) in [
            (Json, Json, true),
            (Json, Xml, true),
            (Xml, Json, true),
            (Sandbox, Sandbox, true),
            (Json, Sandbox, false),
            (Xml, Sandbox, false),
            (Sandbox, Json, false),
            (Sandbox, Xml, false),
        ] {
            let known = [record("acquirer-a", before)];
            let changed = check_kind(&known, &record("acquirer-a", after));
            assert_eq!(changed.is_ok(), is_taken, "{before:?} {after:?}");
            assert!(check_kind(&known, &record("acquirer-b", after)).is_ok());
        }
    }

    #[test]
    fn every_fault_of_a_route_is_told_at_once() {
        let wrong = criteria([Some("XX"), Some("gift"), Some("cash"), Some("real")]);
        let error = route("", "65536", &wrong, vec!["Do not".into()]).unwrap_err().to_string();
        for word in ["NAME", "--priority", "--country", "--kind", "--method", "--currency", "--retry-declines"] {
            assert!(error.contains(&format!("{word} must")), "{word}: {error}");
        }
    }

    #[test]
    fn a_route_says_in_words_what_it_is_for() {
        let right = criteria([Some("BR"), Some("payment"), Some("pix"), Some("BRL")]);
        let reasons = vec!["issuer_unavailable".to_owned(), "do_not_honor".into(), "do_not_honor".into()];
        let route = route("acquirer-a", "7", &right, reasons).unwrap();
        assert_eq!(route.criteria(), 4);
        assert_eq!(
            line(&RouteBody::from(&route)),
            "priority 7, country BR, kind payment, method pix, currency BRL, goes on after do_not_honor, issuer_unavailable"
        );
        let all = super::route("acquirer-a", "0", &criteria([None; 4]), Vec::new()).unwrap();
        assert_eq!(line(&RouteBody::from(&all)), "priority 0, everything");
    }
}
