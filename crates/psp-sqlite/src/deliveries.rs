//! Deliveries to webhook endpoints: they come to be with their events, and their table is the queue.
//!
//! Claims and conclusions are as durable as leases. Losing one to a power cut makes an attempt twice and nothing else:
//! deliveries are made at least once, and merchants know an event that comes again by its id.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use psp_domain::ports::{DeliveryBacklog, DeliveryClaim, DeliveryStore, StoreError};
use psp_domain::{
    ConcludedDelivery, CustomerId, DeliveryAttempt, DeliveryStatus, DeliveryVerdict, DueDelivery, EndpointId, Event,
    MessageId, WebhookDelivery, WebhookEndpoint,
};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use tokio::time::timeout;
use uuid::Uuid;

use crate::bulk::{Bulk, Values};
use crate::connection::{Durability, SqliteStore, commit, damaged, millis, time, unavailable};
use crate::events::hex_ids;
use crate::{endpoints, events};

/// Whether the endpoint `w` receives events of that kind.
macro_rules! receives {
    ($kind:literal) => {
        concat!("w.status = 'enabled' AND (w.events = '' OR instr(w.events, ',' || ", $kind, " || ',') > 0)")
    };
}

/// Whether there may be anyone to deliver to.
macro_rules! has_endpoints {
    () => {
        "SELECT EXISTS (SELECT 1 FROM webhook_endpoints)"
    };
}

pub(crate) use has_endpoints;

/// The deliveries of new events: id, customer, kind, time.
pub(crate) const FAN_OUT: Bulk = Bulk::new(
    concat!(
        "WITH new AS ({values}) \
         INSERT INTO webhook_deliveries (event_id, endpoint_id, status, due_at, created_at, updated_at) \
         SELECT new.column1, w.id, 'pending', new.column4, new.column4, new.column4 \
         FROM new CROSS JOIN webhook_endpoints AS w ON w.customer_id = new.column2 WHERE ",
        receives!("new.column3")
    ),
    4,
);

/// The endpoints that have deliveries pending: one look-up in the index for each, however many wait for it.
macro_rules! waiting_endpoints {
    () => {
        "WITH RECURSIVE waiting (id) AS ( \
            SELECT (SELECT endpoint_id FROM webhook_deliveries INDEXED BY webhook_deliveries_due \
                WHERE due_at IS NOT NULL AND endpoint_id > x'' ORDER BY endpoint_id LIMIT 1) \
            UNION ALL \
            SELECT (SELECT endpoint_id FROM webhook_deliveries INDEXED BY webhook_deliveries_due \
                WHERE due_at IS NOT NULL AND endpoint_id > waiting.id ORDER BY endpoint_id LIMIT 1) \
            FROM waiting WHERE waiting.id IS NOT NULL \
         ) "
    };
}

/// Of those the enabled ones without the excepted (?3), by their earliest delivery that is due at ?1, at most ?2.
macro_rules! due_endpoints {
    () => {
        concat!(
            waiting_endpoints!(),
            ", due (id, since) AS ( \
                SELECT id, since FROM ( \
                    SELECT w.id, (SELECT due_at FROM webhook_deliveries INDEXED BY webhook_deliveries_due \
                        WHERE endpoint_id = w.id AND due_at <= ?1 ORDER BY due_at LIMIT 1) AS since \
                    FROM waiting CROSS JOIN webhook_endpoints AS w ON w.id = waiting.id \
                    WHERE w.status = 'enabled' AND w.id NOT IN (SELECT unhex(value) FROM json_each(?3))) \
                WHERE since IS NOT NULL ORDER BY since, id LIMIT ?2 \
             ) "
        )
    };
}

pub(crate) const IS_DUE: &str = concat!(due_endpoints!(), "SELECT EXISTS (SELECT 1 FROM due)");

