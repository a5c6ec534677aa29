//! Terraform over an emulator of AWS, in a copy of the configuration.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use http::request::Builder;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use psp_testkit::servers::SqsServer;
use serde_json::{Value, json};
use tokio::net::TcpStream;

/// The region of everything.
pub(crate) const REGION: &str = "sa-east-1";
/// Credentials that an emulator takes.
pub(crate) const CREDENTIALS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")];

/// A local state: the bucket's policy refuses an emulator that speaks no TLS.
const OVERRIDE: &str = "terraform {\n  backend \"local\" {}\n}\n";

/// An emulator of AWS.
pub(crate) struct Aws(SqsServer);

impl Aws {
    pub(crate) async fn start() -> Self {
        Self(SqsServer::aws().await)
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.0.endpoint
    }

    /// Asks a service that speaks JSON; `target` is the operation with the service's prefix.
    pub(crate) async fn ask(&self, service: &str, target: &str, body: &Value) -> Value {
        let request = Request::post("/").header("content-type", "application/x-amz-json-1.1");
        let request = request.header("x-amz-target", target);
        serde_json::from_str(&self.send(service, request, body.to_string()).await).unwrap()
    }

    /// Makes a zone of names; its id.
    pub(crate) async fn create_zone(&self, name: &str) -> String {
        let request = Request::post("/2013-04-01/hostedzone").header("content-type", "text/xml");
        let body = format!(
            "<CreateHostedZoneRequest xmlns=\"https://route53.amazonaws.com/doc/2013-04-01/\"><Name>{name}</Name>\
             <CallerReference>1</CallerReference></CreateHostedZoneRequest>"
        );
        let answer = self.send("route53", request, body).await;
        let (_, rest) = answer.split_once("<Id>/hostedzone/").expect("an id");
        rest.split_once('<').unwrap().0.to_owned()
    }

    async fn send(&self, service: &str, request: Builder, body: String) -> String {
        let address = self.endpoint().trim_start_matches("http://");
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        // The emulator reads region and service from the credential and checks no signature.
        let credential = format!("test/20260101/{REGION}/{service}/aws4_request");
        let signature = format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=0");
        let request = request.header("host", address).header("authorization", signature);
        let response = sender.send_request(request.body(Full::new(Bytes::from(body))).unwrap()).await.unwrap();
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(status.is_success(), "{service}: {status} {text}");
        text
    }
}

/// A configuration with its state.
pub(crate) struct Stack {
    dir: PathBuf,
    env: Vec<(String, String)>,
    var_args: Vec<String>,
}

impl Stack {
    /// The configuration in that directory.
    pub(crate) fn new(aws: &Aws, dir: PathBuf, vars: &[(&str, &str)], var_file: Option<&str>) -> Self {
        std::fs::write(dir.join("emulator_override.tf"), OVERRIDE).unwrap();
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let fixed = [
            ("AWS_ENDPOINT_URL", aws.endpoint()),
            ("AWS_REGION", REGION),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("AWS_CONFIG_FILE", "/dev/null"),
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
            ("TF_IN_AUTOMATION", "1"),
            ("TF_INPUT", "0"),
        ];
        let vars = vars.iter().map(|(name, value)| (format!("TF_VAR_{name}"), (*value).to_owned()));
        let env = fixed.into_iter().chain(CREDENTIALS).map(owned).chain(vars).collect();
        let var_args = var_file.map(|file| format!("-var-file={file}")).into_iter().collect();
        Self { dir, env, var_args }
    }

    pub(crate) fn apply(&self) {
        self.run(&["init", "-reconfigure"], &[]);
        self.run(&["apply", "-auto-approve"], &self.var_args);
    }

    pub(crate) fn destroy(&self) {
        self.run(&["destroy", "-auto-approve"], &self.var_args);
    }

    /// What a second plan would still change: types of resources with their attributes.
    pub(crate) fn drift(&self) -> BTreeSet<String> {
        self.run(&["plan", "-out=again.tfplan"], &self.var_args);
        let plan: Value = serde_json::from_str(&self.run(&["show", "-json", "again.tfplan"], &[])).unwrap();
        let mut drift = BTreeSet::new();
        for resource in plan["resource_changes"].as_array().unwrap() {
            let (kind, change) = (resource["type"].as_str().unwrap(), &resource["change"]);
            if change["actions"] == json!(["update"]) {
                let after = change["after"].as_object().unwrap().iter();
                let changed = after.filter(|(name, value)| change["before"][name] != **value);
                drift.extend(changed.map(|(name, _)| format!("{kind}.{name}")));
            } else if ![json!(["no-op"]), json!(["read"])].contains(&change["actions"]) {
                drift.insert(format!("{} {}", resource["address"], change["actions"]));
            }
        }
        drift
    }

    /// Every resource, as Terraform's state has it.
    pub(crate) fn resources(&self) -> Vec<Value> {
        let state: Value = serde_json::from_str(&self.run(&["show", "-json"], &[])).unwrap();
        let (mut resources, mut modules) = (Vec::new(), vec![state["values"]["root_module"].clone()]);
        while let Some(module) = modules.pop() {
            let list = |name: &str| module[name].as_array().cloned().unwrap_or_default();
            resources.extend(list("resources").into_iter().filter(|resource| resource["mode"] == "managed"));
            modules.extend(list("child_modules"));
        }
        resources
    }

    pub(crate) fn output(&self, name: &str) -> Value {
        serde_json::from_str(&self.run(&["output", "-json", name], &[])).unwrap()
    }

    fn run(&self, args: &[&str], more: &[String]) -> String {
        let mut command = Command::new("terraform");
        command.args(args).args(more).current_dir(&self.dir).env_remove("AWS_PROFILE").envs(self.env.iter().cloned());
        let output = command.output().expect("terraform");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "terraform {args:?}\n{}\n{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }
}

/// Copies a directory, without what Terraform has put into it.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (name, target) = (entry.file_name(), to.join(entry.file_name()));
        if entry.file_type().unwrap().is_dir() {
            if name != ".terraform" {
                copy(&entry.path(), &target);
            }
        } else if !name.to_string_lossy().contains(".tfstate") {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
