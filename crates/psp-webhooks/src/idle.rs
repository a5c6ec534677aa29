use std::collections::VecDeque;
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
    pub(crate) _task: AbortOnDropHandle<()>,
}

/// Connections that wait for the next delivery: few for each origin, and not too many in all. The one that waits longest gives way.
#[derive(Default)]
pub(crate) struct IdleConnections(Mutex<VecDeque<Idle>>);

struct Idle {
    origin: String,
    connection: Connection,
    since: Instant,
}

impl IdleConnections {
    const MAX: usize = 256;
    const MAX_PER_ORIGIN: usize = 4;
    /// Below the usual keep-alive times of servers.
    const LIFETIME: Duration = Duration::from_secs(20);

    /// What waits, without what has waited too long or was closed.
    fn waiting(&self) -> MutexGuard<'_, VecDeque<Idle>> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|idle| idle.since.elapsed() < Self::LIFETIME && !idle.connection.sender.is_closed());
        waiting
    }

    pub(crate) fn take(&self, origin: &str) -> Option<Connection> {
        let mut waiting = self.waiting();
        let place = waiting.iter().rposition(|idle| idle.origin == origin)?;
        waiting.remove(place).map(|idle| idle.connection)
    }

    pub(crate) fn put(&self, origin: String, connection: Connection) {
        let mut waiting = self.waiting();
        if waiting.iter().filter(|idle| idle.origin == origin).count() >= Self::MAX_PER_ORIGIN {
            return;
        }
        if waiting.len() >= Self::MAX {
            waiting.pop_front();
        }
        waiting.push_back(Idle { origin, connection, since: Instant::now() });
    }

    /// Closes what has waited too long.
    pub(crate) fn close_old(&self) {
        drop(self.waiting());
    }
}
