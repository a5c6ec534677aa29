//! The file of the embedded store: several processes that make it, and a disk that has no room.

use std::collections::HashSet;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::support::{PATIENCE, Place, Process, example, pause};

#[test]
fn processes_that_start_at_once_make_one_database() {
    for _ in 0..5 {
        let place = Place::new(&[]);
        let start = |_| place.command(&["migrate"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let processes: Vec<_> = (0..4).map(start).collect();
        let outputs: Vec<_> = processes.into_iter().map(|process| process.wait_with_output().unwrap()).collect();
        for output in &outputs {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        let applied = outputs.iter().filter(|output| output.stdout.starts_with(b"applied")).count();
        assert_eq!(applied, 1, "one of them migrated");
    }
}

/// Sets the largest file that a process may write.
fn limit_files(psp: &Process, bytes: &str) {
    let limit = format!("--fsize={bytes}:unlimited");
    assert!(Command::new("prlimit").args(["--pid", &psp.id().to_string(), &limit]).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_without_room_is_told_and_what_was_answered_is_there_when_it_has_room_again() {
    // Beyond the limit a process gets a signal, which would end it, unless it ignores it: then writes fail.
    let place = Place::new(&[("PSP_LOG", "error,psp=info")]);
    let psp = place.start_through(&["sh", "-c", "trap '' XFSZ; exec \"$0\" \"$@\""], &["serve"]).await;
    limit_files(&psp, "400000");
    let mut client = psp.client().await;
    let mut promised = HashSet::new();
    let mut refused = 0;
    let begun = Instant::now();
    while refused < 20 {
        let answer = client.post("123", &example(), None).await.unwrap();
        match answer.status.as_u16() {
            201 => drop(promised.insert(answer.json()["id"].as_str().unwrap().to_owned())),
            503 => refused += 1,
            other => panic!("{other}: {}", answer.text),
        }
        assert!(begun.elapsed() < PATIENCE, "the limit is not reached after {}", promised.len());
    }
    let begun = Instant::now();
    while psp.get("123", "/_readiness_check_").await.status != 503 {
        assert!(begun.elapsed() < PATIENCE, "it says that it is ready");
        pause().await;
    }
    limit_files(&psp, "unlimited");
    loop {
        let ready = psp.get("123", "/_readiness_check_").await.status == 200;
        let answer = client.post("123", &example(), None).await.unwrap();
        if ready && answer.status == 201 {
            promised.insert(answer.json()["id"].as_str().unwrap().to_owned());
            break;
        }
        assert!(begun.elapsed() < 2 * PATIENCE, "it does not recover: {}\n{}", answer.text, psp.log());
        pause().await;
    }
    let approved = |t: &serde_json::Value| t.as_array().unwrap().iter().all(|t| t["status"] == "pending_payment");
    psp.until("123", "/transactions?limit=200", approved).await;
    let there: HashSet<_> =
        psp.all("123", "/transactions").await.iter().map(|t| t["id"].as_str().unwrap().to_owned()).collect();
    assert!(promised.is_subset(&there), "{:?} are lost", promised.difference(&there).collect::<Vec<_>>());
    assert_eq!(place.run(&["dlq", "list", "--json"]).trim(), "[]");
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_rows_are_dead_letters_and_hold_no_other_back() {
    let place = Place::new(&[("PSP_RETRY_BASE_MS", "1"), ("PSP_RETRY_MAX_MS", "5")]);
    let api = place.start(&["api"]).await;
    for customer in ["transaction", "sound", "message", "sound"] {
        api.post(customer, &example()).await;
    }
    // No UTF-8: SQLite takes it, and nobody can read it.
    let damage = [
        "UPDATE transactions SET description = CAST(x'ff' AS TEXT) WHERE customer_id = 'transaction'",
        "UPDATE outbox SET body = CAST(x'ff' AS TEXT) WHERE customer_id = 'message'",
    ];
    for sql in damage {
        place.sqlite(sql).await;
    }
    let _worker = place.start(&["worker"]).await;
    let approved = |t: &serde_json::Value| t.as_array().unwrap().iter().all(|t| t["status"] == "pending_payment");
    api.until("sound", "/transactions", approved).await;
    let begun = Instant::now();
    let dead = loop {
        let dead: Vec<_> =
            place.sqlite("SELECT reason FROM outbox WHERE dead_at IS NOT NULL ORDER BY customer_id DESC").await;
        if dead.len() == 2 {
            break dead.iter().map(|row| sqlx::Row::get::<String, _>(row, 0)).collect::<Vec<_>>();
        }
        assert!(begun.elapsed() < PATIENCE, "{} dead letters", dead.len());
        pause().await;
    };
    assert!(dead.iter().all(|reason| reason.contains("damaged row")), "{dead:?}");
    assert_eq!(api.get("transaction", "/transactions").await.status, 500);
}
