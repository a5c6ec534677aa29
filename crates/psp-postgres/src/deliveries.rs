//! Deliveries to webhook endpoints: they come to be with their events, and their table is the queue.
//!
//! Claims and conclusions are as durable as leases. Losing one to a crash of the server makes an attempt twice and nothing
//! else: deliveries are made at least once, and merchants know an event that comes again by its id.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use psp_domain::ports::{DeliveryBacklog, DeliveryClaim, DeliveryStore, Replay, StoreError};
use psp_domain::{
    ConcludedDelivery, CustomerId, DeliveryAttempt, DeliveryStatus, DeliveryVerdict, DueDelivery, EndpointId,
    MessageId, WebhookDelivery,
};
use tokio::time::timeout;
use uuid::Uuid;

use crate::classify::{damaged, repeat};
use crate::connection::PgStore;
use crate::{endpoints, events};

#[async_trait]
impl DeliveryStore for PgStore {
    /// One statement: one look-up in the index for each endpoint that has deliveries pending, however many wait for it, and then
    /// its share of rows. What another claim holds is passed over.
    async fn claim_deliveries(&self, claim: DeliveryClaim<'_>) -> Result<Vec<DueDelivery>, StoreError> {
        let except: Vec<_> = claim.except.iter().map(|id| id.0).collect();
        let rows = repeat(|| {
            let query = sqlx::query_as!(
                Claimed,
                r#"WITH RECURSIVE waiting AS (
                    (SELECT endpoint_id AS id FROM webhook_deliveries
                    WHERE due_at IS NOT NULL AND endpoint_id > '00000000-0000-0000-0000-000000000000'
                    ORDER BY endpoint_id LIMIT 1)
                    UNION ALL
                    SELECT (SELECT d.endpoint_id FROM webhook_deliveries AS d
                        WHERE d.due_at IS NOT NULL AND d.endpoint_id > waiting.id ORDER BY d.endpoint_id LIMIT 1)
                    FROM waiting WHERE waiting.id IS NOT NULL
                ), receivers AS MATERIALIZED (
                    SELECT id FROM webhook_endpoints
                    WHERE id = ANY (ARRAY (SELECT id FROM waiting)) AND status = 'enabled' AND id <> ALL ($3)
                ), due AS MATERIALIZED (
                    SELECT r.id, first.due_at FROM receivers AS r CROSS JOIN LATERAL (
                        SELECT d.due_at FROM webhook_deliveries AS d WHERE d.endpoint_id = r.id AND d.due_at <= $1
                        ORDER BY d.due_at LIMIT 1) AS first
                    ORDER BY first.due_at, r.id LIMIT $2
                ), picked AS MATERIALIZED (
                    SELECT share.event_id, share.endpoint_id, due.due_at AS since, share.due_at
                    FROM due CROSS JOIN LATERAL (
                        SELECT d.event_id, d.endpoint_id, d.due_at FROM webhook_deliveries AS d
                        WHERE d.endpoint_id = due.id AND d.due_at <= $1 ORDER BY d.due_at LIMIT $4
                        FOR UPDATE SKIP LOCKED) AS share
                    LIMIT $2
                ), claimed AS (
                    UPDATE webhook_deliveries AS d SET due_at = $5, lease = d.lease + 1, is_leased = true FROM picked AS p
                    WHERE d.event_id = ANY (ARRAY (SELECT event_id FROM picked)) AND d.event_id = p.event_id
                        AND d.endpoint_id = p.endpoint_id
                    RETURNING d.event_id, d.endpoint_id, d.attempts, d.tries, d.lease, p.since, p.due_at
                )
                SELECT c.attempts AS "attempts!", c.tries AS "tries!", c.lease AS "lease!", o.id AS "event_id!",
                    o.kind AS "kind!", o.aggregate_id AS "aggregate_id!", o.sequence AS "event_sequence!",
                    o.customer_id AS "customer_id!", o.sent_at AS "sent_at!", o.body AS "body!", w.id AS "endpoint_id!",
                    w.url AS "url!", w.events AS "events!", w.description AS "description!", w.status AS "status!",
                    w.disabled_reason, w.secret AS "secret!", w.previous_secret, w.previous_until, w.failing_since,
                    w.version AS "version!", w.sequence AS "sequence!", w.created_at AS "created_at!",
                    w.updated_at AS "updated_at!"
                FROM claimed AS c
                CROSS JOIN LATERAL (SELECT * FROM outbox WHERE id = c.event_id LIMIT 1) AS o
                CROSS JOIN LATERAL (SELECT * FROM webhook_endpoints WHERE id = c.endpoint_id LIMIT 1) AS w
                ORDER BY c.since, c.endpoint_id, c.due_at"#,
                claim.now,
                i64::from(claim.max),
                &except,
                i64::from(claim.per_endpoint),
                claim.leased_until
            );
            query.fetch_all(&self.leases)
        });
        Ok(rows.await?.into_iter().filter_map(Claimed::sound).collect())
    }

    async fn deliveries_wake(&self, wait: Duration) {
        let _ = timeout(wait, self.wake.deliverer().notified()).await;
    }

    /// One statement. Endpoints are locked after deliveries, by their ids, and only where it is another time since when they fail.
    async fn conclude_deliveries(&self, concluded: &[ConcludedDelivery]) -> Result<(), StoreError> {
        if concluded.is_empty() {
            return Ok(());
        }
        let (c, now) = (Conclusions::of(concluded), self.now());
        let done = repeat(|| {
            let query = sqlx::query!(
                r#"WITH asked AS (
                    SELECT * FROM UNNEST($1::uuid[], $2::uuid[], $3::bigint[], $4::text[], $5::timestamptz[],
                            $6::timestamptz[], $7::int[], $8::smallint[], $9::text[], $10::text[])
                        AS c (event_id, endpoint_id, lease, verdict, due_at, started_at, duration_ms, status, error, answer)
                ), concluded AS (
                    UPDATE webhook_deliveries AS d SET status = a.verdict, due_at = a.due_at, attempts = d.attempts + 1,
                        tries = d.tries + 1, lease = d.lease + 1, is_leased = false, updated_at = $11
                    FROM asked AS a
                    WHERE d.event_id = ANY ($1) AND d.event_id = a.event_id AND d.endpoint_id = a.endpoint_id
                        AND d.lease = a.lease AND d.status = 'pending'
                    RETURNING d.event_id, d.endpoint_id, d.attempts, a.verdict, a.started_at, a.duration_ms,
                        a.status, a.error, a.answer
                ), written AS (
                    INSERT INTO webhook_attempts (event_id, endpoint_id, number, started_at, duration_ms, status, error,
                        answer)
                    SELECT event_id, endpoint_id, attempts, started_at, duration_ms, status, error, answer FROM concluded
                ), succeeded AS (
                    SELECT endpoint_id AS id, max(started_at) FILTER (WHERE verdict = 'delivered') AS at
                    FROM concluded GROUP BY endpoint_id
                ), judged AS (
                    SELECT s.id, s.at AS succeeded, min(c.started_at) FILTER (WHERE c.verdict <> 'delivered'
                        AND (s.at IS NULL OR c.started_at > s.at)) AS failed
                    FROM succeeded AS s JOIN concluded AS c ON c.endpoint_id = s.id GROUP BY s.id, s.at
                ), changed AS (
                    SELECT w.id, j.succeeded, j.failed
                    FROM webhook_endpoints AS w JOIN judged AS j ON j.id = w.id
                    WHERE w.id = ANY (ARRAY (SELECT id FROM judged)) AND w.failing_since IS DISTINCT FROM
                        CASE WHEN j.succeeded IS NULL THEN coalesce(w.failing_since, j.failed) ELSE j.failed END
                    ORDER BY w.id FOR UPDATE OF w
                )
                UPDATE webhook_endpoints AS w SET failing_since =
                    CASE WHEN c.succeeded IS NULL THEN coalesce(w.failing_since, c.failed) ELSE c.failed END
                FROM changed AS c WHERE w.id = ANY (ARRAY (SELECT id FROM changed)) AND w.id = c.id"#,
                &c.event_id,
                &c.endpoint_id,
                &c.lease,
                &c.verdict as &[&str],
                &c.due_at as &[Option<DateTime<Utc>>],
                &c.started_at,
                &c.duration_ms,
                &c.status as &[Option<i16>],
                &c.error as &[Option<&str>],
                &c.answer as &[&str],
                now
            );
            query.execute(&self.leases)
        });
        done.await?;
        Ok(())
    }

    async fn deliveries_of(&self, customer: &CustomerId, event: MessageId) -> Result<Vec<WebhookDelivery>, StoreError> {
        let rows = repeat(|| {
            let query = sqlx::query_as!(
                Row,
                r#"SELECT d.endpoint_id, d.status, d.due_at, d.created_at, d.updated_at, a.number AS "number?",
                    a.started_at AS "started_at?", a.duration_ms AS "duration_ms?", a.status AS "answer_status?",
                    a.error AS "error?", a.answer AS "answer?"
                FROM outbox AS e CROSS JOIN (
                    SELECT d.* FROM webhook_deliveries AS d
                    WHERE d.event_id = $1 AND (d.status <> 'pending'
                        OR 0 < (SELECT count(*) FROM webhook_endpoints AS w WHERE w.id = d.endpoint_id))
                    ORDER BY d.endpoint_id DESC LIMIT $3
                ) AS d
                LEFT JOIN webhook_attempts AS a ON a.event_id = $1 AND a.endpoint_id = d.endpoint_id
                    AND a.number > d.attempts - $4
                WHERE e.id = $1 AND e.customer_id = $2 AND e.sequence IS NOT NULL ORDER BY d.endpoint_id, a.number"#,
                event.0,
                customer.as_str(),
                i64::from(WebhookDelivery::MAX_SHOWN),
                WebhookDelivery::MAX_ATTEMPTS_SHOWN.cast_signed()
            );
            query.fetch_all(&self.reads)
        });
        let mut deliveries: Vec<WebhookDelivery> = Vec::new();
        for row in rows.await? {
            if deliveries.last().is_none_or(|last| last.endpoint_id.0 != row.endpoint_id) {
                deliveries.push(row.delivery(event)?);
            }
            if let (Some(attempt), Some(last)) = (row.attempt()?, deliveries.last_mut()) {
                last.attempts.push(attempt);
            }
        }
        Ok(deliveries)
    }

    /// One statement. The event is locked against being purged meanwhile.
    async fn redeliver(
        &self,
        customer: &CustomerId,
        event: MessageId,
        endpoint: Option<EndpointId>,
        now: DateTime<Utc>,
    ) -> Result<u64, StoreError> {
        let done = repeat(|| {
            let query = sqlx::query!(
                r#"WITH event AS (
                    SELECT id, kind, customer_id FROM outbox
                    WHERE id = $1 AND customer_id = $2 AND sequence IS NOT NULL FOR KEY SHARE
                ), receivers AS (
                    SELECT e.id AS event_id, w.id FROM event AS e JOIN webhook_endpoints AS w
                        ON w.customer_id = e.customer_id AND w.customer_id = $2
                    WHERE w.status = 'enabled'
                        AND (w.id = $3 OR ($3 IS NULL AND (w.events = '{}' OR e.kind = ANY (w.events))))
                ), started AS (
                    INSERT INTO webhook_deliveries AS old (event_id, endpoint_id, status, due_at, created_at, updated_at)
                    SELECT event_id, id, 'pending', $4, $4, $4 FROM receivers ORDER BY id
                    ON CONFLICT (event_id, endpoint_id) DO UPDATE SET status = excluded.status,
                        due_at = excluded.due_at, tries = 0, lease = old.lease + 1, is_leased = false,
                        updated_at = excluded.updated_at
                    WHERE old.due_at IS NULL OR (old.due_at > excluded.due_at AND NOT old.is_leased)
                    RETURNING old.endpoint_id
                )
                SELECT (SELECT count(*) FROM receivers) AS "receivers!", EXISTS (SELECT FROM started) AS "is_started!""#,
                event.0,
                customer.as_str(),
                endpoint.map(|id| id.0),
                now
            );
            query.fetch_one(&self.writes)
        });
        let done = done.await?;
        self.wake.wake_deliverers(done.is_started);
        Ok(done.receivers.unsigned_abs())
    }

    async fn delivery_backlog(&self, now: DateTime<Utc>) -> Result<DeliveryBacklog, StoreError> {
        let backlog = repeat(|| {
            let query = sqlx::query!(
                r#"WITH RECURSIVE waiting AS (
                    (SELECT endpoint_id AS id FROM webhook_deliveries
                    WHERE due_at IS NOT NULL AND endpoint_id > '00000000-0000-0000-0000-000000000000'
                    ORDER BY endpoint_id LIMIT 1)
                    UNION ALL
                    SELECT (SELECT d.endpoint_id FROM webhook_deliveries AS d
                        WHERE d.due_at IS NOT NULL AND d.endpoint_id > waiting.id ORDER BY d.endpoint_id LIMIT 1)
                    FROM waiting WHERE waiting.id IS NOT NULL
                ), receivers AS MATERIALIZED (
                    SELECT id FROM webhook_endpoints
                    WHERE id = ANY (ARRAY (SELECT id FROM waiting)) AND status = 'enabled'
                )
                SELECT (SELECT count(*) FROM (SELECT FROM receivers AS r CROSS JOIN LATERAL (
                        SELECT FROM webhook_deliveries AS d WHERE d.endpoint_id = r.id AND d.due_at IS NOT NULL LIMIT $2
                    ) AS d LIMIT $2) AS counted) AS "pending!",
                    min((SELECT d.due_at FROM webhook_deliveries AS d
                        WHERE d.endpoint_id = r.id AND d.due_at <= $1 ORDER BY d.due_at LIMIT 1)) AS oldest_due
                FROM receivers AS r"#,
                now,
                i64::from(DeliveryBacklog::MAX_PENDING)
            );
            query.fetch_one(&self.reads)
        });
        let backlog = backlog.await?;
        Ok(DeliveryBacklog { pending: backlog.pending.unsigned_abs(), oldest_due: backlog.oldest_due })
    }
}

