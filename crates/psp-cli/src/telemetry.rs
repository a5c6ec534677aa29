//! Logs and metrics.

use std::io::{BufWriter, IsTerminal};
use std::panic::PanicHookInfo;
use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use crate::settings::{LogFormat, Settings};

/// Lines that may wait to be written. Beyond it lines are dropped: a stuck log must not stop payments.
const WAITING_LINES: usize = 8_192;
/// Bounds of the histograms of durations, in seconds.
const SECONDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Bounds of the histogram of batch sizes.
const SIZES: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];
/// How often histograms are folded, which bounds what they hold in memory.
const UPKEEP: Duration = Duration::from_secs(1);

/// Counts the lines that were dropped.
static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// Starts logging to standard error. What was logged is flushed when the guard goes.
pub(crate) fn start(settings: &Settings) -> WorkerGuard {
    let pretty = match settings.log_format {
        LogFormat::Pretty => true,
        LogFormat::Json => false,
        LogFormat::Auto => std::io::stderr().is_terminal(),
    };
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(WAITING_LINES)
        .finish(BufWriter::new(std::io::stderr()));
    DROPPED.get_or_init(|| writer.error_counter());
    let filter = filter(&settings.log);
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    if pretty {
        logs.compact().init();
    } else {
        logs.json().flatten_event(true).with_current_span(false).with_span_list(false).init();
    }
    std::panic::set_hook(Box::new(log_panic));
    guard
}

/// Tells where it was. What a panic says may hold what a client sent.
fn log_panic(panic: &PanicHookInfo<'_>) {
    tracing::error!(place = panic.location().map(ToString::to_string), "panicked");
}

/// The filter, without the scheduler's chatter unless it is asked for.
fn filter(log: &str) -> EnvFilter {
    let filter = log.parse().unwrap_or_else(|_| EnvFilter::new("info"));
    match "tokio_cron_scheduler=warn".parse() {
        Ok(quiet) if !log.contains("tokio_cron_scheduler") => filter.add_directive(quiet),
        _ => filter,
    }
}

/// Starts recording metrics; the handle renders them.
pub(crate) fn record_metrics() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Full("psp_batch_size".into()), &SIZES)?
        .install_recorder()?;
    let upkeep = handle.clone();
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(UPKEEP);
        loop {
            ticks.tick().await;
            upkeep.run_upkeep();
            let dropped = DROPPED.get().map_or(0, ErrorCounter::dropped_lines);
            metrics::counter!("psp_log_lines_dropped_total").absolute(dropped as u64);
        }
    });
    Ok(handle)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_panic_is_logged_with_its_place_and_without_its_words() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().json().with_writer(move || writer.clone()).finish();
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(log_panic));
        tracing::subscriber::with_default(subscriber, || {
            assert!(std::panic::catch_unwind(|| panic!("card 4111111111111111")).is_err());
        });
        std::panic::set_hook(usual);
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains("panicked") && text.contains("telemetry.rs:"), "{text}");
        assert!(!text.contains("41111111"), "{text}");
    }
}
