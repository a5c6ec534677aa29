use async_trait::async_trait;
use psp_domain::ports::{DeadLetter, DeadLetters, Message, QueueError, StoreError};
use psp_domain::{MessageId, QueueName};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use crate::connection::{Durability, SqliteStore, commit, damaged, millis, time, unavailable};
use crate::queue::broken;

macro_rules! select {
    () => {
        "SELECT id, queue, kind, aggregate_id, body, reason, receive_count, sent_at, dead_at FROM outbox \
         WHERE dead_at IS NOT NULL AND "
    };
}

#[async_trait]
impl DeadLetters for SqliteStore {
    async fn list(
        &self,
        queue: Option<QueueName>,
        after: Option<MessageId>,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, QueueError> {
        let sql = concat!(select!(), "(?1 IS NULL OR queue = ?1) AND id > ?2 ORDER BY id LIMIT ?3");
        let query =
            sqlx::query(sql).bind(queue.map(QueueName::as_str)).bind(after.map_or(Uuid::nil(), |id| id.0)).bind(limit);
        let rows = query.fetch_all(&self.readers).await.map_err(unavailable).map_err(broken)?;
        rows.iter().map(decode).collect::<Result<_, _>>().map_err(broken)
    }

    async fn find(&self, id: MessageId) -> Result<Option<DeadLetter>, QueueError> {
        let query = sqlx::query(concat!(select!(), "id = ?")).bind(id.0);
        let row = query.fetch_optional(&self.readers).await.map_err(unavailable).map_err(broken)?;
        row.as_ref().map(decode).transpose().map_err(broken)
    }

    async fn replay(&self, id: MessageId) -> Result<bool, QueueError> {
        let sql = "UPDATE outbox SET visible_at = ?2, receive_count = 0, reason = NULL, dead_at = NULL \
                   WHERE id = ?1 AND dead_at IS NOT NULL RETURNING queue";
        let queue = self.revive(sql, id).await.map_err(broken)?;
        self.wake(queue.as_deref().and_then(QueueName::from_name));
        Ok(queue.is_some())
    }

    async fn discard(&self, id: MessageId) -> Result<bool, QueueError> {
        // An event stays an event; a command goes. Each statement passes over the other's rows.
        let event = "UPDATE outbox SET dead_at = NULL WHERE id = ?1 AND ?2 AND sequence IS NOT NULL \
                     AND dead_at IS NOT NULL RETURNING queue";
        let command = "DELETE FROM outbox WHERE id = ?1 AND ?2 AND sequence IS NULL AND dead_at IS NOT NULL \
                       RETURNING queue";
        for sql in [event, command] {
            if self.revive(sql, id).await.map_err(broken)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl SqliteStore {
    /// Runs a statement on one dead letter; `?1` is its id, `?2` the time. Returns its queue where there was one.
    async fn revive(&self, sql: &'static str, id: MessageId) -> Result<Option<String>, StoreError> {
        let mut writer = self.writer().await?;
        let mut database = writer.begin(Durability::Full).await?;
        let query = sqlx::query_scalar(sql).bind(id.0).bind(millis(self.now()));
        let queue = query.fetch_optional(&mut *database).await.map_err(unavailable)?;
        commit(database).await?;
        Ok(queue)
    }
}

fn decode(row: &SqliteRow) -> Result<DeadLetter, StoreError> {
    let get = |i: usize| row.try_get::<String, _>(i).map_err(unavailable);
    let at = |i: usize| time(row.try_get(i).map_err(unavailable)?);
    Ok(DeadLetter {
        message: Message {
            id: MessageId(row.try_get(0).map_err(unavailable)?),
            queue: QueueName::from_name(&get(1)?).ok_or_else(|| damaged("queue"))?,
            kind: get(2)?,
            aggregate_id: row.try_get(3).map_err(unavailable)?,
            body: get(4)?,
        },
        reason: get(5)?,
        receive_count: row.try_get(6).map_err(unavailable)?,
        sent_at: at(7)?,
        dead_at: at(8)?,
    })
}
