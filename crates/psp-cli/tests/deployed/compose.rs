//! The containers of `docker-compose.yml`, built and started for real. Only where a Docker engine answers.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::main_job::approve_and_settle;
use crate::support::Api;

/// A running project, gone with its data on drop.
struct Containers {
    root: PathBuf,
    port: u16,
}

impl Containers {
    fn start() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let containers = Self { root, port };
        containers.compose(&["up", "--build", "--detach", "--wait", "--wait-timeout", "180"]);
        containers
    }

    fn compose(&self, args: &[&str]) -> String {
        let mut command = Command::new("docker");
        command.args(["compose", "--project-name", "psp-test"]).args(args).current_dir(&self.root);
        command.env("PSP_PORT", self.port.to_string()).env("PSP_CARD_KEYS", crate::CARD_KEY);
        let output = command.env("PSP_DATABASE_PASSWORD", "test").output().expect("docker");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{args:?}\n{}\n{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.compose(&["logs", "--no-color"]));
        }
        self.compose(&["down", "--volumes"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_run_the_main_job() {
    let containers = Containers::start();
    let api = Api { address: format!("127.0.0.1:{}", containers.port) };
    approve_and_settle(&api, |args| containers.compose(&[&["run", "--rm", "worker"], args].concat())).await;
    containers.compose(&["stop", "api", "worker", "scheduler"]);
    let ended =
        containers.compose(&["ps", "--all", "--format", "{{.Service}} {{.ExitCode}}", "api", "worker", "scheduler"]);
    assert!(ended.lines().count() == 3 && ended.lines().all(|line| line.ends_with(" 0")), "{ended}");
}