/// At most ?4 for one endpoint and ?2 in all are leased until ?5.
pub(crate) const CLAIM: &str = concat!(
    "PRAGMA synchronous = NORMAL; ",
    due_endpoints!(),
    "UPDATE webhook_deliveries SET due_at = ?5, lease = lease + 1, is_leased = 1 WHERE (event_id, endpoint_id) IN ( \
        SELECT d.event_id, d.endpoint_id FROM due CROSS JOIN webhook_deliveries AS d ON d.endpoint_id = due.id \
        AND d.event_id IN (SELECT event_id FROM webhook_deliveries INDEXED BY webhook_deliveries_due \
            WHERE endpoint_id = due.id AND due_at <= ?1 ORDER BY due_at, event_id LIMIT ?4) \
        ORDER BY due.since, due.id, d.due_at, d.event_id LIMIT ?2) \
     RETURNING event_id, endpoint_id, attempts, tries, lease"
);

/// What was concluded: event, endpoint, lease, start and end of the attempt, its status, error and answer, and the delivery's
/// status and when it is due. Under a lease that was lost it finds nothing.
macro_rules! held {
    () => {
        "WITH concluded AS ({values}), held AS ( \
            SELECT d.attempts, c.* FROM concluded AS c CROSS JOIN webhook_deliveries AS d \
            ON d.event_id = c.column1 AND d.endpoint_id = c.column2 WHERE d.lease = c.column3 AND d.due_at IS NOT NULL \
         ) "
    };
}

pub(crate) const INSERT_ATTEMPTS: Bulk = Bulk::new(
    concat!(
        held!(),
        "INSERT INTO webhook_attempts (event_id, endpoint_id, number, started_at, duration_ms, status, error, answer) \
         SELECT column1, column2, attempts + 1, column4, column5, column6, column7, column8 FROM held"
    ),
    10,
);

/// Since when endpoints fail: since the first failure after the last success, or still. Writes no row that stays as it is.
pub(crate) const JUDGE_ENDPOINTS: Bulk = Bulk::new(
    concat!(
        held!(),
        ", dated AS ( \
            SELECT column2 AS id, column4 AS at, column9 = 'delivered' AS is_success, \
                max(column4) FILTER (WHERE column9 = 'delivered') OVER (PARTITION BY column2) AS succeeded FROM held \
         ), judged AS ( \
            SELECT id, succeeded, min(at) FILTER (WHERE NOT is_success AND (succeeded IS NULL OR at > succeeded)) AS failed \
            FROM dated GROUP BY id, succeeded \
         ), changed AS ( \
            SELECT w.id, CASE WHEN j.succeeded IS NULL THEN coalesce(w.failing_since, j.failed) ELSE j.failed END AS since \
            FROM judged AS j CROSS JOIN webhook_endpoints AS w ON w.id = j.id \
         ) \
         UPDATE webhook_endpoints SET failing_since = changed.since FROM changed \
         WHERE webhook_endpoints.id = changed.id AND webhook_endpoints.failing_since IS NOT changed.since"
    ),
    10,
);

/// The lease ends with it.
pub(crate) const CONCLUDE: Bulk = Bulk::new(
    "WITH concluded AS ({values}) UPDATE webhook_deliveries SET status = concluded.column4, due_at = concluded.column5, \
     attempts = attempts + 1, tries = tries + 1, lease = lease + 1, is_leased = 0, updated_at = concluded.column6 FROM concluded \
     WHERE webhook_deliveries.event_id = concluded.column1 AND webhook_deliveries.endpoint_id = concluded.column2 \
     AND webhook_deliveries.lease = concluded.column3 AND webhook_deliveries.due_at IS NOT NULL",
    6,
);

