//! Reading, replaying and purging events: the rows of the outbox with a sequence.

use std::sync::PoisonError;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use psp_domain::ports::{EventStore, Replay, ReplayTo, Replayed, StoreError};
use psp_domain::{CustomerId, Event, EventFilter, EventKind, MessageId, Page, PageRequest, QueueName};
use sqlx::Connection;
use uuid::Uuid;

use crate::classify::{damaged, parse, repeat};
use crate::connection::PgStore;

/// An event as columns.
pub(crate) struct Row {
    pub(crate) id: Uuid,
    pub(crate) kind: String,
    pub(crate) aggregate_id: Uuid,
    pub(crate) sequence: i64,
    pub(crate) customer_id: String,
    pub(crate) sent_at: DateTime<Utc>,
    pub(crate) body: String,
}

impl TryFrom<Row> for Event {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: MessageId(row.id),
            kind: EventKind::from_name(&row.kind).ok_or_else(|| damaged("kind"))?,
            aggregate_id: row.aggregate_id,
            sequence: row.sequence,
            customer_id: parse(&row.customer_id, "customer_id")?,
            occurred_at: row.sent_at,
            data: row.body,
        })
    }
}

/// Selects whole rows.
macro_rules! select {
    ($rest:tt, $($argument:expr),*) => {
        sqlx::query_as!(
            Row,
            r#"SELECT id, kind, aggregate_id, sequence AS "sequence!", customer_id AS "customer_id!", sent_at, body
            FROM outbox WHERE sequence IS NOT NULL AND "# + $rest,
            $($argument),*
        )
    };
}

/// How many rows a purge looks at in one trip.
const STRIDE: i64 = 1_000;

/// The names of the kinds of a filter; `None` for all.
fn kinds(filter: &EventFilter) -> Option<Vec<String>> {
    let kinds: Vec<_> = filter.kinds.iter().map(|kind| kind.as_str().to_owned()).collect();
    (!kinds.is_empty()).then_some(kinds)
}

#[async_trait]
impl EventStore for PgStore {
    async fn find_event(&self, customer: &CustomerId, id: MessageId) -> Result<Option<Event>, StoreError> {
        let row =
            repeat(|| select!("id = $1 AND customer_id = $2", id.0, customer.as_str()).fetch_optional(&self.reads));
        row.await?.map(Event::try_from).transpose()
    }

    async fn list_events(&self, filter: &EventFilter, page: PageRequest) -> Result<Page<Event>, StoreError> {
        let (oldest, newest) = filter.id_bounds();
        let begin = page.after().map_or(newest, |after| after.min(newest));
        let walked_to = match filter.aggregate_id {
            None if filter.is_selective() => self.walked_back_to(filter, begin, oldest).await?,
            _ => None,
        };
        let rows = Rows { begin, end: walked_to.unwrap_or(oldest), limit: page.limit() + 1, offset: page.offset() };
        let rows = match (&filter.customer_id, filter.aggregate_id) {
            (_, Some(aggregate)) => self.list_of_aggregate(aggregate, filter, rows).await?,
            (Some(customer), None) => self.list_of_customer(customer, filter, rows).await?,
            (None, None) => self.list_of_all(filter, rows).await?,
        };
        let events = rows.into_iter().map(Event::try_from).collect::<Result<_, _>>()?;
        Ok(Page::from_walk(events, page, walked_to, |event: &Event| event.id.0))
    }

    async fn replay_events(
        &self,
        filter: &EventFilter,
        replay: Replay,
        after: Option<MessageId>,
        limit: u32,
    ) -> Result<Replayed, StoreError> {
        // Events do not change, so they are looked for before the write.
        let (oldest, newest) = filter.id_bounds();
        let begin = after.map_or(oldest, |after| after.0.max(oldest));
        let walked_to = if filter.is_selective() { self.walked_on_to(filter, begin, newest).await? } else { None };
        let mut ids = self.ids_after(filter, begin, walked_to.unwrap_or(newest), i64::from(limit) + 1).await?;
        let more = ids.len() > limit as usize;
        ids.truncate(limit as usize);
        let replayed = match replay.to {
            _ if ids.is_empty() => 0,
            ReplayTo::Webhooks { delivered, endpoint_id } => {
                self.replay_to_webhooks(&ids, delivered, endpoint_id, replay).await?
            }
            ReplayTo::Queues => self.replay_to_queues(&ids, replay).await?,
        };
        let last = ids.last().copied().filter(|_| more).or(walked_to).map(MessageId);
        Ok(Replayed { events: ids.len() as u64, replayed, last })
    }