impl PgStore {
    /// Starts deliveries of these events anew, or counts what would be. Their rows are locked against being purged meanwhile.
    pub(crate) async fn replay_to_webhooks(
        &self,
        ids: &[Uuid],
        delivered: bool,
        endpoint_id: Option<EndpointId>,
        replay: Replay,
    ) -> Result<u64, StoreError> {
        let endpoint_id = endpoint_id.map(|id| id.0);
        if replay.is_dry_run {
            let count = repeat(|| {
                let query = sqlx::query_scalar!(
                    r#"SELECT count(*) AS "count!" FROM outbox AS e
                    JOIN webhook_endpoints AS w ON w.customer_id = e.customer_id AND w.status = 'enabled'
                        AND (w.events = '{}' OR e.kind = ANY (w.events)) AND ($3::uuid IS NULL OR w.id = $3)
                    LEFT JOIN webhook_deliveries AS d ON d.event_id = e.id AND d.event_id = ANY ($1)
                        AND d.endpoint_id = w.id
                    WHERE e.id = ANY ($1) AND (d.status IS NULL OR d.status = 'failed' OR (d.status = 'delivered' AND $2))"#,
                    ids,
                    delivered,
                    endpoint_id
                );
                query.fetch_one(&self.reads)
            });
            return Ok(count.await?.unsigned_abs());
        }
        let done = repeat(|| {
            let query = sqlx::query!(
                "WITH events AS ( \
                    SELECT id, kind, customer_id FROM outbox WHERE id = ANY ($1) ORDER BY id FOR KEY SHARE \
                 ) \
                 INSERT INTO webhook_deliveries AS old (event_id, endpoint_id, status, due_at, created_at, updated_at) \
                 SELECT e.id, w.id, 'pending', $3, $3, $3 FROM events AS e JOIN webhook_endpoints AS w \
                    ON w.customer_id = e.customer_id AND w.status = 'enabled' \
                        AND (w.events = '{}' OR e.kind = ANY (w.events)) AND ($4::uuid IS NULL OR w.id = $4) \
                 ORDER BY e.id, w.id \
                 ON CONFLICT (event_id, endpoint_id) DO UPDATE SET status = excluded.status, due_at = excluded.due_at, \
                    tries = 0, lease = old.lease + 1, is_leased = false, updated_at = excluded.updated_at \
                 WHERE old.status = 'failed' OR (old.status = 'delivered' AND $2)",
                ids,
                delivered,
                replay.now,
                endpoint_id
            );
            query.execute(&self.writes)
        });
        let count = done.await?.rows_affected();
        self.wake.wake_deliverers(count > 0);
        Ok(count)
    }
}

