//! A simulator that serves until it is dropped, and gateways that ask it.

use std::sync::Arc;
use std::time::Duration;

use psp_domain::ports::{Clock, SystemClock};
use psp_gateways::{HttpGateway, HttpOptions, SigningKey};
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

    pub(crate) fn gateway(&self) -> HttpGateway {
        self.gateway_of(SECRET, Arc::new(SystemClock), Duration::from_secs(10))
    }

    /// A gateway that asks through something else.
    #[allow(dead_code, reason = "not every test program asks for it")]
    #[expect(clippy::unused_self, reason = "the simulator must live as long")]
    pub(crate) fn gateway_at(&self, address: &str) -> HttpGateway {
        gateway(address, SECRET, Arc::new(SystemClock), Duration::from_secs(10))
    }

    pub(crate) fn gateway_of(&self, secret: &str, clock: Arc<dyn Clock>, timeout: Duration) -> HttpGateway {
        gateway(&self.address, secret, clock, timeout)
    }
}

fn gateway(address: &str, secret: &str, clock: Arc<dyn Clock>, timeout: Duration) -> HttpGateway {
    let url = format!("http://{address}").parse().unwrap();
    let options = HttpOptions { url, key: key(secret), connect_timeout: timeout, timeout };
    HttpGateway::new(options, clock).unwrap()
}

impl Drop for World {
    fn drop(&mut self) {
        self.task.abort();
    }
}
