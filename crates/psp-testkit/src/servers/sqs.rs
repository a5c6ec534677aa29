use std::path::Path;
use std::time::{Duration, Instant};

use psp_domain::ports::{IdGenerator, UuidV7Generator};
use testcontainers::core::{IntoContainerPort, WaitFor};
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, GenericImage, ImageExt};
use tokio::net::TcpStream;

use super::native::{Native, program};
use super::{SQS_ENDPOINT, free_port, is_no_engine};

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_mins(1);

/// A server that speaks SQS and KMS.
pub struct SqsServer {
    /// Its address, such as `http://127.0.0.1:4566`.
    pub endpoint: String,
    _running: Running,
}

#[expect(dead_code, reason = "what is held runs")]
enum Running {
    Elsewhere,
    Container(Box<ContainerAsync<GenericImage>>),
    Native(Native),
}

/// A part of a server for one test: names of queues that start with the prefix are nobody else's.
#[derive(Debug, Clone)]
pub struct SqsPrefix {
    /// The server's address.
    pub endpoint: String,
    /// The prefix.
    pub prefix: String,
}

impl SqsServer {
    /// The one that is named, or else a new one.
    pub async fn find() -> Self {
        match std::env::var(SQS_ENDPOINT) {
            Ok(endpoint) => Self { endpoint, _running: Running::Elsewhere },
            Err(_) => Self::start().await,
        }
    }

    /// A new one: in a container where an engine answers, otherwise native.
    pub async fn start() -> Self {
        match Self::in_container().await {
            Ok(server) => server,
            Err(error) if is_no_engine(&error) => Self::native().await,
            Err(error) => panic!("the Docker engine answers, but SQS does not start in it: {error}"),
        }
    }

    async fn in_container() -> Result<Self, testcontainers::TestcontainersError> {
        let image = GenericImage::new("localstack/localstack", "4")
            .with_exposed_port(4566.tcp())
            .with_wait_for(WaitFor::message_on_stdout("Ready."))
            .with_env_var("SERVICES", "sqs,kms");
        let container = image.start().await?;
        let (host, port) = (container.get_host().await?, container.get_host_port_ipv4(4566).await?);
        Ok(Self { endpoint: format!("http://{host}:{port}"), _running: Running::Container(Box::new(container)) })
    }

    /// A new moto.
    pub async fn native() -> Self {
        Self::moto(&[]).await
    }

    /// A new moto for all of AWS, for clients that must not lose an answer.
    pub async fn aws() -> Self {
        Self::moto(&["--no-lookahead"]).await
    }

    async fn moto(args: &[&str]) -> Self {
        let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = program("python3", [crate_dir.join("../../target/test-venv/bin")]).expect("python3");
        let script = crate_dir.join("src/servers/moto_server.py");
        let dir = tempfile::Builder::new().prefix("psp-moto-").tempdir().unwrap().keep();
        let (port, log) = (free_port(), dir.join("log"));
        let text = port.to_string();
        let mut command = vec![python.as_os_str(), script.as_os_str(), text.as_ref()];
        command.extend(args.iter().map(std::ffi::OsStr::new));
        let server = Native::start("TERM", &dir, &log, &command, None);
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            let log = || std::fs::read_to_string(&log).unwrap_or_default();
            assert!(begun.elapsed() < PATIENCE, "no moto; `make tools` installs it\n{}", log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self { endpoint: format!("http://127.0.0.1:{port}"), _running: Running::Native(server) }
    }

    /// A prefix that nobody else uses.
    pub fn prefix(&self) -> SqsPrefix {
        let id = UuidV7Generator.next_id().simple().to_string();
        SqsPrefix { endpoint: self.endpoint.clone(), prefix: format!("t{}-", &id[8..]) }
    }
}
