//! Reading, replaying and purging events: the rows of the outbox with a sequence.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use psp_domain::ports::{EventStore, Replay, ReplayTo, Replayed, StoreError};
use psp_domain::{CustomerId, Event, EventFilter, EventKind, MessageId, Page, PageRequest, QueueName};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::types::Json;
use sqlx::{Row, Sqlite, SqliteConnection};
use uuid::Uuid;

use crate::bulk::{Bulk, Values};
use crate::connection::{Durability, SqliteStore, commit, damaged, millis, parse, time, unavailable};
use crate::deliveries;

/// Selects what [`decode`] takes.
macro_rules! select {
    ($rest:expr) => {
        concat!("SELECT id, kind, aggregate_id, sequence, customer_id, sent_at, body FROM outbox ", $rest)
    };
}

/// The parts of an [`EventFilter`] but the customer.
macro_rules! filtered {
    ($rest:literal) => {
        concat!(
            "sequence IS NOT NULL AND (?2 IS NULL OR kind IN (SELECT value FROM json_each(?2))) \
             AND (?3 IS NULL OR aggregate_id = ?3) AND (?4 IS NULL OR sent_at >= ?4) AND (?5 IS NULL OR sent_at < ?5) ",
            $rest
        )
    };
}

pub(crate) const FIND: &str = select!("WHERE id = ? AND customer_id = ? AND sequence IS NOT NULL");

pub(crate) const OF_IDS: &str = select!("WHERE id IN (SELECT unhex(value) FROM json_each(?))");

/// Walks the index of a customer's events, also where one aggregate is asked for: a customer's events are few beside the
/// table, and writing another index costs more than such a question.
pub(crate) const OF_CUSTOMER: &str = select!(concat!(
    "INDEXED BY outbox_by_customer WHERE customer_id = ?1 AND id < ?6 AND id >= ?7 AND ",
    filtered!("ORDER BY id DESC LIMIT ?8 OFFSET ?9")
));

pub(crate) const OF_ALL: &str = select!(concat!(
    "WHERE ?1 IS NULL AND id < ?6 AND id >= ?7 AND ",
    filtered!("ORDER BY id DESC LIMIT ?8 OFFSET ?9")
));

pub(crate) const IDS_OF_CUSTOMER: &str = concat!(
    "SELECT id FROM outbox INDEXED BY outbox_by_customer WHERE customer_id = ?1 AND id > ?6 AND id <= ?7 AND ",
    filtered!("ORDER BY id LIMIT ?8")
);

pub(crate) const IDS_OF_ALL: &str =
    concat!("SELECT id FROM outbox WHERE ?1 IS NULL AND id > ?6 AND id <= ?7 AND ", filtered!("ORDER BY id LIMIT ?8"));

/// The last row that a walk examines, where it ends before the rows do: of the customer's index or of the table, and back from
/// ?2 to ?3 or on.
macro_rules! walked_to {
    ($begin:literal, $end:literal) => {
        [
            concat!(
                "SELECT id FROM outbox INDEXED BY outbox_by_customer WHERE customer_id = ?1 AND sequence IS NOT NULL AND ",
                $begin,
                $end
            ),
            concat!("SELECT id FROM outbox WHERE ?1 IS NULL AND ", $begin, $end),
        ]
    };
}

pub(crate) const WALKED_BACK_TO: [&str; 2] = walked_to!("id < ?2 AND id >= ?3 ", "ORDER BY id DESC LIMIT 1 OFFSET ?4");

pub(crate) const WALKED_ON_TO: [&str; 2] = walked_to!("id > ?2 AND id < ?3 ", "ORDER BY id LIMIT 1 OFFSET ?4");

/// What is neither pending nor a dead letter becomes a message again, under a new lease.
macro_rules! quiet_messages {
    () => {
        "id IN (SELECT unhex(value) FROM json_each(?1)) AND queue IS NOT NULL AND visible_at IS NULL AND dead_at IS NULL"
    };
}

