//! A simulator that serves until it is dropped, and gateways that ask it.

use std::sync::Arc;
use std::time::Duration;

use psp_domain::ports::{Clock, SystemClock};
use psp_gateways::{HttpGateway, HttpOptions, HttpProtocol, SigningKey};
use psp_simulator::{Simulator, SimulatorOptions};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub(crate) const SECRET: &str = "a secret of the tests, which is long enough";

pub(crate) struct World {
    #[allow(dead_code, reason = "not every test program asks for it")]
    pub(crate) simulator: Simulator,
    pub(crate) address: String,
    task: JoinHandle<std::io::Result<()>>,
}

pub(crate) fn key(secret: &str) -> SigningKey {
    SigningKey::new(secret.into()).unwrap()
}

impl World {
    pub(crate) async fn new() -> Self {
        let options = SimulatorOptions { slow_answer: Duration::from_secs(1), ..SimulatorOptions::new(key(SECRET)) };
        let simulator = Simulator::new(options, Arc::new(SystemClock)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let task = tokio::spawn(simulator.clone().serve(listener, std::future::pending()));
        Self { simulator, address, task }
    }

    /// A gateway that speaks JSON and calls nobody back.
    #[allow(dead_code, reason = "not every test program asks for it")]
    pub(crate) fn gateway(&self) -> HttpGateway {
        self.gateway_with(|_| ())
    }

    /// A gateway with other options.
    pub(crate) fn gateway_with(&self, change: impl FnOnce(&mut HttpOptions)) -> HttpGateway {
        self.gateway_by(Arc::new(SystemClock), change)
    }

    /// A gateway with another clock and options.
    pub(crate) fn gateway_by(&self, clock: Arc<dyn Clock>, change: impl FnOnce(&mut HttpOptions)) -> HttpGateway {
        let timeout = Duration::from_secs(10);
        let mut options = HttpOptions {
            name: "acquirer".parse().unwrap(),
            protocol: HttpProtocol::Json,
            url: format!("http://{}", self.address).parse().unwrap(),
            key: key(SECRET),
            callback_base: None,
            connect_timeout: timeout,
            timeout,
        };
        change(&mut options);
        HttpGateway::new(options, clock).unwrap()
    }

    /// A gateway that speaks XML.
    #[allow(dead_code, reason = "not every test program asks for it")]
    pub(crate) fn soap_gateway(&self) -> HttpGateway {
        self.gateway_with(|options| {
            options.protocol = HttpProtocol::Xml;
            options.url = format!("http://{}/soap", self.address).parse().unwrap();
        })
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.task.abort();
    }
}
