use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::SendRequest;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// A connection: dropped, it is closed.
pub(crate) struct Connection {
    pub(crate) sender: SendRequest<Full<Bytes>>,
    pub(crate) made_at: Instant,
    pub(crate) _task: AbortOnDropHandle<()>,
}

/// Connections that wait for the next delivery: few for each origin, and not too many in all. The one that waits longest gives way.
/// What waits for another origin is only looked at when something is closed.
#[derive(Default)]
pub(crate) struct IdleConnections(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    /// The numbers of what waits, those that have waited longest first.
    by_origin: HashMap<String, Vec<u64>>,
    /// In the order in which they came.
    connections: BTreeMap<u64, Idle>,
    /// The number of the last one.
    last: u64,
}

struct Idle {
    origin: String,
    connection: Connection,
    since: Instant,
}

impl Idle {
    fn is_good(&self) -> bool {
        let is_young = self.since.elapsed() < IdleConnections::LIFETIME
            && self.connection.made_at.elapsed() < IdleConnections::MAX_AGE;
        is_young && !self.connection.sender.is_closed()
    }
}

impl Waiting {
    fn remove(&mut self, number: u64) -> Option<Idle> {
        let idle = self.connections.remove(&number)?;
        if let Some(numbers) = self.by_origin.get_mut(&idle.origin) {
            numbers.retain(|one| *one != number);
            if numbers.is_empty() {
                self.by_origin.remove(&idle.origin);
            }
        }
        Some(idle)
    }

    /// The one of that origin that came last.
    fn last_of(&mut self, origin: &str) -> Option<Idle> {
        let number = *self.by_origin.get(origin)?.last()?;
        self.remove(number)
    }

    /// Closes what has waited too long or was closed.
    fn close_old(&mut self) {
        let old: Vec<_> =
            self.connections.iter().filter(|(_, idle)| !idle.is_good()).map(|(number, _)| *number).collect();
        for number in old {
            self.remove(number);
        }
    }
}

impl IdleConnections {
    const MAX: usize = 256;
    const MAX_PER_ORIGIN: usize = 10;
    /// Below the usual keep-alive times of servers.
    const LIFETIME: Duration = Duration::from_secs(20);
    /// A name may have moved: a connection that is always busy ends, too.
    const MAX_AGE: Duration = Duration::from_mins(1);

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn take(&self, origin: &str) -> Option<Connection> {
        let mut waiting = self.waiting();
        while let Some(idle) = waiting.last_of(origin) {
            if idle.is_good() {
                return Some(idle.connection);
            }
        }
        None
    }

    pub(crate) fn put(&self, origin: String, connection: Connection) {
        let mut waiting = self.waiting();
        if waiting.connections.len() >= Self::MAX {
            waiting.close_old();
        }
        if waiting.connections.len() >= Self::MAX {
            let first = waiting.connections.keys().next().copied();
            first.and_then(|number| waiting.remove(number));
        }
        waiting.last += 1;
        let number = waiting.last;
        let numbers = waiting.by_origin.entry(origin.clone()).or_default();
        if numbers.len() < Self::MAX_PER_ORIGIN {
            numbers.push(number);
            waiting.connections.insert(number, Idle { origin, connection, since: Instant::now() });
        }
    }

    /// Closes those of that origin.
    pub(crate) fn close(&self, origin: &str) {
        let mut waiting = self.waiting();
        while waiting.last_of(origin).is_some() {}
    }

    /// Closes what has waited too long.
    pub(crate) fn close_old(&self) {
        self.waiting().close_old();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::client::conn::http1;
    use hyper_util::rt::TokioIo;
    use tokio::io::DuplexStream;

    async fn connection() -> (Connection, DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(1_024);
        let (sender, exchange) = http1::handshake(TokioIo::new(ours)).await.unwrap();
        let task = tokio::spawn(async move { drop(exchange.await) });
        (Connection { sender, made_at: Instant::now(), _task: AbortOnDropHandle::new(task) }, theirs)
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_always_busy_ends_after_a_minute_and_an_idle_one_before() {
        let idle = IdleConnections::default();
        let (busy, _theirs) = connection().await;
        idle.put("busy".into(), busy);
        for _ in 0..5 {
            tokio::time::advance(Duration::from_secs(11)).await;
            let busy = idle.take("busy").expect("it is not old yet");
            idle.put("busy".into(), busy);
        }
        tokio::time::advance(Duration::from_secs(6)).await;
        assert!(idle.take("busy").is_none());
        let (lazy, _theirs) = connection().await;
        idle.put("lazy".into(), lazy);
        tokio::time::advance(Duration::from_secs(21)).await;
        assert!(idle.take("lazy").is_none());
    }
}
