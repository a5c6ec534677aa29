//! Deliveries, verified with the libraries that receivers use. `make tools` installs them.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use psp_domain::WebhookSecret;
use psp_domain::ports::SystemClock;
use psp_webhooks::{RandomSecrets, SigningSecret};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::receiver::{Heard, Receiver};
use crate::support::{Case, customer};

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The program of each language that verifies what it reads.
fn verifiers() -> [Command; 2] {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/standard_webhooks");
    let mut python = Command::new(project().join("target/webhooks-python/bin/python3"));
    python.arg(scripts.join("verify.py"));
    let mut node = Command::new("node");
    node.arg(scripts.join("verify.cjs")).env("NODE_PATH", project().join("target/webhooks-node/node_modules"));
    [python, node]
}

/// What each of the libraries says of requests.
async fn verified(requests: &[Value]) -> [Vec<String>; 2] {
    let mut said = Vec::new();
    for mut verifier in verifiers() {
        let child = verifier.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.expect("`make tools` installs what receivers verify with");
        let mut input = child.stdin.take().unwrap();
        input.write_all(&serde_json::to_vec(requests).unwrap()).await.unwrap();
        drop(input);
        let output = child.wait_with_output().await.unwrap();
        assert!(output.status.success(), "`make tools` installs what receivers verify with");
        said.push(serde_json::from_slice(&output.stdout).unwrap());
    }
    said.try_into().unwrap()
}

fn request(secret: &WebhookSecret, heard: &Heard) -> Value {
    let names = ["webhook-id", "webhook-timestamp", "webhook-signature"];
    let headers = names.map(|name| (name.to_owned(), heard.header(name).into()));
    json!({
        "secret": secret.expose(),
        "headers": serde_json::Map::from_iter(headers),
        "body": std::str::from_utf8(&heard.body).unwrap(),
    })
}

#[tokio::test]
async fn receivers_verify_what_is_delivered_and_refuse_what_is_not() {
    let (case, receiver) = (Case::by(Arc::new(SystemClock)), Receiver::saying(200).await);
    let (endpoint, first) = case.endpoint(&receiver.url()).await;
    let _working = case.start();
    let one = case.event().await;
    case.attempted(one, &endpoint, 1).await;
    let (_, second) = case.endpoints.rotate_secret(&customer(), endpoint.id).await.unwrap().unwrap();
    let two = case.event().await;
    case.attempted(two, &endpoint, 1).await;
    let [before, after] = &receiver.heard()[..] else { panic!("two requests") };

    let (one, two) = (one.to_string(), two.to_string());
    let refused = |id: &str| format!("refused of {id}");
    let mut tampered = request(&first, before);
    tampered["body"] = tampered["body"].as_str().unwrap().replace("2500", "2501").into();
    assert_ne!(tampered["body"], request(&first, before)["body"]);
    let mut of_another = request(&first, before);
    of_another["headers"]["webhook-id"] = two.as_str().into();
    let stranger = psp_domain::ports::SecretSource::new_secret(&RandomSecrets::default()).unwrap();
    let cases = [
        (request(&first, before), one.clone()),
        (request(&second, after), two.clone()),
        (request(&first, after), two.clone()),
        (request(&second, before), refused("a secret that came later")),
        (tampered, refused("a body that was changed")),
        (of_another, refused("another id")),
        (request(&stranger, before), refused("a wrong secret")),
        (signed_before(&first, before, 301), refused("an old time")),
        (signed_before(&first, before, -360), refused("a time to come")),
        (signed_before(&first, before, 240), one.clone()),
    ];
    let requests: Vec<_> = cases.iter().map(|(request, _)| request.clone()).collect();
    for (language, said) in ["Python", "JavaScript"].into_iter().zip(verified(&requests).await) {
        assert_eq!(said.len(), cases.len());
        for ((_, expected), said) in cases.iter().zip(said) {
            if expected.starts_with("refused") {
                assert!(said.starts_with("refused: "), "{language}: {expected}: {said}");
            } else {
                assert_eq!(&said, expected, "{language}");
            }
        }
    }
}

/// The same request, sent that many seconds before, by somebody who has the secret.
fn signed_before(secret: &WebhookSecret, heard: &Heard, seconds: i64) -> Value {
    let timestamp = heard.header("webhook-timestamp").parse::<i64>().unwrap() - seconds;
    let signing = SigningSecret::parse(secret.expose()).unwrap();
    let mut request = request(secret, heard);
    request["headers"]["webhook-timestamp"] = timestamp.to_string().into();
    request["headers"]["webhook-signature"] = signing.sign(heard.header("webhook-id"), timestamp, &heard.body).into();
    request
}