pub(crate) const COUNT_MESSAGES: &str = concat!("SELECT count(*) FROM outbox WHERE ", quiet_messages!());

pub(crate) const SEND_AGAIN: &str = concat!(
    "UPDATE outbox SET visible_at = ?2, receive_count = 0, reason = NULL, lease = lease + 1 WHERE ",
    quiet_messages!(),
    " RETURNING queue"
);

/// Whether nothing is left to be done with the event in the row `outbox`. What waits for an endpoint that is disabled has waited
/// long enough, and for one that was deleted it waits in vain.
macro_rules! is_over {
    () => {
        "sequence IS NOT NULL AND visible_at IS NULL AND dead_at IS NULL AND NOT EXISTS \
         (SELECT 1 FROM webhook_deliveries AS d CROSS JOIN webhook_endpoints AS w ON w.id = d.endpoint_id \
         WHERE d.event_id = outbox.id AND d.due_at IS NOT NULL AND w.status = 'enabled')"
    };
}

/// The next rows of a walk over the primary key: whether each is from before a time, and whether it may go.
pub(crate) const WALK: &str = concat!(
    "SELECT id, sent_at < ?2, sent_at < ?2 AND ",
    is_over!(),
    " FROM outbox WHERE id > ?1 ORDER BY id LIMIT ?3"
);

pub(crate) const PURGE: Bulk = Bulk::new(
    concat!("WITH old AS ({values}) DELETE FROM outbox WHERE id IN (SELECT column1 FROM old) AND ", is_over!()),
    1,
);

pub(crate) const PURGE_DELIVERIES: Bulk = Bulk::new(
    "WITH old AS ({values}) DELETE FROM webhook_deliveries WHERE event_id IN (SELECT column1 FROM old) \
     AND NOT EXISTS (SELECT 1 FROM outbox WHERE id = event_id)",
    1,
);

pub(crate) const PURGE_ATTEMPTS: Bulk = Bulk::new(
    "WITH old AS ({values}) DELETE FROM webhook_attempts WHERE event_id IN (SELECT column1 FROM old) \
     AND NOT EXISTS (SELECT 1 FROM outbox WHERE id = event_id)",
    1,
);

/// How many rows a purge looks at in one trip.
const STRIDE: u32 = 1_000;

#[async_trait]
impl EventStore for SqliteStore {
    async fn find_event(&self, customer: &CustomerId, id: MessageId) -> Result<Option<Event>, StoreError> {
        let query = sqlx::query(FIND).bind(id.0).bind(customer.as_str());
        let row = query.fetch_optional(&self.readers).await.map_err(unavailable)?;
        row.as_ref().map(decode).transpose()
    }

    async fn list_events(&self, filter: &EventFilter, page: PageRequest) -> Result<Page<Event>, StoreError> {
        let sql = if filter.customer_id.is_some() { OF_CUSTOMER } else { OF_ALL };
        let (oldest, newest) = filter.id_bounds();
        let begin = page.after().map_or(newest, |after| after.min(newest));
        let walked_to = self.walked_to(WALKED_BACK_TO, filter, begin, oldest).await?;
        let query = bind(sqlx::query(sql), filter, begin, walked_to.unwrap_or(oldest));
        let query = query.bind(i64::from(page.limit()) + 1).bind(i64::from(page.offset()));
        let rows = query.fetch_all(&self.readers).await.map_err(unavailable)?;
        let events = rows.iter().map(decode).collect::<Result<_, _>>()?;
        Ok(Page::from_walk(events, page, walked_to, |event: &Event| event.id.0))
    }

