//! Holds the dependency graph to ARCHITECTURE.md.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

type Graph = BTreeMap<String, BTreeSet<String>>;

/// Every crate of the workspace with its direct dependencies of those kinds.
fn graph(kinds: &[DependencyKind]) -> Graph {
    let metadata = MetadataCommand::new().no_deps().exec().unwrap();
    let dependencies = |package: &cargo_metadata::Package| {
        let wanted = package.dependencies.iter().filter(|d| kinds.contains(&d.kind));
        wanted.map(|d| d.name.clone()).collect()
    };
    metadata.packages.iter().map(|package| (package.name.to_string(), dependencies(package))).collect()
}

fn of_ours(dependencies: &BTreeSet<String>) -> BTreeSet<&str> {
    dependencies.iter().map(String::as_str).filter(|name| name.starts_with("psp-")).collect()
}

const NORMAL: [DependencyKind; 2] = [DependencyKind::Normal, DependencyKind::Build];

#[test]
fn the_domain_knows_no_runtime_driver_or_framework() {
    let graph = graph(&NORMAL);
    let domain = &graph["psp-domain"];
    assert!(of_ours(domain).is_empty(), "{domain:?}");
    for banned in ["tokio", "sqlx", "axum", "hyper", "reqwest", "aws", "tracing", "metrics"] {
        // Whole families: tokio-util and aws-sdk-sqs are no better.
        let of_family = domain.iter().find(|name| name.split('-').next() == Some(banned));
        assert_eq!(of_family, None, "psp-domain must not depend on {banned}");
    }
}

#[test]
fn adapters_and_entrypoints_depend_on_the_domain_only() {
    for (name, dependencies) in graph(&NORMAL) {
        let expected: &[&str] = match name.as_str() {
            "psp-cli" | "psp-domain" | "psp-bench" => continue,
            // The other end of the gateways' protocol: it shares their signatures and test cards.
            "psp-simulator" => &["psp-domain", "psp-gateways"],
            _ => &["psp-domain"],
        };
        assert_eq!(of_ours(&dependencies), expected.iter().copied().collect(), "{name}");
    }
}

#[test]
fn only_the_binary_sees_all() {
    let graph = graph(&NORMAL);
    let outside = BTreeSet::from(["psp-cli", "psp-testkit", "psp-bench"]);
    let all: BTreeSet<_> = graph.keys().map(String::as_str).filter(|name| !outside.contains(name)).collect();
    assert_eq!(of_ours(&graph["psp-cli"]), all);
    // Requests show neither routing nor deliveries alone.
    let routing = ["psp-domain", "psp-gateways"];
    let deliveries = ["psp-webhooks", "psp-vault", "psp-batch", "psp-sqlite", "psp-postgres"];
    let inside = routing.into_iter().chain(deliveries).collect();
    assert_eq!(of_ours(&graph["psp-bench"]), inside, "what is measured otherwise is seen from outside");
}

#[test]
fn tests_use_the_testkit_and_nothing_else_of_ours() {
    for (name, dependencies) in graph(&[DependencyKind::Development]) {
        let ours = of_ours(&dependencies);
        assert!(ours.is_subset(&BTreeSet::from(["psp-testkit"])), "{name}: {ours:?}");
    }
}