/// A claimed delivery with its event and endpoint.
struct Claimed {
    attempts: i32,
    tries: i32,
    lease: i64,
    event_id: Uuid,
    kind: String,
    aggregate_id: Uuid,
    event_sequence: i64,
    customer_id: String,
    sent_at: DateTime<Utc>,
    body: String,
    endpoint_id: Uuid,
    url: String,
    events: Vec<String>,
    description: String,
    status: String,
    disabled_reason: Option<String>,
    secret: Vec<u8>,
    previous_secret: Option<Vec<u8>>,
    previous_until: Option<DateTime<Utc>>,
    failing_since: Option<DateTime<Utc>>,
    version: i64,
    sequence: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl TryFrom<Claimed> for DueDelivery {
    type Error = StoreError;

    fn try_from(row: Claimed) -> Result<Self, StoreError> {
        let event = events::Row {
            id: row.event_id,
            kind: row.kind,
            aggregate_id: row.aggregate_id,
            sequence: row.event_sequence,
            customer_id: row.customer_id.clone(),
            sent_at: row.sent_at,
            body: row.body,
        };
        let endpoint = endpoints::Row {
            id: row.endpoint_id,
            customer_id: row.customer_id,
            url: row.url,
            events: row.events,
            description: row.description,
            status: row.status,
            disabled_reason: row.disabled_reason,
            secret: row.secret,
            previous_secret: row.previous_secret,
            previous_until: row.previous_until,
            failing_since: row.failing_since,
            version: row.version,
            sequence: row.sequence,
            created_at: row.created_at,
            updated_at: row.updated_at,
        };
        Ok(Self {
            event: event.try_into()?,
            endpoint: endpoint.try_into()?,
            attempts: u32::try_from(row.attempts).map_err(|_| damaged("attempts"))?,
            tries: u32::try_from(row.tries).map_err(|_| damaged("tries"))?,
            lease: row.lease,
        })
    }
}

impl Claimed {
    /// The delivery, unless it makes no sense: that holds no other back, and comes again when its lease ends.
    fn sound(self) -> Option<DueDelivery> {
        let delivery = DueDelivery::try_from(self);
        delivery
            .inspect_err(|error| tracing::error!(error = error as &dyn std::error::Error, "a delivery is left out"))
            .ok()
    }
}

/// Conclusions as columns.
#[derive(Default)]
struct Conclusions<'c> {
    event_id: Vec<Uuid>,
    endpoint_id: Vec<Uuid>,
    lease: Vec<i64>,
    verdict: Vec<&'c str>,
    due_at: Vec<Option<DateTime<Utc>>>,
    started_at: Vec<DateTime<Utc>>,
    duration_ms: Vec<i32>,
    status: Vec<Option<i16>>,
    error: Vec<Option<&'c str>>,
    answer: Vec<&'c str>,
}

