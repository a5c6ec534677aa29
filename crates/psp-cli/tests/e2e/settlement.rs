//! Settlement by the real binary.

use serde_json::{Value, json};

use crate::support::{Place, Process, example, example_with};

pub(crate) fn in_days(days: u64) -> String {
    // The processes under test use the machine's clock.
    #[expect(clippy::disallowed_methods, reason = "the date that the binary will compute, too")]
    let now = chrono::Utc::now();
    (now + chrono::Days::new(days)).date_naive().to_string()
}

fn settle(place: &Place, days: u64) -> Value {
    let chunk = ["--settlement-chunk-size", "7"];
    let args = ["job", "settle-payables", "--json", "--date", &in_days(days), chunk[0], chunk[1]];
    serde_json::from_str(&place.run(&args)).unwrap()
}

async fn pay(psp: &Process, count: usize) {
    let mut client = psp.client().await;
    for _ in 0..count {
        assert_eq!(client.post("123", &example(), None).await.unwrap().status, 201);
    }
    psp.until("123", "/balance", |b| b["waiting_funds"] == 2375 * count).await;
}

#[tokio::test]
async fn what_is_due_is_paid_once_with_a_server_and_without() {
    let place = Place::new(&[]);
    let mut psp = place.serve().await;
    pay(&psp, 20).await;
    assert_eq!(settle(&place, 29)["payables"], 0, "not due");
    let summary = settle(&place, 31);
    assert_eq!(
        (&summary["chunks"], &summary["payables"], &summary["transactions"]),
        (&json!(3), &json!(20), &json!(20))
    );
    assert_eq!(summary["amounts"], json!([{ "amount": 20 * 2375, "currency": "BRL" }]));
    let balance = json!({ "available": 20 * 2375, "waiting_funds": 0, "currency": "BRL" });
    assert_eq!(psp.get("123", "/balance").await.json(), balance);
    assert!(psp.all("123", "/payables").await.iter().all(|p| p["status"] == "paid"));
    assert!(psp.all("123", "/transactions").await.iter().all(|t| t["status"] == "paid"));
    assert_eq!(settle(&place, 31)["payables"], 0, "again: nothing");

    psp.post("123", &example_with(&json!({ "installments": 2 }))).await;
    psp.until("123", "/balance", |b| b["waiting_funds"] == 2376).await;
    psp.kill();
    assert_eq!(settle(&place, 31)["payables"], 1, "without a server");
    let text = place.run(&["job", "settle-payables", "--date", &in_days(62)]);
    assert!(text.contains("payables      1\ntransactions  1\namount        11.88 BRL\n"), "{text}");
}

#[tokio::test]
async fn two_processes_at_once_pay_once() {
    let place = Place::new(&[]);
    let mut psp = place.serve().await;
    pay(&psp, 100).await;
    psp.kill();
    let (date, args) = (in_days(31), ["job", "settle-payables", "--json", "--settlement-chunk-size", "3", "--date"]);
    let jobs = [(); 2].map(|()| {
        let mut command = place.command(&args);
        command.arg(&date).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().unwrap()
    });
    let summaries = jobs.map(|job| {
        let output = job.wait_with_output().unwrap();
        assert!(output.status.success());
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    });
    let paid: u64 = summaries.iter().map(|s| s["payables"].as_u64().unwrap()).sum();
    assert_eq!(paid, 100, "{summaries:?}");
    let psp = place.serve().await;
    assert_eq!(psp.get("123", "/balance").await.json()["available"], 100 * 2375);
}

