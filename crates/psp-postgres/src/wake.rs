//! Waking receivers after a commit: those of this process at once, those of others by NOTIFY.
//!
//! NOTIFY inside the writing transaction would serialize commits (Postgres takes one lock for all notifying commits), so a
//! task of its own notifies after the commit, one notification for all commits of a few milliseconds. One that is lost
//! costs a poll interval.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use psp_domain::QueueName;
use sqlx::PgPool;
use sqlx::postgres::PgListener;
use tokio::sync::Notify;
use tokio::time::sleep;

/// The channel of NOTIFY; its payload is a queue's name, or [`DELIVERIES`].
const CHANNEL: &str = "psp_queue";
/// The payload for deliveries to webhook endpoints.
const DELIVERIES: &str = "webhook-deliveries";
/// The least time between two notifications of this process.
const PAUSE: Duration = Duration::from_millis(4);
/// The pause after a lost connection.
const RECONNECT: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(crate) struct Wake {
    receivers: [Notify; QueueName::ALL.len()],
    /// Queues of which other processes do not know yet.
    untold: [AtomicBool; QueueName::ALL.len()],
    deliverer: Notify,
    /// Deliveries of which other processes do not know yet.
    untold_deliveries: AtomicBool,
    tell: Notify,
}

impl Wake {
    pub(crate) fn receiver(&self, queue: QueueName) -> &Notify {
        &self.receivers[queue as usize]
    }

    /// Wakes receivers of these queues, here and elsewhere; call it after the commit.
    pub(crate) fn wake(&self, queues: impl IntoIterator<Item = QueueName>) {
        for queue in queues {
            self.wake_here(queue);
            self.untold[queue as usize].store(true, Ordering::Release);
            self.tell.notify_one();
        }
    }

    pub(crate) fn deliverer(&self) -> &Notify {
        &self.deliverer
    }

    /// Wakes who delivers to webhook endpoints, here and elsewhere, where there is something to deliver; call it after the
    /// commit.
    pub(crate) fn wake_deliverers(&self, is_something: bool) {
        if is_something {
            self.wake_deliverers_here();
            self.untold_deliveries.store(true, Ordering::Release);
            self.tell.notify_one();
        }
    }

    fn wake_deliverers_here(&self) {
        self.deliverer.notify_waiters();
        self.deliverer.notify_one();
    }

    /// Wakes receivers of that queue here.
    pub(crate) fn wake_here(&self, queue: QueueName) {
        self.receiver(queue).notify_waiters();
        self.receiver(queue).notify_one();
    }

    /// Tells other processes, until aborted.
    pub(crate) async fn notify_others(self: Arc<Self>, pool: PgPool) {
        loop {
            self.tell.notified().await;
            let queues = QueueName::ALL.map(|queue| (queue.as_str(), &self.untold[queue as usize]));
            for (payload, untold) in queues.into_iter().chain([(DELIVERIES, &self.untold_deliveries)]) {
                if untold.swap(false, Ordering::AcqRel) {
                    let told = sqlx::query!("SELECT pg_notify($1, $2)", CHANNEL, payload).execute(&pool).await;
                    if let Err(error) = told {
                        tracing::warn!(error = &error as &dyn std::error::Error, "other processes were not notified");
                    }
                }
            }
            sleep(PAUSE).await;
        }
    }

    /// Listens to other processes, until aborted.
    pub(crate) async fn listen(self: Arc<Self>, pool: PgPool) {
        loop {
            if let Err(error) = self.listen_on_one_connection(&pool).await {
                tracing::warn!(error = &error as &dyn std::error::Error, "listening to the database failed");
            }
            sleep(RECONNECT).await;
        }
    }

    async fn listen_on_one_connection(&self, pool: &PgPool) -> Result<(), sqlx::Error> {
        // A connection of its own, beside the pool's.
        let mut listener = PgListener::connect_with(pool).await?;
        listener.listen(CHANNEL).await?;
        // What was notified before this connection listened.
        for queue in QueueName::ALL {
            self.wake_here(queue);
        }
        self.wake_deliverers_here();
        while let Some(notification) = listener.try_recv().await? {
            match QueueName::from_name(notification.payload()) {
                Some(queue) => self.wake_here(queue),
                None if notification.payload() == DELIVERIES => self.wake_deliverers_here(),
                None => {}
            }
        }
        Ok(())
    }
}