pub(crate) const OF_EVENT: &str = "SELECT d.endpoint_id, d.status, d.due_at, d.created_at, d.updated_at, a.number, \
     a.started_at, a.duration_ms, a.status, a.error, a.answer \
     FROM outbox AS e CROSS JOIN webhook_deliveries AS d ON d.event_id = e.id AND d.endpoint_id IN ( \
        SELECT endpoint_id FROM webhook_deliveries WHERE event_id = ?1 AND (due_at IS NULL \
            OR EXISTS (SELECT 1 FROM webhook_endpoints AS w WHERE w.id = endpoint_id)) \
        ORDER BY endpoint_id DESC LIMIT ?3) \
     LEFT JOIN webhook_attempts AS a ON a.event_id = d.event_id AND a.endpoint_id = d.endpoint_id \
        AND a.number > d.attempts - ?4 \
     WHERE e.id = ?1 AND e.customer_id = ?2 AND e.sequence IS NOT NULL ORDER BY d.endpoint_id, a.number";

/// A part of what waits for an endpoint of a customer.
pub(crate) const FORGET: &str = "DELETE FROM webhook_deliveries WHERE (event_id, endpoint_id) IN ( \
     SELECT d.event_id, d.endpoint_id FROM webhook_endpoints AS w \
     CROSS JOIN webhook_deliveries AS d INDEXED BY webhook_deliveries_due ON d.endpoint_id = w.id AND d.due_at IS NOT NULL \
     WHERE w.id = ?1 AND w.customer_id = ?2 LIMIT ?3)";

/// Starts deliveries anew.
macro_rules! start_anew {
    () => {
        " ON CONFLICT (event_id, endpoint_id) DO UPDATE SET status = excluded.status, due_at = excluded.due_at, \
         tries = 0, lease = webhook_deliveries.lease + 1, is_leased = 0, updated_at = excluded.updated_at"
    };
}

/// An event of a customer and the endpoints that it is delivered to, or the one that is asked for.
macro_rules! redelivered {
    () => {
        concat!(
            " FROM outbox AS e CROSS JOIN webhook_endpoints AS w ON w.customer_id = e.customer_id \
             WHERE e.id = ?1 AND e.customer_id = ?2 AND e.sequence IS NOT NULL AND w.status = 'enabled' \
             AND (w.id = ?3 OR (?3 IS NULL AND ",
            receives!("e.kind"),
            "))"
        )
    };
}

pub(crate) const COUNT_REDELIVERED: &str = concat!("SELECT count(*)", redelivered!());

/// One that is due or attempted just now stays as it is.
pub(crate) const REDELIVER: &str = concat!(
    "INSERT INTO webhook_deliveries (event_id, endpoint_id, status, due_at, created_at, updated_at) \
     SELECT e.id, w.id, 'pending', ?4, ?4, ?4",
    redelivered!(),
    start_anew!(),
    " WHERE webhook_deliveries.due_at IS NULL \
     OR (webhook_deliveries.due_at > excluded.due_at AND NOT webhook_deliveries.is_leased)"
);

/// Events and the endpoints that they are delivered to, or the one that is asked for.
macro_rules! replayed {
    () => {
        "FROM json_each(?1) AS asked CROSS JOIN outbox AS e ON e.id = unhex(asked.value) \
         CROSS JOIN webhook_endpoints AS w ON w.customer_id = e.customer_id AND (?3 IS NULL OR w.id = ?3)"
    };
}

pub(crate) const COUNT_REPLAYED: &str = concat!(
    "SELECT count(*) ",
    replayed!(),
    " LEFT JOIN webhook_deliveries AS d ON d.event_id = e.id AND d.endpoint_id = w.id WHERE ",
    receives!("e.kind"),
    " AND (d.status IS NULL OR d.status = 'failed' OR (d.status = 'delivered' AND ?2))"
);

pub(crate) const REPLAY: &str = concat!(
    "INSERT INTO webhook_deliveries (event_id, endpoint_id, status, due_at, created_at, updated_at) \
     SELECT e.id, w.id, 'pending', ?4, ?4, ?4 ",
    replayed!(),
    " WHERE ",
    receives!("e.kind"),
    start_anew!(),
    " WHERE webhook_deliveries.status = 'failed' OR (webhook_deliveries.status = 'delivered' AND ?2)"
);

