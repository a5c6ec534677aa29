//! The outbox table as a queue: no relay, no second copy of a message.

use std::time::Duration;

use async_trait::async_trait;
use psp_domain::ports::{Delivery, Message, Queue, QueueDepth, QueueError, StoreError};
use psp_domain::{Event, EventKind, MessageId, QueueName};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use tokio::time::{Instant, timeout_at};

use crate::bulk::{Bulk, Values};
use crate::connection::{Durability, SqliteStore, commit, damaged, millis, time, unavailable};
use crate::deliveries::{self, has_endpoints};

/// Asks in the same trip whether there is anyone to deliver events to: most installations have no webhook endpoint.
pub(crate) const INSERT: Bulk = Bulk::new(
    concat!(
        "INSERT INTO outbox (id, kind, aggregate_id, sequence, customer_id, body, sent_at, queue, visible_at) {values}; ",
        has_endpoints!()
    ),
    9,
);

/// A message that is there already is not sent again.
const SEND: Bulk = Bulk::new(
    "INSERT INTO outbox (id, kind, aggregate_id, body, sent_at, queue, visible_at) {values} ON CONFLICT DO NOTHING",
    7,
);

// Claims and acknowledgements go with one trip to SQLite's thread: the level of durability that leases need (see
// `Durability::Lease`), and one statement that is a database transaction of its own.

/// An event stays when its message is done.
pub(crate) const ACK: Bulk = Bulk::new(
    "PRAGMA synchronous = NORMAL; WITH done AS ({values}) UPDATE outbox SET visible_at = NULL FROM done \
     WHERE outbox.id = done.column1 AND outbox.lease = done.column2 AND outbox.visible_at IS NOT NULL",
    2,
);

/// A command goes.
pub(crate) const ACK_COMMANDS: Bulk = Bulk::new(
    "PRAGMA synchronous = NORMAL; WITH done AS ({values}) DELETE FROM outbox WHERE id IN (SELECT o.id FROM done CROSS JOIN outbox AS o \
     ON o.id = done.column1 WHERE o.lease = done.column2 AND o.sequence IS NULL AND o.visible_at IS NOT NULL)",
    2,
);

pub(crate) const RECEIVE: &str = "PRAGMA synchronous = NORMAL; UPDATE outbox SET visible_at = ?1, receive_count = receive_count + 1, lease = lease + 1 \
     WHERE id IN (SELECT id FROM outbox WHERE queue = ?2 AND visible_at <= ?3 ORDER BY visible_at, id LIMIT ?4) \
     RETURNING id, kind, aggregate_id, body, receive_count, lease";

pub(crate) const DEPTH: &str = "SELECT (SELECT count(*) FROM outbox WHERE queue = ?1 AND visible_at IS NOT NULL), \
                   (SELECT count(*) FROM outbox WHERE queue = ?1 AND dead_at IS NOT NULL), \
                   (SELECT min(sent_at) FROM outbox WHERE queue = ?1 AND visible_at IS NOT NULL)";

pub(crate) const VISIBLE: &str = "SELECT EXISTS (SELECT 1 FROM outbox WHERE queue = ? AND visible_at <= ?)";

/// Writes events and their deliveries; returns how many deliveries.
pub(crate) async fn insert_events(connection: &mut SqliteConnection, events: &[&Event]) -> Result<u64, sqlx::Error> {
    let bind = |values: &mut Values, e: &&Event| {
        let (queue, at) = (e.kind.queue(), millis(e.occurred_at));
        values.push(e.id.0).push(e.kind.as_str()).push(e.aggregate_id).push(e.sequence).push(e.customer_id.as_str());
        values.push(&*e.data).push(at).push(queue.map(QueueName::as_str)).push(queue.map(|_| at));
    };
    if !INSERT.execute_and_ask(connection, events.iter(), bind).await? {
        return Ok(0);
    }
    let new = events.iter().map(|e| (e.id.0, e.customer_id.as_str(), e.kind.as_str(), millis(e.occurred_at)));
    deliveries::fan_out(connection, new).await
}

pub(crate) async fn insert_messages(
    connection: &mut SqliteConnection,
    messages: &[Message],
    now: i64,
) -> Result<(), sqlx::Error> {
    let bind = |values: &mut Values, m: &Message| {
        values.push(m.id.0).push(&*m.kind).push(m.aggregate_id).push(&*m.body).push(now);
        values.push(m.queue.as_str()).push(now);
    };
    SEND.execute(connection, messages.iter(), bind).await?;
    Ok(())
}