    async fn replay_events(
        &self,
        filter: &EventFilter,
        replay: Replay,
        after: Option<MessageId>,
        limit: u32,
    ) -> Result<Replayed, StoreError> {
        // Events do not change, so they are looked for outside the write lock.
        let sql = if filter.customer_id.is_some() { IDS_OF_CUSTOMER } else { IDS_OF_ALL };
        let (oldest, newest) = filter.id_bounds();
        let begin = after.map_or(oldest, |after| after.0.max(oldest));
        let walked_to = self.walked_to(WALKED_ON_TO, filter, begin, newest).await?;
        let query = bind(sqlx::query(sql), filter, begin, walked_to.unwrap_or(newest)).bind(i64::from(limit) + 1);
        let rows = query.fetch_all(&self.readers).await.map_err(unavailable)?;
        let ids: Result<Vec<Uuid>, _> = rows.iter().map(|row| row.try_get(0).map_err(unavailable)).collect();
        let mut ids = ids?;
        let more = ids.len() > limit as usize;
        ids.truncate(limit as usize);
        let replayed = if ids.is_empty() { 0 } else { self.replay(&hex_ids(&ids), replay).await? };
        let last = ids.last().copied().filter(|_| more).or(walked_to).map(MessageId);
        Ok(Replayed { events: ids.len() as u64, replayed, last })
    }

    /// Walks the primary key from the oldest, and goes on the next time where it came to: what is kept, however long a run of it,
    /// is passed over once in a walk. After the end the next walk begins, and finds what became free behind this one.
    async fn purge_events(&self, before: DateTime<Utc>, limit: u32) -> Result<u64, StoreError> {
        let mut at = *self.purged_to.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut purged = 0;
        let end = loop {
            let left = usize::try_from(u64::from(limit).saturating_sub(purged)).unwrap_or(usize::MAX);
            if left == 0 {
                break at;
            }
            let query = sqlx::query_as(WALK).bind(at).bind(millis(before)).bind(STRIDE);
            let rows: Vec<(Uuid, bool, bool)> = query.fetch_all(&self.readers).await.map_err(unavailable)?;
            let is_end = rows.len() < STRIDE as usize || rows.iter().all(|(_, is_before, _)| !is_before);
            let over: Vec<Uuid> = rows.iter().filter(|(.., is_over)| *is_over).map(|(id, ..)| *id).collect();
            let (now, later) = over.split_at(left.min(over.len()));
            purged += self.delete_events(now).await?;
            at = match (later.first(), rows.last()) {
                // Some are left to the next time.
                (Some(_), _) => now.last().copied().unwrap_or(at),
                (None, Some((last, ..))) if !is_end => *last,
                _ => break Uuid::nil(),
            };
        };
        *self.purged_to.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = end;
        Ok(purged)
    }
}