/// How many wait for enabled endpoints, counted up to ?2, and since when the longest due one is due.
pub(crate) const BACKLOG: &str = concat!(
    waiting_endpoints!(),
    "SELECT (SELECT count(*) FROM (SELECT 1 FROM waiting CROSS JOIN webhook_endpoints AS w ON w.id = waiting.id \
        CROSS JOIN webhook_deliveries AS d INDEXED BY webhook_deliveries_due ON d.endpoint_id = w.id AND d.due_at IS NOT NULL \
        WHERE w.status = 'enabled' LIMIT ?2)), \
     min((SELECT due_at FROM webhook_deliveries INDEXED BY webhook_deliveries_due \
         WHERE endpoint_id = w.id AND due_at <= ?1 ORDER BY due_at LIMIT 1)) \
     FROM waiting CROSS JOIN webhook_endpoints AS w ON w.id = waiting.id WHERE w.status = 'enabled'"
);

/// Makes the deliveries of new events; returns how many.
pub(crate) async fn fan_out<'e>(
    connection: &mut SqliteConnection,
    events: impl ExactSizeIterator<Item = (Uuid, &'e str, &'e str, i64)>,
) -> Result<u64, sqlx::Error> {
    let bind = |values: &mut Values, (id, customer, kind, at): (Uuid, &str, &str, i64)| {
        values.push(id).push(customer).push(kind).push(at);
    };
    FAN_OUT.execute(connection, events, bind).await
}

#[async_trait]
impl DeliveryStore for SqliteStore {
    async fn claim_deliveries(&self, claim: DeliveryClaim<'_>) -> Result<Vec<DueDelivery>, StoreError> {
        let except = hex_ids(&claim.except.iter().map(|id| id.0).collect::<Vec<_>>());
        let now = millis(claim.now);
        // Asked of a reader, so that an idle loop never takes the write lock.
        let query = sqlx::query_scalar(IS_DUE).bind(now).bind(claim.max).bind(&except);
        if !query.fetch_one(&self.readers).await.map_err(unavailable)? {
            return Ok(Vec::new());
        }
        let query = sqlx::query_as(CLAIM).bind(now).bind(claim.max).bind(&except).bind(claim.per_endpoint);
        let query = query.bind(millis(claim.leased_until));
        let mut writer = self.writer().await?;
        let leased: Vec<Leased> = query.fetch_all(writer.connection()?).await.map_err(unavailable)?;
        drop(writer);
        self.load(leased).await
    }

    async fn deliveries_wake(&self, wait: Duration) {
        let _ = timeout(wait, self.deliverers.notified()).await;
    }

    async fn conclude_deliveries(&self, concluded: &[ConcludedDelivery]) -> Result<(), StoreError> {
        if concluded.is_empty() {
            return Ok(());
        }
        let now = millis(self.now());
        let mut writer = self.writer().await?;
        let mut database = writer.begin(Durability::Lease).await?;
        conclude(&mut database, concluded, now).await.map_err(unavailable)?;
        commit(database).await
    }

    async fn deliveries_of(&self, customer: &CustomerId, event: MessageId) -> Result<Vec<WebhookDelivery>, StoreError> {
        let query = sqlx::query(OF_EVENT).bind(event.0).bind(customer.as_str());
        let query = query.bind(WebhookDelivery::MAX_SHOWN).bind(WebhookDelivery::MAX_ATTEMPTS_SHOWN);
        let rows = query.fetch_all(&self.readers).await.map_err(unavailable)?;
        let mut deliveries: Vec<WebhookDelivery> = Vec::new();
        for row in &rows {
            let endpoint_id = EndpointId(row.try_get(0).map_err(unavailable)?);
            if deliveries.last().is_none_or(|last| last.endpoint_id != endpoint_id) {
                deliveries.push(decode(row, event, endpoint_id)?);
            }
            let number: Option<i64> = row.try_get(5).map_err(unavailable)?;
            if let (Some(number), Some(last)) = (number, deliveries.last_mut()) {
                last.attempts.push(decode_attempt(row, number)?);
            }
        }
        Ok(deliveries)
    }

