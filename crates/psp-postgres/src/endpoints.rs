use async_trait::async_trait;
use backon::Retryable;
use chrono::{DateTime, Utc};
use psp_domain::ports::{EndpointStore, EndpointVerdict, StoreError};
use psp_domain::{
    CustomerId, EndpointId, EndpointStatus, Event, EventKind, IdempotencyRecord, Page, PageRequest, SealedSecret,
    WebhookEndpoint,
};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::classify::{Failure, attempts, classify, damaged, parse, repeat, unavailable};
use crate::columns::Events;
use crate::connection::PgStore;
use crate::idempotency;

/// An endpoint as columns.
pub(crate) struct Row {
    pub(crate) id: Uuid,
    pub(crate) customer_id: String,
    pub(crate) url: String,
    pub(crate) events: Vec<String>,
    pub(crate) description: String,
    pub(crate) status: String,
    pub(crate) disabled_reason: Option<String>,
    pub(crate) secret: Vec<u8>,
    pub(crate) previous_secret: Option<Vec<u8>>,
    pub(crate) previous_until: Option<DateTime<Utc>>,
    pub(crate) failing_since: Option<DateTime<Utc>>,
    pub(crate) version: i64,
    pub(crate) sequence: i64,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) updated_at: DateTime<Utc>,
}