pub(crate) async fn event_exists(connection: &mut SqliteConnection, id: MessageId) -> Result<bool, sqlx::Error> {
    let query = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM outbox WHERE id = ?)").bind(id.0);
    query.fetch_one(connection).await
}

#[async_trait]
impl Queue for SqliteStore {
    async fn send(&self, messages: Vec<Message>) -> Result<(), QueueError> {
        let mut writer = self.writer().await.map_err(broken)?;
        let mut database = writer.begin(Durability::Full).await.map_err(broken)?;
        let sent = insert_messages(&mut database, &messages, millis(self.now())).await;
        sent.map_err(unavailable).map_err(broken)?;
        commit(database).await.map_err(broken)?;
        drop(writer);
        self.wake(messages.iter().map(|message| message.queue));
        Ok(())
    }

    async fn receive(&self, queue: QueueName, max: usize, wait: Duration) -> Result<Vec<Delivery>, QueueError> {
        let deadline = Instant::now() + wait;
        loop {
            let woken = self.notifier(queue).notified();
            if self.has_visible(queue).await.map_err(broken)? {
                let deliveries = self.claim(queue, max).await.map_err(broken)?;
                if !deliveries.is_empty() {
                    return Ok(deliveries);
                }
            }
            let now = Instant::now();
            if now >= deadline {
                return Ok(Vec::new());
            }
            // Woken by a commit, or looking again: for other processes' messages and for those that became visible.
            let look_again = deadline.min(now + self.options.poll_interval);
            let _ = timeout_at(look_again, woken).await;
        }
    }

    async fn ack(&self, deliveries: &[Delivery]) -> Result<(), QueueError> {
        let (mut events, mut commands) = (Vec::new(), Vec::new());
        for delivery in deliveries {
            let Some(receipt) = receipt(delivery) else { continue };
            let is_event = EventKind::from_name(&delivery.message.kind).is_some();
            if is_event { &mut events } else { &mut commands }.push(receipt);
        }
        let bind = |values: &mut Values, (id, lease): &(MessageId, i64)| {
            values.push(id.0).push(*lease);
        };
        let mut writer = self.writer().await.map_err(broken)?;
        let connection = writer.connection().map_err(broken)?;
        for (statement, receipts) in [(&ACK, &events), (&ACK_COMMANDS, &commands)] {
            let done = statement.execute(connection, receipts.iter(), bind).await;
            done.map_err(unavailable).map_err(broken)?;
        }
        Ok(())
    }

    async fn retry(&self, delivery: &Delivery, after: Duration, reason: &str) -> Result<(), QueueError> {
        let visible_at = millis(self.now() + after);
        let sql =
            "UPDATE outbox SET visible_at = ?3, reason = ?4 WHERE id = ?1 AND lease = ?2 AND visible_at IS NOT NULL";
        self.lease(delivery, sql, visible_at, Some(reason)).await?;
        Ok(())
    }

    async fn extend(&self, delivery: &Delivery) -> Result<bool, QueueError> {
        let visible_at = millis(self.now() + self.options.visibility_timeout);
        let sql = "UPDATE outbox SET visible_at = ?3 WHERE id = ?1 AND lease = ?2 AND visible_at IS NOT NULL";
        self.lease(delivery, sql, visible_at, None).await
    }

    async fn dead_letter(&self, delivery: &Delivery, reason: &str) -> Result<(), QueueError> {
        let sql = "UPDATE outbox SET visible_at = NULL, dead_at = ?3, reason = ?4 \
                   WHERE id = ?1 AND lease = ?2 AND visible_at IS NOT NULL";
        self.lease(delivery, sql, millis(self.now()), Some(reason)).await?;
        Ok(())
    }

    fn visibility_timeout(&self) -> Duration {
        self.options.visibility_timeout
    }

    async fn depths(&self) -> Result<Vec<QueueDepth>, QueueError> {
        let mut depths = Vec::with_capacity(QueueName::ALL.len());
        for queue in QueueName::ALL {
            let row = sqlx::query_as(DEPTH).bind(queue.as_str()).fetch_one(&self.readers).await;
            let (pending, dead, oldest): (i64, i64, Option<i64>) = row.map_err(unavailable).map_err(broken)?;
            let oldest = oldest.map(time).transpose().map_err(broken)?;
            depths.push(QueueDepth { queue, pending: pending.unsigned_abs(), dead: dead.unsigned_abs(), oldest });
        }
        Ok(depths)
    }
}