    async fn redeliver(
        &self,
        customer: &CustomerId,
        event: MessageId,
        endpoint: Option<EndpointId>,
        now: DateTime<Utc>,
    ) -> Result<u64, StoreError> {
        let endpoint = endpoint.map(|id| id.0);
        let mut writer = self.writer().await?;
        let mut database = writer.begin(Durability::Full).await?;
        let query = sqlx::query_scalar(COUNT_REDELIVERED).bind(event.0).bind(customer.as_str()).bind(endpoint);
        let count: i64 = query.fetch_one(&mut *database).await.map_err(unavailable)?;
        let query = sqlx::query(REDELIVER).bind(event.0).bind(customer.as_str()).bind(endpoint).bind(millis(now));
        let started = query.execute(&mut *database).await.map_err(unavailable)?.rows_affected();
        commit(database).await?;
        drop(writer);
        self.wake_deliverers(started);
        Ok(count.unsigned_abs())
    }

    async fn delivery_backlog(&self, now: DateTime<Utc>) -> Result<DeliveryBacklog, StoreError> {
        let query = sqlx::query_as(BACKLOG).bind(millis(now)).bind(DeliveryBacklog::MAX_PENDING);
        let row: Result<(i64, Option<i64>), _> = query.fetch_one(&self.readers).await;
        let (pending, oldest_due) = row.map_err(unavailable)?;
        Ok(DeliveryBacklog { pending: pending.unsigned_abs(), oldest_due: oldest_due.map(time).transpose()? })
    }
}

/// Event, endpoint, attempts, tries and lease of a delivery.
type Leased = (Uuid, Uuid, i64, i64, i64);

impl SqliteStore {
    /// Wakes who waits for deliveries where there are any new ones; call it after the commit.
    pub(crate) fn wake_deliverers(&self, count: u64) {
        if count > 0 {
            self.deliverers.notify_waiters();
            self.deliverers.notify_one();
        }
    }

    /// What was leased, with events and endpoints: read after the lease, so that the write lock is not held for it. What makes no
    /// sense holds no other back: it comes again when its lease ends.
    async fn load(&self, leased: Vec<Leased>) -> Result<Vec<DueDelivery>, StoreError> {
        let ids = hex_ids(&leased.iter().map(|(event, ..)| *event).collect::<Vec<_>>());
        let rows = sqlx::query(events::OF_IDS).bind(ids).fetch_all(&self.readers).await.map_err(unavailable)?;
        let events = rows.iter().filter_map(|row| sound(events::decode(row)));
        let events: HashMap<Uuid, Event> = events.map(|event| (event.id.0, event)).collect();
        let mut ids: Vec<_> = leased.iter().map(|(_, endpoint, ..)| *endpoint).collect();
        ids.sort_unstable();
        ids.dedup();
        let query = sqlx::query(endpoints::OF_IDS).bind(hex_ids(&ids));
        let rows = query.fetch_all(&self.readers).await.map_err(unavailable)?;
        let endpoints = rows.iter().filter_map(|row| sound(endpoints::decode(row)));
        let endpoints: HashMap<Uuid, WebhookEndpoint> = endpoints.map(|endpoint| (endpoint.id.0, endpoint)).collect();
        let loaded = leased.into_iter().filter_map(|(event, endpoint, attempts, tries, lease)| {
            Some(DueDelivery {
                event: events.get(&event)?.clone(),
                endpoint: endpoints.get(&endpoint)?.clone(),
                attempts: u32::try_from(attempts).ok()?,
                tries: u32::try_from(tries).ok()?,
                lease,
            })
        });
        Ok(loaded.collect())
    }
}