impl TryFrom<Row> for WebhookEndpoint {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let kinds = row.events.iter().map(|name| EventKind::from_name(name).ok_or_else(|| damaged("events")));
        Ok(Self {
            id: EndpointId(row.id),
            customer_id: parse(&row.customer_id, "customer_id")?,
            events: kinds.collect::<Result<_, _>>()?,
            url: row.url,
            description: row.description,
            status: EndpointStatus::from_name(&row.status).ok_or_else(|| damaged("status"))?,
            disabled_reason: row.disabled_reason,
            secret: SealedSecret(row.secret),
            previous_secret: row.previous_secret.map(SealedSecret).zip(row.previous_until),
            failing_since: row.failing_since,
            version: row.version,
            sequence: row.sequence,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

/// The most deliveries that are deleted with one write.
const FORGET_MAX: i64 = 1_000;

/// Selects whole rows.
macro_rules! select {
    ($rest:tt, $($argument:expr),*) => {
        sqlx::query_as!(
            Row,
            "SELECT id, customer_id, url, events, description, status, disabled_reason, secret, previous_secret, \
             previous_until, failing_since, version, sequence, created_at, updated_at FROM webhook_endpoints " + $rest,
            $($argument),*
        )
    };
}

#[async_trait]
impl EndpointStore for PgStore {
    async fn insert_endpoint(
        &self,
        endpoint: &WebhookEndpoint,
        record: Option<&IdempotencyRecord>,
    ) -> Result<EndpointVerdict, StoreError> {
        repeat(|| self.insert(endpoint, record)).await
    }

    /// One statement, after that of the key. An answer that was lost leaves open whether it was written: reading the endpoint tells.
    async fn update_endpoint(
        &self,
        endpoint: &WebhookEndpoint,
        expected_version: i64,
        events: &[Event],
        record: Option<&IdempotencyRecord>,
    ) -> Result<EndpointVerdict, StoreError> {
        let update = || self.update_with_key(endpoint, expected_version, events, record);
        let updated = update.retry(attempts()).when(|error| classify(error) == Failure::Passing).await;
        let updated = updated.map_err(|error| match classify(&error) {
            Failure::Unknown => StoreError::OutcomeUnknown(Box::new(error)),
            _ => unavailable(error),
        })?;
        if updated != EndpointVerdict::Written {
            return Ok(updated);
        }
        self.wake.wake(events.iter().filter_map(|event| event.kind.queue()));
        // What waited for one that is enabled now is due.
        self.wake.wake_deliverers(!events.is_empty() || endpoint.status == EndpointStatus::Enabled);
        Ok(EndpointVerdict::Written)
    }

    async fn delete_endpoint(&self, customer: &CustomerId, id: EndpointId) -> Result<bool, StoreError> {
        loop {
            if let Some(is_deleted) = repeat(|| self.delete(customer, id)).await? {
                return Ok(is_deleted);
            }
        }
    }

    async fn find_endpoint(
        &self,
        customer: &CustomerId,
        id: EndpointId,
    ) -> Result<Option<WebhookEndpoint>, StoreError> {
        let row = repeat(|| {
            select!("WHERE id = $1 AND customer_id = $2", id.0, customer.as_str()).fetch_optional(&self.reads)
        });
        row.await?.map(WebhookEndpoint::try_from).transpose()
    }

    async fn list_endpoints(
        &self,
        customer: &CustomerId,
        page: PageRequest,
    ) -> Result<Page<WebhookEndpoint>, StoreError> {
        let rows = repeat(|| {
            let query = select!(
                "WHERE customer_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3 OFFSET $4",
                customer.as_str(),
                page.after().unwrap_or(Uuid::max()),
                i64::from(page.limit()) + 1,
                i64::from(page.offset())
            );
            query.fetch_all(&self.reads)
        });
        let endpoints = rows.await?.into_iter().map(WebhookEndpoint::try_from).collect::<Result<_, _>>()?;
        Ok(Page::from_rows(endpoints, page, |endpoint: &WebhookEndpoint| endpoint.id.0))
    }

    async fn all_endpoints(&self, after: Option<EndpointId>, limit: u32) -> Result<Vec<WebhookEndpoint>, StoreError> {
        let rows = repeat(|| {
            let query =
                select!("WHERE id > $1 ORDER BY id LIMIT $2", after.map_or(Uuid::nil(), |id| id.0), i64::from(limit));
            query.fetch_all(&self.reads)
        });
        rows.await?.into_iter().map(WebhookEndpoint::try_from).collect()
    }
}

impl PgStore {
    /// Those of one customer are inserted one after the other, so that each counts the ones before it.
    async fn insert(
        &self,
        e: &WebhookEndpoint,
        record: Option<&IdempotencyRecord>,
    ) -> Result<EndpointVerdict, sqlx::Error> {
        let mut connection = self.writes.acquire().await?;
        let mut database = connection.begin().await?;
        let turn = sqlx::query!(
            "SELECT pg_advisory_xact_lock(hashtextextended($1, hashtext('webhook_endpoints')))",
            e.customer_id.as_str()
        );
        turn.execute(&mut *database).await?;
        let is_key_taken = match record {
            Some(record) => !idempotency::take(&mut database, record, self.now()).await?,
            None => false,
        };
        if is_key_taken {
            let is_written = known(&mut database, e).await? == Some(EndpointVerdict::Written);
            return Ok(if is_written { EndpointVerdict::Written } else { EndpointVerdict::KeyTaken });
        }
        let kinds: Vec<_> = e.events.iter().map(|kind| kind.as_str()).collect();
        let (previous_secret, previous_until) = previous(e);
        let inserted = sqlx::query!(
            "INSERT INTO webhook_endpoints (id, customer_id, url, events, description, status, disabled_reason, secret, \
                previous_secret, previous_until, failing_since, version, sequence, created_at, updated_at) \
             SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15 \
             WHERE (SELECT count(*) FROM webhook_endpoints WHERE customer_id = $2) < $16 ON CONFLICT DO NOTHING",
            e.id.0,
            e.customer_id.as_str(),
            e.url,
            &kinds as &[&str],
            e.description,
            e.status.as_str(),
            e.disabled_reason.as_deref(),
            e.secret.0,
            previous_secret,
            previous_until,
            e.failing_since,
            e.version,
            e.sequence,
            e.created_at,
            e.updated_at,
            i64::from(WebhookEndpoint::MAX_PER_CUSTOMER)
        );
        if inserted.execute(&mut *database).await?.rows_affected() == 1 {
            database.commit().await?;
            return Ok(EndpointVerdict::Written);
        }
        Ok(known(&mut database, e).await?.unwrap_or(EndpointVerdict::TooMany))
    }

    /// Deletes an endpoint with what waits for it; or, where that is more than goes with one write, a part of it, and disables the
    /// endpoint, so that nothing comes to wait for it meanwhile.
    async fn delete(&self, customer: &CustomerId, id: EndpointId) -> Result<Option<bool>, sqlx::Error> {
        let mut connection = self.writes.acquire().await?;
        let mut database = connection.begin().await?;
        let forgotten = sqlx::query!(
            "DELETE FROM webhook_deliveries WHERE endpoint_id = $1 AND event_id = ANY (ARRAY ( \
                SELECT d.event_id FROM webhook_deliveries AS d WHERE d.endpoint_id = $1 AND d.due_at IS NOT NULL \
                AND EXISTS (SELECT FROM webhook_endpoints WHERE id = $1 AND customer_id = $2) \
                ORDER BY d.due_at LIMIT $3))",
            id.0,
            customer.as_str(),
            FORGET_MAX
        );
        let forgotten = forgotten.execute(&mut *database).await?.rows_affected();
        let is_all = forgotten < FORGET_MAX.unsigned_abs();
        let changed = if is_all {
            let deleted = sqlx::query!(
                "DELETE FROM webhook_endpoints WHERE id = $1 AND customer_id = $2",
                id.0,
                customer.as_str()
            );
            deleted.execute(&mut *database).await?.rows_affected()
        } else {
            let silenced = sqlx::query!(
                "UPDATE webhook_endpoints SET status = 'disabled', version = version + 1 \
                 WHERE id = $1 AND customer_id = $2 AND status = 'enabled'",
                id.0,
                customer.as_str()
            );
            silenced.execute(&mut *database).await?.rows_affected()
        };
        database.commit().await?;
        Ok(is_all.then_some(changed == 1))
    }

    async fn update_with_key(
        &self,
        endpoint: &WebhookEndpoint,
        expected_version: i64,
        events: &[Event],
        record: Option<&IdempotencyRecord>,
    ) -> Result<EndpointVerdict, sqlx::Error> {
        let mut connection = self.writes.acquire().await?;
        let verdict = |is_updated| if is_updated { EndpointVerdict::Written } else { EndpointVerdict::Stale };
        let Some(record) = record else {
            return update(&mut connection, endpoint, expected_version, events).await.map(verdict);
        };
        let mut database = connection.begin().await?;
        if !idempotency::take(&mut database, record, self.now()).await? {
            return Ok(EndpointVerdict::KeyTaken);
        }
        let is_updated = update(&mut database, endpoint, expected_version, events).await?;
        if is_updated {
            database.commit().await?;
        }
        Ok(verdict(is_updated))
    }
}

/// What a new endpoint comes to whose id is there: a secret is sealed but once, so where it is there, an answer was lost.
async fn known(connection: &mut PgConnection, e: &WebhookEndpoint) -> Result<Option<EndpointVerdict>, sqlx::Error> {
    let there = sqlx::query_scalar!(
        r#"SELECT secret = $2 AS "written!" FROM webhook_endpoints WHERE id = $1"#,
        e.id.0,
        e.secret.0
    );
    let is_written = there.fetch_optional(connection).await?.map(|is_same| is_same && e.version == 1);
    Ok(is_written.map(|is_written| if is_written { EndpointVerdict::Written } else { EndpointVerdict::Stale }))
}

/// `false` when the row has another version or is gone. The statement sees endpoints as they were before it, so that the one
/// that it changes is asked as it is now whether it receives the events.
async fn update(
    connection: &mut PgConnection,
    e: &WebhookEndpoint,
    expected_version: i64,
    events: &[Event],
) -> Result<bool, sqlx::Error> {
    let kinds: Vec<_> = e.events.iter().map(|kind| kind.as_str()).collect();
    let (previous_secret, previous_until) = previous(e);
    let mut new = Events::default();
    for event in events {
        new.push(0, event);
    }
    let updated = sqlx::query_scalar!(
        r#"WITH updated AS (
                UPDATE webhook_endpoints SET url = $4, events = $5, description = $6, status = $7, disabled_reason = $8,
                    secret = $9, previous_secret = $10, previous_until = $11,
                    failing_since = CASE WHEN $7 = 'enabled' AND (status = 'disabled' OR url <> $4) THEN NULL
                        ELSE failing_since END, version = $12,
                    sequence = $13, updated_at = $14
                WHERE id = $1 AND customer_id = $2 AND version = $3
                RETURNING id, customer_id, status, events
            ), receivers AS (
                SELECT id, customer_id, status, events FROM webhook_endpoints WHERE customer_id = $2 AND id <> $1
                UNION ALL SELECT id, customer_id, status, events FROM updated
            ), new_events AS (
                SELECT e.* FROM updated, UNNEST($15::uuid[], $16::text[], $17::uuid[], $18::bigint[], $19::text[],
                        $20::text[], $21::timestamptz[], $22::text[], $23::timestamptz[])
                    AS e (id, kind, aggregate_id, sequence, customer_id, body, sent_at, queue, visible_at)
            ), inserted AS (
                INSERT INTO outbox (id, kind, aggregate_id, sequence, customer_id, body, sent_at, queue, visible_at)
                SELECT id, kind, aggregate_id, sequence, customer_id, body, sent_at, queue, visible_at FROM new_events
            ), deliveries AS (
                INSERT INTO webhook_deliveries (event_id, endpoint_id, status, due_at, created_at, updated_at)
                SELECT e.id, w.id, 'pending', e.sent_at, e.sent_at, e.sent_at
                FROM new_events AS e JOIN receivers AS w ON w.customer_id = e.customer_id
                WHERE w.status = 'enabled' AND (w.events = '{}' OR e.kind = ANY (w.events))
            )
            SELECT EXISTS (SELECT FROM updated) AS "updated!""#,
        e.id.0,
        e.customer_id.as_str(),
        expected_version,
        e.url,
        &kinds as &[&str],
        e.description,
        e.status.as_str(),
        e.disabled_reason.as_deref(),
        e.secret.0,
        previous_secret,
        previous_until,
        e.version,
        e.sequence,
        e.updated_at,
        &new.id,
        &new.kind as &[&str],
        &new.aggregate_id,
        &new.sequence,
        &new.customer_id as &[&str],
        &new.body as &[&str],
        &new.sent_at,
        &new.queue as &[Option<&str>],
        &new.visible_at as &[Option<DateTime<Utc>>]
    );
    updated.fetch_one(connection).await
}

/// The columns of the previous secret.
fn previous(endpoint: &WebhookEndpoint) -> (Option<&[u8]>, Option<DateTime<Utc>>) {
    let previous = endpoint.previous_secret.as_ref();
    (previous.map(|(secret, _)| &*secret.0), previous.map(|(_, until)| *until))
}