impl SqliteStore {
    /// Whether there is something to claim: asked of a reader, so that an idle queue never takes the write lock.
    async fn has_visible(&self, queue: QueueName) -> Result<bool, StoreError> {
        let query = sqlx::query_scalar(VISIBLE).bind(queue.as_str()).bind(millis(self.now()));
        query.fetch_one(&self.readers).await.map_err(unavailable)
    }

    async fn claim(&self, queue: QueueName, max: usize) -> Result<Vec<Delivery>, StoreError> {
        let now = self.now();
        let mut writer = self.writer().await?;
        let connection = writer.connection()?;
        let query = sqlx::query(RECEIVE)
            .bind(millis(now + self.options.visibility_timeout))
            .bind(queue.as_str())
            .bind(millis(now))
            .bind(i64::try_from(max).unwrap_or(i64::MAX));
        let rows = query.fetch_all(&mut *connection).await.map_err(unavailable)?;
        let mut live = Vec::with_capacity(rows.len());
        for row in &rows {
            let dead = match decode(row, queue) {
                Ok(delivery) if delivery.receive_count <= QueueName::MAX_RECEIVES => {
                    live.push(delivery);
                    continue;
                }
                Ok(_) => TOO_OFTEN.to_owned(),
                // A message that makes no sense holds no other back.
                Err(error) => error.to_string(),
            };
            let id: Vec<u8> = row.try_get_unchecked(0).map_err(unavailable)?;
            bury(connection, &id, &dead, millis(now)).await.map_err(unavailable)?;
        }
        drop(writer);
        live.sort_unstable_by_key(|delivery| delivery.message.id);
        Ok(live)
    }

    /// Changes the row of a message under its lease; `false` when the lease was lost.
    async fn lease(
        &self,
        delivery: &Delivery,
        sql: &'static str,
        at: i64,
        reason: Option<&str>,
    ) -> Result<bool, QueueError> {
        let Some((id, lease)) = receipt(delivery) else { return Ok(false) };
        let mut writer = self.writer().await.map_err(broken)?;
        let mut database = writer.begin(Durability::Lease).await.map_err(broken)?;
        let query = sqlx::query(sql).bind(id.0).bind(lease).bind(at).bind(reason);
        let done = query.execute(&mut *database).await.map_err(unavailable).map_err(broken)?;
        commit(database).await.map_err(broken)?;
        Ok(done.rows_affected() == 1)
    }
}

const TOO_OFTEN: &str = "received too often without an answer";

/// Makes a dead letter of a message that cannot be delivered; the count is that of the deliveries that were made.
async fn bury(connection: &mut SqliteConnection, id: &[u8], reason: &str, now: i64) -> Result<(), sqlx::Error> {
    let sql = "UPDATE outbox SET visible_at = NULL, dead_at = ?2, receive_count = receive_count - 1, \
               reason = coalesce(reason, ?3) WHERE id = ?1";
    sqlx::query(sql).bind(id).bind(now).bind(reason).execute(connection).await?;
    Ok(())
}

pub(crate) fn broken(error: StoreError) -> QueueError {
    QueueError::Unavailable(Box::new(error))
}

fn receipt(delivery: &Delivery) -> Option<(MessageId, i64)> {
    delivery.receipt.parse().ok().map(|lease| (delivery.message.id, lease))
}

fn decode(row: &SqliteRow, queue: QueueName) -> Result<Delivery, StoreError> {
    let message = Message {
        id: MessageId(row.try_get(0).map_err(unavailable)?),
        queue,
        kind: row.try_get(1).map_err(unavailable)?,
        aggregate_id: row.try_get(2).map_err(unavailable)?,
        body: row.try_get(3).map_err(unavailable)?,
    };
    let receive_count: i64 = row.try_get(4).map_err(unavailable)?;
    let lease: i64 = row.try_get(5).map_err(unavailable)?;
    Ok(Delivery {
        message,
        receipt: lease.to_string(),
        receive_count: u32::try_from(receive_count).map_err(|_| damaged("receive_count"))?,
    })
}
