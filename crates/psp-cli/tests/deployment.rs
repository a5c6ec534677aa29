//! What deploys psp against the binary: what `docker-compose.yml` starts, sets and asks is there, and time-outs fit.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Map, Value};

/// What stands for `${NAME:-default}` and `${NAME:?message}`.
const PLACEHOLDERS: [(&str, &str); 2] =
    [("PSP_CARD_KEYS", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="), ("PSP_DATABASE_PASSWORD", "0123456789abcdef")];

fn psp(args: &[&str], env: &[(String, String)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_psp"));
    // Settings come from the variables given here, and no psp.toml is in the way.
    command.env_clear().current_dir(std::env::temp_dir());
    command.args(args).envs(env.iter().map(|(name, value)| (name, value))).output().expect("psp")
}

fn told(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn compose() -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docker-compose.yml");
    serde_saphyr::from_str(&std::fs::read_to_string(file).expect("the file")).expect("YAML")
}

/// The services that run the binary.
fn services(compose: &Value) -> Map<String, Value> {
    let all = compose["services"].as_object().expect("services").clone();
    all.into_iter()
        .filter(|(_, service)| service["image"].as_str().is_some_and(|image| image.contains("psp:local")))
        .collect()
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().map_or_else(Vec::new, |list| list.iter().filter_map(Value::as_str).collect())
}

fn environment(service: &Value) -> Vec<(String, String)> {
    let pair = |(name, value): (&String, &Value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let placeholder = PLACEHOLDERS.iter().find(|(name, _)| text.starts_with(&format!("${{{name}")));
        assert!(placeholder.is_some() || !text.contains("${"), "{name}: {text}");
        (name.clone(), placeholder.map_or(text, |(_, value)| (*value).to_owned()))
    };
    service["environment"].as_object().expect("environment").iter().map(pair).collect()
}

#[test]
fn every_role_is_started_with_settings_that_the_binary_takes() {
    let compose = compose();
    let services = services(&compose);
    let names: BTreeSet<_> = services.keys().map(String::as_str).collect();
    assert_eq!(names, ["api", "migrate", "scheduler", "worker"].into());
    let help = told(&psp(&["--help"], &[]));
    for (name, service) in &services {
        let command = [texts(&service["command"]), vec!["--help"]].concat();
        assert!(told(&psp(&command, &[])).contains("Usage: psp "), "{name}");
        let environment = environment(service);
        for (variable, _) in &environment {
            let is_setting =
                help.contains(&format!("[env: {variable}]")) || help.contains(&format!("[env: {variable}="));
            assert!(is_setting || variable.starts_with("AWS_"), "{name} sets {variable}");
        }
        // In effect, and together without a fault.
        let config = told(&psp(&["config"], &environment));
        assert!(config.contains("queue = \"sqs\"") && !config.contains(PLACEHOLDERS[0].1), "{config}");
    }
}

#[test]
fn health_checks_ask_as_the_binary_can_be_asked() {
    let compose = compose();
    for (name, service) in services(&compose) {
        let check = &service["healthcheck"];
        if name == "migrate" {
            assert_eq!(check["disable"], true);
            continue;
        }
        let test = texts(&check["test"]);
        assert_eq!(test[..2], ["CMD", "/usr/local/bin/psp"], "{name}");
        told(&psp(&[&test[2..], &["--help"]].concat(), &[]));
        // A role without an API is asked at its own address.
        let has_admin = environment(&service).iter().any(|(name, _)| name == "PSP_ADMIN_LISTEN");
        assert_eq!(has_admin, name != "api");
    }
}

#[test]
fn nothing_is_reached_from_outside_and_no_secret_is_in_the_file() {
    let compose = compose();
    let all = compose["services"].as_object().expect("services");
    for (name, service) in all {
        let ports = texts(&service["ports"]);
        assert!(ports.iter().all(|port| port.starts_with("127.0.0.1:")), "{name}: {ports:?}");
        let image = service["image"].as_str().expect("image");
        assert!(image.starts_with("${PSP_IMAGE:-") || image.rsplit(':').next() != Some("latest"), "{name}: {image}");
    }
    for name in services(&compose).keys() {
        let service = &all[name];
        assert_eq!((&service["read_only"], &service["cap_drop"][0]), (&true.into(), &"ALL".into()), "{name}");
        for (name, _) in PLACEHOLDERS {
            let text = service["environment"][name].as_str();
            assert!(
                text.is_none_or(|text| text.starts_with(&format!("${{{name}:?"))),
                "{name} has a default: {text:?}"
            );
        }
        assert!(service["environment"]["PSP_DATABASE_PASSWORD"].is_string());
    }
}

#[test]
fn api_and_worker_share_what_belongs_to_payments_and_nobody_else_has_it() {
    let compose = compose();
    let payments = |name: &str| {
        let environment = environment(&services(&compose)[name]).into_iter();
        let is_of_payments =
            |name: &str| ["PSP_CARD_", "PSP_GATEWAY_", "PSP_PUBLIC_URL"].iter().any(|start| name.starts_with(start));
        environment.filter(|(name, _)| is_of_payments(name)).collect::<BTreeSet<_>>()
    };
    assert_eq!(payments("api"), payments("worker"));
    let names: BTreeSet<_> = payments("api").into_iter().map(|(name, _)| name).collect();
    // Without an address the sandbox pays, and without a public one nobody calls back.
    assert_eq!(names, ["PSP_CARD_KEYS".to_owned()].into());
    for name in ["migrate", "scheduler"] {
        assert_eq!(payments(name), BTreeSet::new(), "{name}");
    }
}

#[test]
fn roles_wait_for_what_they_need() {
    let compose = compose();
    let waits = |name: &str| {
        let on = compose["services"][name]["depends_on"].as_object().expect("depends_on");
        let pair =
            |(name, how): (&String, &Value)| format!("{name} {}", how["condition"].as_str().unwrap_or("started"));
        on.iter().map(pair).collect::<BTreeSet<_>>()
    };
    let migrated = "migrate service_completed_successfully".to_owned();
    assert_eq!(waits("migrate"), ["postgres service_healthy".to_owned()].into());
    assert_eq!(waits("api"), [migrated.clone()].into());
    assert_eq!(waits("scheduler"), [migrated.clone()].into());
    assert_eq!(waits("worker"), [migrated, "localstack service_healthy".to_owned()].into());
}

#[test]
fn localstack_makes_the_queues_that_the_binary_looks_for() {
    let script = include_str!("../../../localstack/init/ready.d/queues.sh");
    for name in psp_domain::QueueName::ALL {
        assert!(script.contains(&format!("psp-{name}")), "{name}");
    }
    assert!(
        script.contains(&format!("\\\"maxReceiveCount\\\\\\\":{}", psp_domain::QueueName::MAX_RECEIVES)),
        "{script}"
    );
}

#[test]
fn terraform_makes_the_queues_that_the_binary_looks_for() {
    let stack = include_str!("../../../infrastructure/main.tf");
    let (_, queues) = stack.split_once("\n  queues = {\n").expect("the queues");
    let (queues, _) = queues.split_once("\n  }\n").expect("their end");
    let made: BTreeSet<_> = queues.lines().map(|line| line.split('=').next().unwrap_or_default().trim()).collect();
    assert_eq!(made, psp_domain::QueueName::ALL.map(psp_domain::QueueName::as_str).into());
}

#[test]
fn alarms_look_for_lines_that_the_worker_logs() {
    let filters = include_str!("../../../infrastructure/modules/observability/logs.tf");
    let callbacks = include_str!("../../psp-worker/src/callbacks.rs");
    let transactions = include_str!("../../psp-worker/src/transactions.rs");
    let authorize = include_str!("../../psp-domain/src/usecases/authorize_transaction.rs");
    let breaker = include_str!("../../psp-gateways/src/breaker.rs");
    let (settle, sweep) = (include_str!("../../psp-jobs/src/settle.rs"), include_str!("../../psp-jobs/src/sweep.rs"));
    for (pattern, logs, line) in [
        (r#"$.message = \"a callback needs a look\""#, callbacks, r#""a callback needs a look")"#),
        (r#"$.message = \"waits for its gateway\""#, transactions, r#"reason, "waits for its gateway")"#),
        (r#"$.reason = \"*voiding failed*\""#, authorize, "and voiding failed: {error}"),
        (r#"$.message = \"attempts are overdue\""#, sweep, r#""attempts are overdue")"#),
        (r#"$.message = \"the breaker is open*\""#, breaker, r#""the breaker is open: "#),
        (r#"$.message = \"payables settled\""#, settle, r#""payables settled""#),
    ] {
        assert!(filters.contains(pattern), "{pattern}");
        assert!(logs.contains(line), "no longer logged: {line}");
    }
}

#[test]
fn the_load_balancer_gives_up_connections_before_the_api_and_after_requests() {
    let edge = include_str!("../../../infrastructure/modules/edge/main.tf");
    let idle = edge.lines().find_map(|line| line.trim().strip_prefix("idle_timeout = ")).expect("idle_timeout");
    let idle = std::time::Duration::from_secs(idle.parse().expect("seconds"));
    assert!(idle < psp_rest::IDLE_TIMEOUT);
    let config = told(&psp(&["config"], &[]));
    let limit = config.lines().find_map(|line| line.strip_prefix("request_timeout_ms = \"")).expect("a limit");
    let limit = limit.split('"').next().and_then(|limit| limit.parse().ok()).expect("milliseconds");
    assert!(std::time::Duration::from_millis(limit) < idle);
}