#[tokio::test]
async fn a_settlement_killed_midway_is_finished_by_the_next_and_pays_once() {
    const PAYMENTS: usize = 30;
    let place = Place::new(&[]);
    let mut psp = place.serve().await;
    let mut client = psp.client().await;
    for _ in 0..PAYMENTS {
        client.post("123", &example_with(&json!({ "installments": 12, "amount": 12_000 })), None).await.unwrap();
    }
    let owed = PAYMENTS * 12 * 950;
    psp.until("123", "/balance", |b| b["waiting_funds"] == owed).await;
    psp.kill();
    let mut interrupted = 0;
    for round in 0..5 {
        let args = ["job", "settle-payables", "--settlement-chunk-size", "1", "--date", &in_days(400)];
        let mut command = place.command(&args);
        let mut job = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
        let wanted = PAYMENTS * (round + 1);
        let begun = std::time::Instant::now();
        loop {
            let paid = place.count("SELECT 1 FROM payables WHERE status = 'paid'").await;
            if paid >= wanted || job.try_wait().unwrap().is_some() || begun.elapsed() > crate::support::PATIENCE {
                break;
            }
        }
        interrupted += u32::from(job.try_wait().unwrap().is_none());
        job.kill().unwrap();
        job.wait().unwrap();
    }
    assert!(interrupted > 0, "no settlement was interrupted");
    place.run(&["job", "settle-payables", "--date", &in_days(400)]);
    let psp = place.serve().await;
    let balance = json!({ "available": owed, "waiting_funds": 0, "currency": "BRL" });
    assert_eq!(psp.get("123", "/balance").await.json(), balance);
    assert!(psp.all("123", "/transactions").await.iter().all(|t| t["status"] == "paid"));
    let events = place.count("SELECT 1 FROM outbox WHERE kind = 'transaction.paid'").await;
    assert_eq!(events, PAYMENTS, "one event for each");
    assert_eq!(place.count("SELECT 1 FROM outbox WHERE kind = 'payable.paid'").await, PAYMENTS * 12);
}

#[tokio::test]
async fn the_schedule_settles_what_is_due() {
    let place = Place::new(&[("PSP_SETTLEMENT_CRON", "* * * * * *")]);
    let config = "[fees.credit_card]\npercent = \"2.5\"\ndays = 0\ninitial_status = \"waiting_funds\"\n";
    std::fs::write(place.path().join("psp.toml"), config).unwrap();
    let psp = place.serve().await;
    psp.post("123", &example()).await;
    let paid = psp.until("123", "/payables", |list| list[0]["status"] == "paid").await;
    assert_eq!((&paid[0]["fee"], &paid[0]["receivable_amount"]), (&json!(2.5), &json!(2438)));
}

#[tokio::test]
async fn a_server_killed_while_it_settles_leaves_the_rest_to_the_next_one() {
    const PAYMENTS: usize = 400;
    let place = Place::new(&[("PSP_VISIBILITY_TIMEOUT_MS", "500"), ("PSP_SETTLEMENT_CHUNK_SIZE", "1")]);
    let config = "[fees.credit_card]\npercent = \"5\"\ndays = 0\ninitial_status = \"waiting_funds\"\n";
    std::fs::write(place.path().join("psp.toml"), config).unwrap();
    let mut psp = place.start(&["serve", "--settlement-cron", "0 0 1 1 *"]).await;
    pay(&psp, PAYMENTS).await;
    psp.kill();
    let every_second = ["serve", "--settlement-cron", "* * * * * *"];
    let mut interrupted = 0;
    for round in 1..=3 {
        let mut psp = place.start(&every_second).await;
        let begun = std::time::Instant::now();
        loop {
            let paid = place.count("SELECT 1 FROM payables WHERE status = 'paid'").await;
            if paid >= 80 * round {
                interrupted += u32::from(paid < PAYMENTS);
                break;
            }
            assert!(begun.elapsed() < crate::support::PATIENCE, "only {paid} are paid");
            crate::support::pause().await;
        }
        psp.kill();
    }
    assert!(interrupted > 0, "no settlement was interrupted");
    let psp = place.start(&every_second).await;
    let paid = json!({ "available": PAYMENTS * 2375, "waiting_funds": 0, "currency": "BRL" });
    psp.until("123", "/balance", |balance| *balance == paid).await;
    assert!(psp.all("123", "/transactions").await.iter().all(|t| t["status"] == "paid"));
    for sql in [
        "SELECT 1 FROM outbox WHERE kind = 'payable.paid'",
        "SELECT 1 FROM outbox WHERE kind = 'transaction.paid'",
        "SELECT 1 FROM payables WHERE status = 'paid'",
    ] {
        assert_eq!(place.count(sql).await, PAYMENTS, "{sql}");
    }
}