impl SqliteStore {
    /// Where a walk over the events of a filter ends that is not to examine more than so many.
    async fn walked_to(
        &self,
        [of_customer, of_all]: [&'static str; 2],
        filter: &EventFilter,
        begin: Uuid,
        end: Uuid,
    ) -> Result<Option<Uuid>, StoreError> {
        if !filter.is_selective() {
            return Ok(None);
        }
        let query = sqlx::query_scalar(if filter.customer_id.is_some() { of_customer } else { of_all });
        let query = query.bind(filter.customer_id.as_ref().map(ToString::to_string)).bind(begin).bind(end);
        let query = query.bind(EventFilter::MAX_EXAMINED - 1);
        query.fetch_optional(&self.readers).await.map_err(unavailable)
    }

    /// Replays these events, or counts what would be.
    async fn replay(&self, ids: &Json<Vec<String>>, replay: Replay) -> Result<u64, StoreError> {
        let now = millis(replay.now);
        if replay.is_dry_run {
            let count = match replay.to {
                ReplayTo::Webhooks { delivered, endpoint_id } => {
                    let query = sqlx::query_scalar(deliveries::COUNT_REPLAYED).bind(ids).bind(delivered);
                    query.bind(endpoint_id.map(|id| id.0))
                }
                ReplayTo::Queues => sqlx::query_scalar(COUNT_MESSAGES).bind(ids),
            };
            let count: i64 = count.fetch_one(&self.readers).await.map_err(unavailable)?;
            return Ok(count.unsigned_abs());
        }
        let mut writer = self.writer().await?;
        let mut database = writer.begin(Durability::Full).await?;
        match replay.to {
            ReplayTo::Webhooks { delivered, endpoint_id } => {
                let query = sqlx::query(deliveries::REPLAY).bind(ids).bind(delivered);
                let query = query.bind(endpoint_id.map(|id| id.0)).bind(now);
                let count = query.execute(&mut *database).await.map_err(unavailable)?.rows_affected();
                commit(database).await?;
                drop(writer);
                self.wake_deliverers(count);
                Ok(count)
            }
            ReplayTo::Queues => {
                let query = sqlx::query_scalar(SEND_AGAIN).bind(ids).bind(now);
                let queues: Vec<String> = query.fetch_all(&mut *database).await.map_err(unavailable)?;
                commit(database).await?;
                drop(writer);
                let woken = |queue: &QueueName| queues.iter().any(|name| name == queue.as_str());
                self.wake(QueueName::ALL.into_iter().filter(woken));
                Ok(queues.len() as u64)
            }
        }
    }

    /// Deletes those of these events that are over still, with their deliveries. What a crash undoes is deleted again.
    async fn delete_events(&self, ids: &[Uuid]) -> Result<u64, StoreError> {
        if ids.is_empty() {
            return Ok(0);
        }
        let mut writer = self.writer().await?;
        let mut database = writer.begin(Durability::Lease).await?;
        let deleted = purge(&mut database, ids).await.map_err(unavailable)?;
        commit(database).await?;
        Ok(deleted)
    }
}

async fn purge(connection: &mut SqliteConnection, ids: &[Uuid]) -> Result<u64, sqlx::Error> {
    let bind = |values: &mut Values, id: &Uuid| {
        values.push(*id);
    };
    let deleted = PURGE.execute(connection, ids.iter(), bind).await?;
    for statement in [&PURGE_DELIVERIES, &PURGE_ATTEMPTS] {
        statement.execute(connection, ids.iter(), bind).await?;
    }
    Ok(deleted)
}

type Query<'q> = sqlx::query::Query<'q, Sqlite, SqliteArguments>;

/// Binds a filter and the ids where the rows begin and end.
fn bind<'q>(query: Query<'q>, filter: &EventFilter, begin: Uuid, end: Uuid) -> Query<'q> {
    let kinds: Vec<_> = filter.kinds.iter().map(|kind| kind.as_str()).collect();
    query
        .bind(filter.customer_id.as_ref().map(ToString::to_string))
        .bind((!kinds.is_empty()).then_some(Json(kinds)))
        .bind(filter.aggregate_id)
        .bind(filter.from.map(millis))
        .bind(filter.to.map(millis))
        .bind(begin)
        .bind(end)
}

/// Ids as a statement takes any number of them.
pub(crate) fn hex_ids(ids: &[Uuid]) -> Json<Vec<String>> {
    Json(ids.iter().map(|id| id.simple().to_string()).collect())
}

pub(crate) fn decode(row: &SqliteRow) -> Result<Event, StoreError> {
    let text = |i: usize| row.try_get::<&str, _>(i).map_err(unavailable);
    Ok(Event {
        id: MessageId(row.try_get(0).map_err(unavailable)?),
        kind: EventKind::from_name(text(1)?).ok_or_else(|| damaged("kind"))?,
        aggregate_id: row.try_get(2).map_err(unavailable)?,
        sequence: row.try_get(3).map_err(unavailable)?,
        customer_id: parse(text(4)?, "customer_id")?,
        occurred_at: time(row.try_get(5).map_err(unavailable)?)?,
        data: text(6)?.to_owned(),
    })
}
