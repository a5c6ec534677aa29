use std::sync::Arc;

use anyhow::Context;
use psp_domain::ports::SystemClock;
use psp_simulator::{Behaviour, Simulator, SimulatorOptions};
use tokio::net::TcpListener;

use crate::cli::Simulated;
use crate::roles::Signals;
use crate::settings::Settings;

/// Plays an acquirer until a signal comes.
pub(crate) async fn run(settings: &Settings, simulated: &Simulated) -> anyhow::Result<()> {
    let signals = Signals::listen()?;
    let key = settings.gateway_key.clone().context("PSP_GATEWAY_SECRET is required")?;
    let behaviour = Behaviour {
        outage: simulated.outage,
        error_rate: simulated.error_rate,
        latency_ms: simulated.latency_ms,
        lost_rate: simulated.lost_rate,
        pending_rate: simulated.pending_rate,
        callback_delay_ms: simulated.callback_delay_ms,
        duplicate_rate: simulated.duplicate_rate,
        wrong_amount_rate: simulated.wrong_amount_rate,
        forget_rate: simulated.forget_rate,
    };
    let options = SimulatorOptions {
        behaviour,
        seed: simulated.seed,
        slow_answer: settings.sandbox_slow,
        ..SimulatorOptions::new(key)
    };
    let simulator = Simulator::new(options, Arc::new(SystemClock))?;
    let address = settings.listen;
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    let address = listener.local_addr()?;
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "whoever reaches this address can change the simulator's behaviour");
    }
    tracing::info!(%address, name = "gateway-simulator", "listening");
    tracing::info!(?behaviour, version = crate::cli::VERSION, "started");
    simulator.serve(listener, signals.first()).await?;
    tracing::info!("stopped");
    Ok(())
}
