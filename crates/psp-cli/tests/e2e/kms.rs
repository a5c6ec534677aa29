//! The master key is in KMS.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_sdk_kms::Client;
use aws_sdk_kms::config::{Credentials, Region};
use hyper::Request;
use psp_testkit::servers::{self, Fault, FaultyProxy};
use serde_json::{Value, json};

use crate::support::{Answer, Place, Process, example};

/// Two keys, and an alias that names the first.
struct Master {
    kms: Client,
    arns: [String; 2],
    alias: String,
}

impl Master {
    async fn new(endpoint: &str) -> Self {
        let config = psp_sqs::config().endpoint_url(endpoint).region(Region::new("us-east-1"));
        let config = config.credentials_provider(Credentials::new("test", "test", None, None, "test")).load().await;
        let kms = Client::new(&config);
        let mut arns = [String::new(), String::new()];
        for arn in &mut arns {
            *arn = kms.create_key().send().await.unwrap().key_metadata.unwrap().arn.unwrap();
        }
        let alias = format!("alias/{}", arns[0].rsplit('/').next().unwrap());
        kms.create_alias().alias_name(&alias).target_key_id(&arns[0]).send().await.unwrap();
        Self { kms, arns, alias }
    }

    async fn rotate(&self) {
        self.kms.update_alias().alias_name(&self.alias).target_key_id(&self.arns[1]).send().await.unwrap();
    }

    fn place(&self, endpoint: &str) -> Place {
        let aws = [("AWS_REGION", "us-east-1"), ("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")];
        let mut place = Place::new(&aws);
        place.unset("PSP_CARD_KEYS");
        place.set("AWS_ENDPOINT_URL", endpoint);
        place.set("PSP_CARD_KMS_KEY", &self.alias);
        place
    }
}

/// Posts JSON to a path, without a customer.
async fn send(psp: &Process, path: &str, key: Option<&str>, body: &Value) -> Answer {
    let request = Request::post(path).header("host", "psp").header("content-type", "application/json");
    let request = key.into_iter().fold(request, |request, key| request.header("idempotency-key", key));
    psp.client().await.send(request.body(body.to_string().into()).unwrap()).await.unwrap()
}

#[tokio::test]
async fn payments_pass_and_idempotency_keys_hold_over_a_rotation_in_kms() {
    let endpoint = servers::kms().await;
    let master = Master::new(&endpoint).await;
    let place = master.place(&endpoint);
    let mut api = place.start(&["api"]).await;
    let first = api.client().await.post("123", &example(), Some("key")).await.unwrap();
    assert_eq!(first.status, 201, "{}", first.text);
    assert!(!place.path().join("psp.db.key").exists(), "no key is on the disk");
    api.kill();

    // What was sealed under the old key is sealed anew; the key of fingerprints stays what it was.
    master.rotate().await;
    let rotation: Value = serde_json::from_str(&place.run(&["vault", "rotate", "--json"])).unwrap();
    assert_eq!((&rotation["cards"], &rotation["keys"], &rotation["unopened"]), (&json!(1), &json!(1), &json!(0)));
    assert_eq!(rotation["key"], master.arns[1]);
    let psp = place.serve().await;
    psp.until("123", "/transactions", |list| list[0]["status"] == "pending_payment").await;
    let again = psp.client().await.post("123", &example(), Some("key")).await.unwrap();
    assert_eq!((again.status, &again.text), (first.status, &first.text), "the same request under its key");
    assert_eq!(psp.all("123", "/transactions").await.len(), 1);
    assert_eq!(place.count("SELECT 1 FROM transactions WHERE sealed_card IS NOT NULL").await, 0);
}

#[tokio::test]
async fn while_kms_is_away_payments_are_refused_for_the_moment() {
    let endpoint = servers::kms().await;
    let master = Master::new(&endpoint).await;
    let is_away = Arc::new(AtomicBool::new(false));
    let proxy = FaultyProxy::start(endpoint.trim_start_matches("http://"), {
        let is_away = Arc::clone(&is_away);
        move |_| if is_away.load(Ordering::SeqCst) { Fault::CutBefore } else { Fault::None }
    })
    .await;
    let place = master.place(&format!("http://{}", proxy.address));
    // The first process makes the key of fingerprints; the second opens it, and has no data key in hand yet; the third has neither.
    place.start(&["api"]).await.kill();
    let psp = place.serve().await;
    is_away.store(true, Ordering::SeqCst);
    let mut late = place.start(&["api"]).await;
    late.await_log("the key of fingerprints does not open yet").await;
    assert!(late.log().contains("the service that has the master keys does not answer"), "{}", late.log());
    for api in [&psp, &late] {
        let refused = api.post("123", &example()).await;
        assert_eq!(refused.status, 503, "{}", refused.text);
        assert!(refused.headers.contains_key("retry-after") && refused.text.contains("nothing was written"));
    }
    // What seals no card and has no key needs no vault.
    let deposit = json!({ "user_id": 123, "amount": "100.50", "currency": "USD" });
    assert_eq!(late.get("123", "/transactions").await.text, "[]");
    assert_eq!(send(&late, "/deposit", None, &deposit).await.status, 202);
    let refused = send(&late, "/deposit", Some("key"), &deposit).await;
    assert_eq!((refused.status.as_u16(), &refused.headers["retry-after"]), (503, &"1".parse().unwrap()));
    let first = send(&psp, "/deposit", Some("key"), &deposit).await;
    assert_eq!(first.status, 202, "{}", first.text);

    is_away.store(false, Ordering::SeqCst);
    let again = send(&late, "/deposit", Some("key"), &deposit).await;
    assert_eq!((again.status, again.text), (first.status, first.text), "every process has the same key");
    assert_eq!(psp.post("123", &example()).await.status, 201);
    psp.until("123", "/transactions", |list| list[0]["status"] == "pending_payment").await;
    // Keys in hand outlast an outage.
    is_away.store(true, Ordering::SeqCst);
    assert_eq!(psp.post("456", &example()).await.status, 201);
}

// The proxy works while the test waits for the command.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_card_under_a_key_that_may_not_be_used_holds_no_other_back() {
    let endpoint = servers::kms().await;
    let master = Master::new(&endpoint).await;
    let body = r#"{"__type":"AccessDeniedException","message":"not for you"}"#;
    let length = body.len();
    let head = format!("HTTP/1.1 400 Bad Request\r\ncontent-length: {length}\r\nconnection: close");
    let denied = &*format!("{head}\r\n\r\n{body}").leak();
    let proxy = FaultyProxy::start(endpoint.trim_start_matches("http://"), move |piece| {
        let is_decrypt = String::from_utf8_lossy(piece).contains("TrentService.Decrypt");
        if is_decrypt { Fault::Answer(denied) } else { Fault::None }
    })
    .await;
    let mut place = master.place(&endpoint);
    place.start(&["api"]).await.post("123", &example()).await;
    master.rotate().await;
    place.start(&["api"]).await.post("456", &example()).await;
    place.set("AWS_ENDPOINT_URL", &format!("http://{}", proxy.address));
    let output = place.command(&["vault", "rotate", "--json"]).output().unwrap();
    let rotation: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(!output.status.success(), "what does not open is told");
    assert_eq!((&rotation["cards"], &rotation["current"], &rotation["unopened"]), (&json!(0), &json!(1), &json!(2)));
    assert_eq!(rotation["key"], master.arns[1]);
}