/// The value, unless it makes no sense.
fn sound<T>(value: Result<T, StoreError>) -> Option<T> {
    value.inspect_err(|error| tracing::error!(error = error as &dyn std::error::Error, "a delivery is left out")).ok()
}

async fn conclude(
    connection: &mut SqliteConnection,
    concluded: &[ConcludedDelivery],
    now: i64,
) -> Result<(), sqlx::Error> {
    let bind = |values: &mut Values, c: &ConcludedDelivery| {
        let (status, due_at) = stored_verdict(c.verdict);
        values.push(c.event_id.0).push(c.endpoint_id.0).push(c.lease).push(millis(c.attempt.started_at));
        values.push(i64::from(c.attempt.duration_ms)).push(c.attempt.status.map(i64::from));
        values.push(c.attempt.error.as_deref()).push(&*c.attempt.answer).push(status).push(due_at);
    };
    INSERT_ATTEMPTS.execute(connection, concluded.iter(), bind).await?;
    // Large batches are judged in parts: by their time, so that the last word counts.
    let mut by_time: Vec<_> = concluded.iter().collect();
    by_time.sort_by_key(|one| (one.attempt.started_at, one.verdict == DeliveryVerdict::Delivered));
    JUDGE_ENDPOINTS.execute(connection, by_time.into_iter(), bind).await?;
    let bind = |values: &mut Values, c: &ConcludedDelivery| {
        let (status, due_at) = stored_verdict(c.verdict);
        values.push(c.event_id.0).push(c.endpoint_id.0).push(c.lease).push(status).push(due_at).push(now);
    };
    CONCLUDE.execute(connection, concluded.iter(), bind).await?;
    Ok(())
}

/// A delivery's status after that verdict, and when it is due.
fn stored_verdict(verdict: DeliveryVerdict) -> (&'static str, Option<i64>) {
    match verdict {
        DeliveryVerdict::Delivered => (DeliveryStatus::Delivered.as_str(), None),
        DeliveryVerdict::RetryAt(at) => (DeliveryStatus::Pending.as_str(), Some(millis(at))),
        DeliveryVerdict::Failed => (DeliveryStatus::Failed.as_str(), None),
    }
}

/// A delivery of [`OF_EVENT`], without attempts.
fn decode(row: &SqliteRow, event_id: MessageId, endpoint_id: EndpointId) -> Result<WebhookDelivery, StoreError> {
    let status: &str = row.try_get(1).map_err(unavailable)?;
    let due_at: Option<i64> = row.try_get(2).map_err(unavailable)?;
    Ok(WebhookDelivery {
        event_id,
        endpoint_id,
        status: DeliveryStatus::from_name(status).ok_or_else(|| damaged("status"))?,
        next_attempt_at: due_at.map(time).transpose()?,
        attempts: Vec::new(),
        created_at: time(row.try_get(3).map_err(unavailable)?)?,
        updated_at: time(row.try_get(4).map_err(unavailable)?)?,
    })
}

/// The attempt in a row of [`OF_EVENT`].
fn decode_attempt(row: &SqliteRow, number: i64) -> Result<DeliveryAttempt, StoreError> {
    let whole = |i: usize| row.try_get::<i64, _>(i).map_err(unavailable);
    let status: Option<i64> = row.try_get(8).map_err(unavailable)?;
    Ok(DeliveryAttempt {
        number: u32::try_from(number).map_err(|_| damaged("number"))?,
        started_at: time(whole(6)?)?,
        duration_ms: u32::try_from(whole(7)?).map_err(|_| damaged("duration_ms"))?,
        status: status.map(|status| u16::try_from(status).map_err(|_| damaged("status"))).transpose()?,
        error: row.try_get(9).map_err(unavailable)?,
        answer: row.try_get(10).map_err(unavailable)?,
    })
}
