use async_trait::async_trait;
use chrono::{DateTime, Utc};
use psp_domain::ports::{DeadLetter, DeadLetters, Message, QueueError, StoreError};
use psp_domain::{MessageId, QueueName};
use uuid::Uuid;

use crate::classify::{broken, damaged, repeat};
use crate::connection::PgStore;

struct Row {
    id: Uuid,
    queue: String,
    kind: String,
    aggregate_id: Uuid,
    body: String,
    reason: String,
    receive_count: i32,
    sent_at: DateTime<Utc>,
    dead_at: DateTime<Utc>,
}

impl TryFrom<Row> for DeadLetter {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            message: Message {
                id: MessageId(row.id),
                queue: QueueName::from_name(&row.queue).ok_or_else(|| damaged("queue"))?,
                kind: row.kind,
                aggregate_id: row.aggregate_id,
                body: row.body,
            },
            reason: row.reason,
            receive_count: u32::try_from(row.receive_count).map_err(|_| damaged("receive_count"))?,
            sent_at: row.sent_at,
            dead_at: row.dead_at,
        })
    }
}

#[async_trait]
impl DeadLetters for PgStore {
    async fn list(
        &self,
        queue: Option<QueueName>,
        after: Option<MessageId>,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, QueueError> {
        let rows = repeat(|| {
            let query = sqlx::query_as!(
                Row,
                r#"SELECT id, queue AS "queue!", kind, aggregate_id, body, coalesce(reason, '') AS "reason!",
                receive_count, sent_at, dead_at AS "dead_at!" FROM outbox
                WHERE dead_at IS NOT NULL AND ($1::text IS NULL OR queue = $1) AND id > $2 ORDER BY id LIMIT $3"#,
                queue.map(QueueName::as_str),
                after.map_or(Uuid::nil(), |id| id.0),
                i64::from(limit)
            );
            query.fetch_all(&self.reads)
        });
        let rows = rows.await.map_err(broken)?;
        rows.into_iter().map(DeadLetter::try_from).collect::<Result<_, _>>().map_err(broken)
    }

    async fn find(&self, id: MessageId) -> Result<Option<DeadLetter>, QueueError> {
        let row = repeat(|| {
            let query = sqlx::query_as!(
                Row,
                r#"SELECT id, queue AS "queue!", kind, aggregate_id, body, coalesce(reason, '') AS "reason!",
                receive_count, sent_at, dead_at AS "dead_at!" FROM outbox WHERE dead_at IS NOT NULL AND id = $1"#,
                id.0
            );
            query.fetch_optional(&self.reads)
        });
        row.await.map_err(broken)?.map(DeadLetter::try_from).transpose().map_err(broken)
    }

    async fn replay(&self, id: MessageId) -> Result<bool, QueueError> {
        let now = self.now();
        let queue = repeat(|| {
            let query = sqlx::query_scalar!(
                "UPDATE outbox SET visible_at = $2, receive_count = 0, reason = NULL, dead_at = NULL \
                 WHERE id = $1 AND dead_at IS NOT NULL RETURNING queue",
                id.0,
                now
            );
            query.fetch_optional(&self.writes)
        });
        let queue = queue.await.map_err(broken)?;
        self.wake.wake(queue.iter().flatten().filter_map(|name| QueueName::from_name(name)));
        Ok(queue.is_some())
    }

    async fn discard(&self, id: MessageId) -> Result<bool, QueueError> {
        // An event stays an event; a command goes.
        let discarded = repeat(|| {
            let query = sqlx::query_scalar!(
                r#"WITH event AS (UPDATE outbox SET dead_at = NULL
                WHERE id = $1 AND sequence IS NOT NULL AND dead_at IS NOT NULL RETURNING 1),
                command AS (DELETE FROM outbox WHERE id = $1 AND sequence IS NULL AND dead_at IS NOT NULL RETURNING 1)
                SELECT EXISTS (SELECT FROM event) OR EXISTS (SELECT FROM command) AS "discarded!""#,
                id.0
            );
            query.fetch_one(&self.writes)
        });
        discarded.await.map_err(broken)
    }
}
