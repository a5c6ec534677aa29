//! A 201 is a promise: whatever is killed, the transaction is there and becomes payable once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Client, PATIENCE, Place, Process, example, pause};

/// Posts on that many connections until they break; the ids of all 201.
fn load(address: &str, connections: usize, answered: &Arc<AtomicUsize>) -> Vec<tokio::task::JoinHandle<Vec<Value>>> {
    let connect = |_| {
        let (address, answered) = (address.to_owned(), Arc::clone(answered));
        tokio::spawn(async move {
            let mut ids = Vec::new();
            let Ok(mut client) = Client::connect(&address).await else { return ids };
            while let Ok(answer) = client.post("load", &example(), None).await {
                if answer.status == 201 {
                    ids.push(answer.json()["id"].clone());
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            }
            ids
        })
    };
    (0..connections).map(connect).collect()
}

async fn answered_at_least(answered: &AtomicUsize, wanted: usize) {
    let begun = Instant::now();
    while answered.load(Ordering::Relaxed) < wanted {
        assert!(begun.elapsed() < PATIENCE, "only {} answers", answered.load(Ordering::Relaxed));
        pause().await;
    }
}

/// Every id is there, has ended, and has exactly one payable; so has every other transaction.
async fn assert_all_payable(psp: &Process, promised: &HashSet<String>) {
    let begun = Instant::now();
    let transactions = loop {
        let transactions = psp.all("load", "/transactions").await;
        if transactions.iter().all(|t| t["status"] == "pending_payment") {
            break transactions;
        }
        assert!(begun.elapsed() < Duration::from_mins(1), "some stay processing");
        pause().await;
    };
    let there: HashSet<_> = transactions.iter().map(|t| t["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(there.len(), transactions.len(), "no transaction twice");
    let missing: Vec<_> = promised.difference(&there).collect();
    assert!(missing.is_empty(), "{} of {} are lost", missing.len(), promised.len());
    let mut payables: HashMap<String, usize> = HashMap::new();
    for payable in psp.all("load", "/payables").await {
        *payables.entry(payable["transaction_id"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    assert!(payables.values().all(|count| *count == 1), "a payable twice");
    assert_eq!(payables.len(), there.len(), "a payable is missing");
    let waiting = psp.get("load", "/balance").await.json()["waiting_funds"].as_u64().unwrap();
    assert_eq!(waiting, 2375 * there.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_of_a_load_nothing_answered_is_lost_or_doubled() {
    let place = Place::new(&[("PSP_VISIBILITY_TIMEOUT_MS", "1000"), ("PSP_LOG", "warn,psp=info")]);
    let mut promised = HashSet::new();
    for round in 1..=4 {
        let mut psp = place.serve().await;
        let answered = Arc::new(AtomicUsize::new(0));
        let tasks = load(&psp.address, 32, &answered);
        answered_at_least(&answered, 150 * round).await;
        psp.kill();
        for task in tasks {
            promised.extend(task.await.unwrap().into_iter().map(|id| id.as_str().unwrap().to_owned()));
        }
    }
    assert!(promised.len() >= 1500);
    let psp = place.serve().await;
    assert_all_payable(&psp, &promised).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_process_answers_what_is_under_way_and_exits_cleanly() {
    let place = Place::new(&[("PSP_LOG", "warn,psp=info")]);
    let mut psp = place.serve().await;
    let idle = psp.client().await;
    let answered = Arc::new(AtomicUsize::new(0));
    let tasks = load(&psp.address, 32, &answered);
    answered_at_least(&answered, 500).await;
    let begun = Instant::now();
    psp.terminate();
    let status = psp.ended().await;
    assert!(status.success(), "{status}: {}", psp.log());
    assert!(begun.elapsed() < Duration::from_secs(10), "an idle connection held it up");
    assert!(psp.log().contains("stopped") && !psp.log().contains("ERROR"), "{}", psp.log());
    drop(idle);
    let mut promised = HashSet::new();
    for task in tasks {
        promised.extend(task.await.unwrap().into_iter().map(|id| id.as_str().unwrap().to_owned()));
    }
    assert!(!place.path().join("psp.db-wal").exists(), "SQLite's log was written back");
    let psp = place.serve().await;
    assert_all_payable(&psp, &promised).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_processes_share_one_file() {
    let place = Place::new(&[("PSP_LOG", "warn,psp=info"), ("PSP_VISIBILITY_TIMEOUT_MS", "1000")]);
    let api = place.start(&["api"]).await;
    let mut serve = place.serve().await;
    let mut worker = place.start(&["worker"]).await;
    let _scheduler = place.start(&["scheduler"]).await;
    let answered = Arc::new(AtomicUsize::new(0));
    let mut tasks = load(&api.address, 8, &answered);
    tasks.extend(load(&serve.address, 8, &answered));
    answered_at_least(&answered, 400).await;
    serve.kill();
    worker.kill();
    answered_at_least(&answered, 800).await;
    let address = api.address.clone();
    drop(api);
    let mut promised = HashSet::new();
    for task in tasks {
        promised.extend(task.await.unwrap().into_iter().map(|id| id.as_str().unwrap().to_owned()));
    }
    assert!(Client::connect(&address).await.is_err());
    let psp = place.serve().await;
    assert_all_payable(&psp, &promised).await;
}