    /// Walks the primary key from the oldest, and goes on the next time where it came to: what is kept, however long a run of it,
    /// is passed over once in a walk. After the end the next walk begins, and finds what became free behind this one.
    async fn purge_events(&self, before: DateTime<Utc>, limit: u32) -> Result<u64, StoreError> {
        let mut at = *self.purged_to.lock().unwrap_or_else(PoisonError::into_inner);
        let mut purged = 0;
        let end = loop {
            let left = usize::try_from(u64::from(limit).saturating_sub(purged)).unwrap_or(usize::MAX);
            if left == 0 {
                break at;
            }
            let rows = self.walk(at, before).await?;
            let is_end = rows.len() < usize::try_from(STRIDE).unwrap_or(0) || rows.iter().all(|row| !row.is_before);
            let over: Vec<_> = rows.iter().filter(|row| row.is_over).map(|row| row.id).collect();
            let (now, later) = over.split_at(left.min(over.len()));
            purged += self.delete_events(now).await?;
            at = match (later.first(), rows.last()) {
                // Some are left to the next time.
                (Some(_), _) => now.last().copied().unwrap_or(at),
                (None, Some(last)) if !is_end => last.id,
                _ => break Uuid::nil(),
            };
        };
        *self.purged_to.lock().unwrap_or_else(PoisonError::into_inner) = end;
        Ok(purged)
    }
}

/// Which rows of a list are asked for: the ids before which it begins and with which it ends, and how many.
#[derive(Clone, Copy)]
struct Rows {
    begin: Uuid,
    end: Uuid,
    limit: u32,
    offset: u32,
}

/// A row that a purge comes by.
struct Passed {
    id: Uuid,
    is_before: bool,
    is_over: bool,
}

impl PgStore {
    async fn list_of_customer(
        &self,
        customer: &CustomerId,
        filter: &EventFilter,
        rows: Rows,
    ) -> Result<Vec<Row>, StoreError> {
        let kinds = kinds(filter);
        repeat(|| {
            let query = select!(
                "customer_id = $1 AND id < $2 AND id >= $3 AND ($4::text[] IS NULL OR kind = ANY ($4)) \
                 AND ($5::timestamptz IS NULL OR sent_at >= $5) AND ($6::timestamptz IS NULL OR sent_at < $6) \
                 ORDER BY id DESC LIMIT $7 OFFSET $8",
                customer.as_str(),
                rows.begin,
                rows.end,
                kinds.as_deref(),
                filter.from,
                filter.to,
                i64::from(rows.limit),
                i64::from(rows.offset)
            );
            query.fetch_all(&self.reads)
        })
        .await
    }

    /// An aggregate has few events: they are sorted.
    async fn list_of_aggregate(
        &self,
        aggregate: Uuid,
        filter: &EventFilter,
        rows: Rows,
    ) -> Result<Vec<Row>, StoreError> {
        let kinds = kinds(filter);
        let customer = filter.customer_id.as_ref().map(CustomerId::as_str);
        repeat(|| {
            let query = select!(
                "aggregate_id = $1 AND id < $2 AND id >= $3 AND ($4::text[] IS NULL OR kind = ANY ($4)) \
                 AND ($5::timestamptz IS NULL OR sent_at >= $5) AND ($6::timestamptz IS NULL OR sent_at < $6) \
                 AND ($9::text IS NULL OR customer_id = $9) ORDER BY id DESC LIMIT $7 OFFSET $8",
                aggregate,
                rows.begin,
                rows.end,
                kinds.as_deref(),
                filter.from,
                filter.to,
                i64::from(rows.limit),
                i64::from(rows.offset),
                customer
            );
            query.fetch_all(&self.reads)
        })
        .await
    }

