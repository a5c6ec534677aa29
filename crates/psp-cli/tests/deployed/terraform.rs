//! Terraform over an emulator of AWS, in a copy of the configuration.

use std::path::{Path, PathBuf};
use std::process::Command;

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use psp_testkit::servers::SqsServer;
use serde_json::Value;
use tokio::net::TcpStream;

/// The region of everything.
pub(crate) const REGION: &str = "sa-east-1";
/// Credentials that an emulator takes.
pub(crate) const CREDENTIALS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")];

/// A local state, and addresses of S3 that need no name server.
const OVERRIDE: &str = r#"
terraform {
  backend "local" {}
}

provider "aws" {
  s3_use_path_style = true
}
"#;

/// An emulator of AWS.
pub(crate) struct Aws {
    server: SqsServer,
}

impl Aws {
    pub(crate) async fn start() -> Self {
        Self { server: SqsServer::native().await }
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.server.endpoint
    }

    /// Asks a service that speaks JSON; `target` is the operation with the service's prefix.
    pub(crate) async fn ask(&self, service: &str, target: &str, body: &Value) -> Value {
        let address = self.endpoint().trim_start_matches("http://");
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        // The emulator reads region and service from the credential and checks no signature.
        let credential = format!("test/20260101/{REGION}/{service}/aws4_request");
        let request = Request::post("/")
            .header("host", address)
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", target)
            .header(
                "authorization",
                format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=0"),
            )
            .body(Full::new(Bytes::from(body.to_string())))
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        let status = response.status();
        let text = response.into_body().collect().await.unwrap().to_bytes();
        assert!(status.is_success(), "{target}: {status} {}", String::from_utf8_lossy(&text));
        serde_json::from_slice(&text).unwrap()
    }
}

/// A configuration with its state.
pub(crate) struct Stack {
    dir: PathBuf,
    env: Vec<(String, String)>,
    var_args: Vec<String>,
}

impl Stack {
    /// The configuration in `infrastructure/` and that folder, in a copy.
    pub(crate) fn new(aws: &Aws, copy: &Path, folder: &str, vars: &[(&str, &str)], var_file: Option<&str>) -> Self {
        let dir = copy.join(folder);
        std::fs::write(dir.join("emulator_override.tf"), OVERRIDE).unwrap();
        let mut env = vec![
            ("AWS_ENDPOINT_URL".to_owned(), aws.endpoint().to_owned()),
            ("AWS_REGION".to_owned(), REGION.to_owned()),
            ("AWS_EC2_METADATA_DISABLED".to_owned(), "true".to_owned()),
            ("TF_IN_AUTOMATION".to_owned(), "1".to_owned()),
            ("TF_INPUT".to_owned(), "0".to_owned()),
        ];
        env.extend(CREDENTIALS.map(|(name, value)| (name.to_owned(), value.to_owned())));
        env.extend(vars.iter().map(|(name, value)| (format!("TF_VAR_{name}"), (*value).to_owned())));
        let var_args = var_file.map(|file| format!("-var-file={file}")).into_iter().collect();
        let stack = Self { dir, env, var_args };
        stack.run(&["init", "-reconfigure"], &[]);
        stack
    }

    pub(crate) fn apply(&self) {
        self.run(&["apply", "-auto-approve", "-compact-warnings"], &self.var_args);
    }

    pub(crate) fn destroy(&self) {
        self.run(&["destroy", "-auto-approve", "-compact-warnings"], &self.var_args);
    }

    /// What a second plan would still change: addresses of resources.
    pub(crate) fn drift(&self) -> Vec<String> {
        self.run(&["plan", "-out=again.tfplan", "-compact-warnings"], &self.var_args);
        let plan: Value = serde_json::from_str(&self.run(&["show", "-json", "again.tfplan"], &[])).unwrap();
        let changes = plan["resource_changes"].as_array().unwrap().iter();
        let changes =
            changes.filter(|change| !["no-op", "read"].contains(&change["change"]["actions"][0].as_str().unwrap()));
        changes.map(|change| change["address"].as_str().unwrap().to_owned()).collect()
    }

    /// How many resources there are.
    pub(crate) fn count(&self) -> usize {
        let listed = self.run(&["state", "list"], &[]);
        listed.lines().filter(|line| !line.contains("data.")).count()
    }

    pub(crate) fn output(&self, name: &str) -> Value {
        serde_json::from_str(&self.run(&["output", "-json", name], &[])).unwrap()
    }

    fn run(&self, args: &[&str], more: &[String]) -> String {
        let mut command = Command::new("terraform");
        command.args(args).args(more).current_dir(&self.dir).envs(self.env.iter().cloned());
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
