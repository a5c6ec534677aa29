//! Commands that need no server.

use crate::support::Place;

#[test]
fn wrong_configuration_stops_the_start_with_one_line_that_names_every_fault() {
    let place = Place::new(&[("PSP_LISTEN", "nowhere"), ("PSP_MAX_BATCH", "many"), ("PSP_CARD_KEYS", "c2VjcmV0")]);
    let output = place.command(&["serve"]).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(["PSP_LISTEN", "PSP_MAX_BATCH", "PSP_CARD_KEYS"].iter().all(|name| error.contains(name)), "{error}");
    assert!(!error.contains("c2VjcmV0"), "{error}");

    let place = Place::new(&[]);
    std::fs::write(place.path().join("psp.toml"), "lisen = \"127.0.0.1:1\"\n").unwrap();
    let output = place.command(&[]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("lisen"));
}

#[test]
fn the_configuration_in_effect_is_printed_with_its_sources_and_without_secrets() {
    let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let place = Place::new(&[("PSP_CARD_KEYS", key), ("PSP_MAX_BATCH", "17")]);
    std::fs::write(place.path().join("psp.toml"), "max_batch = 16\nworker_concurrency = 15\n").unwrap();
    let config = place.run(&["config", "--listen", "127.0.0.1:7777"]);
    assert!(!config.contains(key) && config.contains("card_keys = \"***\""), "{config}");
    for line in ["listen = \"127.0.0.1:7777\"", "max_batch = \"17\"", "worker_concurrency = \"15\""] {
        assert!(config.contains(line), "{line}\n{config}");
    }
}

#[test]
fn help_version_completions_and_documents_are_printed() {
    let place = Place::new(&[]);
    assert!(place.run(&["--help"]).contains("PSP_SETTLEMENT_CRON"));
    assert!(place.run(&["-h"]).contains("Examples:"));
    let version = place.run(&["--version"]);
    assert!(version.starts_with(concat!("psp ", env!("CARGO_PKG_VERSION"), " (")), "{version}");
    assert!(place.run(&["completions", "bash"]).contains("settle-payables"));
    let document = place.run(&["openapi"]);
    assert!(
        ["/transactions/{id}/refund", "/api/orders", "/webhook_endpoints"].iter().all(|path| document.contains(path))
    );
}

#[test]
fn migrating_twice_changes_nothing() {
    let place = Place::new(&[]);
    assert!(place.run(&["migrate"]).contains("applied 0001_main"));
    assert_eq!(place.run(&["migrate"]), "the database is up to date\n");
    let output = place.command(&["migrate", "--service-login", "psp"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("SQLite knows no logins"));
}

#[test]
fn a_command_in_the_wrong_directory_makes_no_database() {
    let place = Place::new(&[]);
    let replay = ["events", "replay", "--from", "2026-11-21T00:00:00Z", "--type", "order.paid"];
    for args in [
        &["job", "settle-payables"][..],
        &["job", "purge-idempotency-keys"],
        &["job", "purge-events"],
        &["dlq", "list"],
        &replay,
    ] {
        let output = place.command(args).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains("there is no database psp.db"), "{error}");
    }
    assert!(place.files().is_empty());
}

#[test]
fn a_process_that_cannot_start_says_why_in_one_line() {
    let place = Place::new(&[]);
    std::fs::write(place.path().join("text.db"), "this is no database, and much longer than the header of one")
        .unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (name, value, code, reason) in [
        ("PSP_LISTEN", address.as_str(), 1, "Address already in use"),
        ("DATABASE_URL", "sqlite://text.db", 1, "file is not a database"),
        ("DATABASE_URL", "sqlite://no/such/directory/psp.db", 1, "unable to open database file"),
        ("DATABASE_URL", "mysql://localhost/psp", 2, "DATABASE_URL must be"),
        ("PSP_CONFIG", "no-such.toml", 2, "no-such.toml"),
    ] {
        let output = place.command(&["serve"]).env(name, value).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{value}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(error.contains(reason) && !error.contains("panicked"), "{error}");
    }
}

#[test]
fn a_replay_that_is_not_understood_is_refused_and_the_new_queues_have_dead_letters() {
    let place = Place::new(&[]);
    place.run(&["migrate"]);
    let replay = |more: &[&str]| {
        let output = place.command(&[&["events", "replay"], more].concat()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let from = ["--from", "2026-11-21T00:00:00Z"];
    for (more, named) in [
        (&[][..], "--from"),
        (&from, "--type"),
        (&["--from", "yesterday", "--type", "order.paid"], "yesterday"),
        (&["--from", "2026-11-21T00:00:00Z", "--type", "order.eaten"], "must be one of transaction.created"),
        (&["--from", "2026-11-21T00:00:00Z", "--type", "order.paid", "--to", "nobody"], "webhook, queue"),
    ] {
        let (code, error) = replay(more);
        assert!(code == Some(2) && error.contains(named), "{more:?}: {error}");
    }
    let right = [&["events", "replay"][..], &from, &["--type", "order.paid,order.failed"]].concat();
    assert_eq!(place.run(&right), "0 events, of which 0 deliveries would start anew; --execute does it\n");
    for queue in ["refunds", "orders"] {
        assert_eq!(place.run(&["dlq", "list", "--only", queue]), "there are no dead letters\n");
        assert_eq!(place.run(&["dlq", "replay", "--all", queue]), "0 replayed\n");
        assert_eq!(place.run(&["dlq", "discard", "--all", queue]), "0 discarded\n");
    }
}