    async fn list_of_all(&self, filter: &EventFilter, rows: Rows) -> Result<Vec<Row>, StoreError> {
        let kinds = kinds(filter);
        repeat(|| {
            let query = select!(
                "id < $1 AND id >= $2 AND ($3::text[] IS NULL OR kind = ANY ($3)) \
                 AND ($4::timestamptz IS NULL OR sent_at >= $4) AND ($5::timestamptz IS NULL OR sent_at < $5) \
                 ORDER BY id DESC LIMIT $6 OFFSET $7",
                rows.begin,
                rows.end,
                kinds.as_deref(),
                filter.from,
                filter.to,
                i64::from(rows.limit),
                i64::from(rows.offset)
            );
            query.fetch_all(&self.reads)
        })
        .await
    }

    /// The last row that a walk back from one id to another examines, where it ends before the rows do.
    async fn walked_back_to(&self, filter: &EventFilter, begin: Uuid, end: Uuid) -> Result<Option<Uuid>, StoreError> {
        let last = i64::from(EventFilter::MAX_EXAMINED) - 1;
        repeat(|| async {
            if let Some(customer) = &filter.customer_id {
                let query = sqlx::query_scalar!(
                    "SELECT id FROM outbox WHERE sequence IS NOT NULL AND customer_id = $1 AND id < $2 AND id >= $3 \
                     ORDER BY id DESC LIMIT 1 OFFSET $4",
                    customer.as_str(),
                    begin,
                    end,
                    last
                );
                return query.fetch_optional(&self.reads).await;
            }
            let query = sqlx::query_scalar!(
                "SELECT id FROM outbox WHERE id < $1 AND id >= $2 ORDER BY id DESC LIMIT 1 OFFSET $3",
                begin,
                end,
                last
            );
            query.fetch_optional(&self.reads).await
        })
        .await
    }

    /// The same of a walk on from one id, which is not examined, to another.
    async fn walked_on_to(&self, filter: &EventFilter, begin: Uuid, end: Uuid) -> Result<Option<Uuid>, StoreError> {
        let last = i64::from(EventFilter::MAX_EXAMINED) - 1;
        repeat(|| async {
            if let Some(customer) = &filter.customer_id {
                let query = sqlx::query_scalar!(
                    "SELECT id FROM outbox WHERE sequence IS NOT NULL AND customer_id = $1 AND id > $2 AND id < $3 \
                     ORDER BY id LIMIT 1 OFFSET $4",
                    customer.as_str(),
                    begin,
                    end,
                    last
                );
                return query.fetch_optional(&self.reads).await;
            }
            let query = sqlx::query_scalar!(
                "SELECT id FROM outbox WHERE id > $1 AND id < $2 ORDER BY id LIMIT 1 OFFSET $3",
                begin,
                end,
                last
            );
            query.fetch_optional(&self.reads).await
        })
        .await
    }

    /// The ids of the events of a filter, oldest first, after one id and up to another.
    async fn ids_after(
        &self,
        filter: &EventFilter,
        after: Uuid,
        to: Uuid,
        limit: i64,
    ) -> Result<Vec<Uuid>, StoreError> {
        let kinds = kinds(filter);
        let customer = filter.customer_id.as_ref().map(CustomerId::as_str);
        repeat(|| async {
            if let Some(customer) = customer {
                let query = sqlx::query_scalar!(
                    "SELECT id FROM outbox WHERE sequence IS NOT NULL AND customer_id = $1 AND id > $2 AND id <= $3 \
                     AND ($4::text[] IS NULL OR kind = ANY ($4)) AND ($5::timestamptz IS NULL OR sent_at >= $5) \
                     AND ($6::timestamptz IS NULL OR sent_at < $6) AND ($7::uuid IS NULL OR aggregate_id = $7) \
                     ORDER BY id LIMIT $8",
                    customer,
                    after,
                    to,
                    kinds.as_deref(),
                    filter.from,
                    filter.to,
                    filter.aggregate_id,
                    limit
                );
                return query.fetch_all(&self.reads).await;
            }
            let query = sqlx::query_scalar!(
                "SELECT id FROM outbox WHERE sequence IS NOT NULL AND id > $1 AND id <= $2 \
                 AND ($3::text[] IS NULL OR kind = ANY ($3)) AND ($4::timestamptz IS NULL OR sent_at >= $4) \
                 AND ($5::timestamptz IS NULL OR sent_at < $5) AND ($6::uuid IS NULL OR aggregate_id = $6) \
                 ORDER BY id LIMIT $7",
                after,
                to,
                kinds.as_deref(),
                filter.from,
                filter.to,
                filter.aggregate_id,
                limit
            );
            query.fetch_all(&self.reads).await
        })
        .await
    }