impl<'c> Conclusions<'c> {
    fn of(concluded: &'c [ConcludedDelivery]) -> Self {
        let mut columns = Self::default();
        for one in concluded {
            let (status, due_at) = match one.verdict {
                DeliveryVerdict::Delivered => (DeliveryStatus::Delivered, None),
                DeliveryVerdict::RetryAt(at) => (DeliveryStatus::Pending, Some(at)),
                DeliveryVerdict::Failed => (DeliveryStatus::Failed, None),
            };
            columns.event_id.push(one.event_id.0);
            columns.endpoint_id.push(one.endpoint_id.0);
            columns.lease.push(one.lease);
            columns.verdict.push(status.as_str());
            columns.due_at.push(due_at);
            columns.started_at.push(one.attempt.started_at);
            columns.duration_ms.push(i32::try_from(one.attempt.duration_ms).unwrap_or(i32::MAX));
            columns.status.push(one.attempt.status.map(u16::cast_signed));
            columns.error.push(one.attempt.error.as_deref());
            columns.answer.push(&one.attempt.answer);
        }
        columns
    }
}

/// A delivery with one of its attempts, or without any.
struct Row {
    endpoint_id: Uuid,
    status: String,
    due_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    number: Option<i32>,
    started_at: Option<DateTime<Utc>>,
    duration_ms: Option<i32>,
    answer_status: Option<i16>,
    error: Option<String>,
    answer: Option<String>,
}

impl Row {
    fn delivery(&self, event_id: MessageId) -> Result<WebhookDelivery, StoreError> {
        Ok(WebhookDelivery {
            event_id,
            endpoint_id: EndpointId(self.endpoint_id),
            status: DeliveryStatus::from_name(&self.status).ok_or_else(|| damaged("status"))?,
            next_attempt_at: self.due_at,
            attempts: Vec::new(),
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }

    fn attempt(self) -> Result<Option<DeliveryAttempt>, StoreError> {
        let (Some(number), Some(started_at), Some(duration_ms), Some(answer)) =
            (self.number, self.started_at, self.duration_ms, self.answer)
        else {
            return Ok(None);
        };
        Ok(Some(DeliveryAttempt {
            number: u32::try_from(number).map_err(|_| damaged("number"))?,
            started_at,
            duration_ms: u32::try_from(duration_ms).map_err(|_| damaged("duration_ms"))?,
            status: self.answer_status.map(i16::cast_unsigned),
            error: self.error,
            answer,
        }))
    }
}
