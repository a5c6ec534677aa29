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

/// The channel of NOTIFY; its payload is a queue's name.
const CHANNEL: &str = "psp_queue";
/// The least time between two notifications of this process.
const PAUSE: Duration = Duration::from_millis(4);
/// The pause after a lost connection.
const RECONNECT: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(crate) struct Wake {
    receivers: [Notify; QueueName::ALL.len()],
    /// Queues of which other processes do not know yet.
    untold: [AtomicBool; QueueName::ALL.len()],
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

    fn wake_here(&self, queue: QueueName) {
        self.receiver(queue).notify_waiters();
        self.receiver(queue).notify_one();
    }

    /// Tells other processes, until aborted.
    pub(crate) async fn notify_others(self: Arc<Self>, pool: PgPool) {
        loop {
            self.tell.notified().await;
            for queue in QueueName::ALL {
                if self.untold[queue as usize].swap(false, Ordering::AcqRel) {
                    let told = sqlx::query!("SELECT pg_notify($1, $2)", CHANNEL, queue.as_str()).execute(&pool).await;
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
        while let Some(notification) = listener.try_recv().await? {
            if let Some(queue) = QueueName::from_name(notification.payload()) {
                self.wake_here(queue);
            }
        }
        Ok(())
    }
}