    /// What is neither pending nor a dead letter becomes a message again, under a new lease.
    async fn replay_to_queues(&self, ids: &[Uuid], replay: Replay) -> Result<u64, StoreError> {
        if replay.is_dry_run {
            let count = repeat(|| {
                let query = sqlx::query_scalar!(
                    r#"SELECT count(*) AS "count!" FROM outbox
                    WHERE id = ANY ($1) AND queue IS NOT NULL AND dead_at IS NULL
                        AND visible_at IS NULL"#,
                    ids
                );
                query.fetch_one(&self.reads)
            });
            return Ok(count.await?.unsigned_abs());
        }
        let queues = repeat(|| {
            let query = sqlx::query_scalar!(
                r#"UPDATE outbox SET visible_at = $2, receive_count = 0, reason = NULL, lease = lease + 1
                WHERE id = ANY ($1) AND queue IS NOT NULL AND dead_at IS NULL
                    AND visible_at IS NULL
                RETURNING queue AS "queue!""#,
                ids,
                replay.now
            );
            query.fetch_all(&self.writes)
        });
        let queues = queues.await?;
        let is_woken = |queue: &QueueName| queues.iter().any(|name| name == queue.as_str());
        self.wake.wake(QueueName::ALL.into_iter().filter(is_woken));
        Ok(queues.len() as u64)
    }

    /// The next rows of a walk over the primary key. What waits for an endpoint that is disabled has waited long
    /// enough, and for one that was deleted it waits in vain. Deliveries are
    /// looked up by their event: asking for those that are due would tempt the planner to read them all.
    async fn walk(&self, after: Uuid, before: DateTime<Utc>) -> Result<Vec<Passed>, StoreError> {
        repeat(|| {
            let query = sqlx::query_as!(
                Passed,
                r#"SELECT id, sent_at < $2 AS "is_before!", sent_at < $2 AND sequence IS NOT NULL AND dead_at IS NULL
                    AND visible_at IS NULL AND 0 = (SELECT count(*) FROM webhook_deliveries AS d
                        JOIN webhook_endpoints AS w ON w.id = d.endpoint_id
                        WHERE d.event_id = outbox.id AND d.status = 'pending' AND w.status = 'enabled') AS "is_over!"
                FROM outbox WHERE id > $1 ORDER BY id LIMIT $3"#,
                after,
                before,
                STRIDE
            );
            query.fetch_all(&self.reads)
        })
        .await
    }

    /// Deletes those of these events that are over still, with their deliveries. They are locked first: who starts a delivery
    /// anew locks its event, too, and the second statement sees what the first one waited for. A crash undoes nothing that
    /// would not be deleted again.
    async fn delete_events(&self, ids: &[Uuid]) -> Result<u64, StoreError> {
        if ids.is_empty() {
            return Ok(0);
        }
        let deleted = repeat(|| async {
            let mut connection = self.leases.acquire().await?;
            let mut database = connection.begin().await?;
            let locked = sqlx::query_scalar!(
                "SELECT id FROM outbox WHERE id = ANY ($1) ORDER BY id FOR UPDATE SKIP LOCKED",
                ids
            );
            let locked = locked.fetch_all(&mut *database).await?;
            let deleted = sqlx::query_scalar!(
                r#"WITH deleted AS (
                    DELETE FROM outbox WHERE id = ANY ($1) AND visible_at IS NULL AND dead_at IS NULL
                        AND 0 = (SELECT count(*) FROM webhook_deliveries AS d
                            JOIN webhook_endpoints AS w ON w.id = d.endpoint_id
                            WHERE d.event_id = outbox.id AND d.status = 'pending' AND w.status = 'enabled')
                    RETURNING id
                ), deliveries AS (
                    DELETE FROM webhook_deliveries WHERE event_id = ANY (ARRAY (SELECT id FROM deleted))
                ), attempts AS (
                    DELETE FROM webhook_attempts WHERE event_id = ANY (ARRAY (SELECT id FROM deleted))
                )
                SELECT count(*) AS "count!" FROM deleted"#,
                &locked
            );
            let deleted = deleted.fetch_one(&mut *database).await?;
            database.commit().await?;
            Ok(deleted)
        });
        Ok(deleted.await?.unsigned_abs())
    }
}
