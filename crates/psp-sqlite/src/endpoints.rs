use async_trait::async_trait;
use psp_domain::ports::{EndpointStore, EndpointVerdict, StoreError};
use psp_domain::{
    CustomerId, EndpointId, EndpointStatus, Event, EventKind, IdempotencyRecord, Page, PageRequest, SealedSecret,
    WebhookEndpoint,
};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use crate::connection::{Durability, SqliteStore, commit, damaged, millis, parse, time, unavailable};
use crate::deliveries::FORGET;
use crate::{idempotency, queue};

/// Selects what [`decode`] takes.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, customer_id, url, events, description, status, disabled_reason, secret, previous_secret, \
             previous_until, failing_since, version, sequence, created_at, updated_at FROM webhook_endpoints WHERE ",
            $rest
        )
    };
}

/// No more than the last parameter of one customer.
pub(crate) const INSERT: &str = "INSERT INTO webhook_endpoints (id, customer_id, url, events, description, status, \
     disabled_reason, secret, previous_secret, previous_until, failing_since, version, sequence, created_at, updated_at) \
     SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15 \
     WHERE (SELECT count(*) FROM webhook_endpoints WHERE customer_id = ?2) < ?16 ON CONFLICT DO NOTHING";

/// The parameters of [`INSERT`], but for the last one.
pub(crate) const UPDATE: &str = "UPDATE webhook_endpoints SET url = ?3, events = ?4, description = ?5, status = ?6, \
     disabled_reason = ?7, secret = ?8, previous_secret = ?9, previous_until = ?10, \
     failing_since = CASE WHEN ?6 = 'enabled' AND (status = 'disabled' OR url <> ?3) THEN NULL ELSE failing_since END, \
     version = ?12, sequence = ?13, updated_at = ?15 \
     WHERE id = ?1 AND customer_id = ?2 AND version = ?16";

pub(crate) const DELETE: &str = "DELETE FROM webhook_endpoints WHERE id = ? AND customer_id = ?";

/// So that nothing comes to wait for it while what waits is deleted.
pub(crate) const SILENCE: &str = "UPDATE webhook_endpoints SET status = 'disabled', version = version + 1 \
     WHERE id = ? AND customer_id = ? AND status = 'enabled'";

/// The most deliveries that are deleted with one write.
const FORGET_MAX: u32 = 1_000;

pub(crate) const EXISTS: &str = "SELECT EXISTS (SELECT 1 FROM webhook_endpoints WHERE id = ?)";

pub(crate) const FIND: &str = select!("id = ? AND customer_id = ?");

pub(crate) const LIST: &str = select!("customer_id = ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3 OFFSET ?4");

pub(crate) const ALL: &str = select!("id > ? ORDER BY id LIMIT ?");

pub(crate) const OF_IDS: &str = select!("id IN (SELECT unhex(value) FROM json_each(?))");

#[async_trait]
impl EndpointStore for SqliteStore {
    async fn insert_endpoint(
        &self,
        endpoint: &WebhookEndpoint,
        record: Option<&IdempotencyRecord>,
    ) -> Result<EndpointVerdict, StoreError> {
        let mut writer = self.writer().await?;
        let mut database = writer.begin(Durability::Full).await?;
        if !idempotency::take(&mut database, record, millis(self.now())).await.map_err(unavailable)? {
            database.rollback().await.map_err(unavailable)?;
            return Ok(EndpointVerdict::KeyTaken);
        }
        let query = bind(sqlx::query(INSERT), endpoint).bind(WebhookEndpoint::MAX_PER_CUSTOMER);
        let written = query.execute(&mut *database).await.map_err(unavailable)?.rows_affected();
        if written == 1 {
            commit(database).await?;
            return Ok(EndpointVerdict::Written);
        }
        let query = sqlx::query_scalar(EXISTS).bind(endpoint.id.0);
        let is_taken: bool = query.fetch_one(&mut *database).await.map_err(unavailable)?;
        database.rollback().await.map_err(unavailable)?;
        Ok(if is_taken { EndpointVerdict::Stale } else { EndpointVerdict::TooMany })
    }

    async fn update_endpoint(
        &self,
        endpoint: &WebhookEndpoint,
        expected_version: i64,
        events: &[Event],
        record: Option<&IdempotencyRecord>,
    ) -> Result<EndpointVerdict, StoreError> {
        let mut writer = self.writer().await?;
        let mut database = writer.begin(Durability::Full).await?;
        if !idempotency::take(&mut database, record, millis(self.now())).await.map_err(unavailable)? {
            database.rollback().await.map_err(unavailable)?;
            return Ok(EndpointVerdict::KeyTaken);
        }
        let query = bind(sqlx::query(UPDATE), endpoint).bind(expected_version);
        if query.execute(&mut *database).await.map_err(unavailable)?.rows_affected() == 0 {
            database.rollback().await.map_err(unavailable)?;
            return Ok(EndpointVerdict::Stale);
        }
        let events: Vec<_> = events.iter().collect();
        let deliveries = queue::insert_events(&mut database, &events).await.map_err(unavailable)?;
        commit(database).await?;
        drop(writer);
        self.wake(events.iter().filter_map(|event| event.kind.queue()));
        // What waited for one that is enabled now is due.
        self.wake_deliverers(deliveries + u64::from(endpoint.status == EndpointStatus::Enabled));
        Ok(EndpointVerdict::Written)
    }

    async fn delete_endpoint(&self, customer: &CustomerId, id: EndpointId) -> Result<bool, StoreError> {
        loop {
            let mut writer = self.writer().await?;
            let mut database = writer.begin(Durability::Full).await?;
            let query = sqlx::query(FORGET).bind(id.0).bind(customer.as_str()).bind(FORGET_MAX);
            let forgotten = query.execute(&mut *database).await.map_err(unavailable)?.rows_affected();
            let is_all = forgotten < u64::from(FORGET_MAX);
            let query = sqlx::query(if is_all { DELETE } else { SILENCE }).bind(id.0).bind(customer.as_str());
            let changed = query.execute(&mut *database).await.map_err(unavailable)?.rows_affected();
            commit(database).await?;
            if is_all {
                return Ok(changed == 1);
            }
        }
    }

    async fn find_endpoint(
        &self,
        customer: &CustomerId,
        id: EndpointId,
    ) -> Result<Option<WebhookEndpoint>, StoreError> {
        let query = sqlx::query(FIND).bind(id.0).bind(customer.as_str());
        let row = query.fetch_optional(&self.readers).await.map_err(unavailable)?;
        row.as_ref().map(decode).transpose()
    }

    async fn list_endpoints(
        &self,
        customer: &CustomerId,
        page: PageRequest,
    ) -> Result<Page<WebhookEndpoint>, StoreError> {
        let query = sqlx::query(LIST)
            .bind(customer.as_str())
            .bind(page.after().unwrap_or(Uuid::max()))
            .bind(i64::from(page.limit()) + 1)
            .bind(i64::from(page.offset()));
        let rows = query.fetch_all(&self.readers).await.map_err(unavailable)?;
        let endpoints = rows.iter().map(decode).collect::<Result<_, _>>()?;
        Ok(Page::from_rows(endpoints, page, |endpoint| endpoint.id.0))
    }

    async fn all_endpoints(&self, after: Option<EndpointId>, limit: u32) -> Result<Vec<WebhookEndpoint>, StoreError> {
        let query = sqlx::query(ALL).bind(after.map_or(Uuid::nil(), |id| id.0)).bind(limit);
        let rows = query.fetch_all(&self.readers).await.map_err(unavailable)?;
        rows.iter().map(decode).collect()
    }
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

/// Binds every column.
fn bind<'q>(query: Query<'q>, e: &'q WebhookEndpoint) -> Query<'q> {
    let previous = e.previous_secret.as_ref();
    query
        .bind(e.id.0)
        .bind(e.customer_id.as_str())
        .bind(&*e.url)
        .bind(stored_kinds(&e.events))
        .bind(&*e.description)
        .bind(e.status.as_str())
        .bind(e.disabled_reason.as_deref())
        .bind(&*e.secret.0)
        .bind(previous.map(|(secret, _)| &*secret.0))
        .bind(previous.map(|(_, until)| millis(*until)))
        .bind(e.failing_since.map(millis))
        .bind(e.version)
        .bind(e.sequence)
        .bind(millis(e.created_at))
        .bind(millis(e.updated_at))
}

/// Each kind between commas, so that a statement finds one in the text; nothing for all.
fn stored_kinds(kinds: &[EventKind]) -> String {
    let named = kinds.iter().flat_map(|kind| [",", kind.as_str()]);
    named.chain((!kinds.is_empty()).then_some(",")).collect()
}

pub(crate) fn decode(row: &SqliteRow) -> Result<WebhookEndpoint, StoreError> {
    let text = |i: usize| row.try_get::<&str, _>(i).map_err(unavailable);
    let number = |i: usize| row.try_get::<i64, _>(i).map_err(unavailable);
    let moment = |i: usize| row.try_get::<Option<i64>, _>(i).map_err(unavailable)?.map(time).transpose();
    let kinds = text(3)?.split(',').filter(|name| !name.is_empty());
    let kinds = kinds.map(|name| EventKind::from_name(name).ok_or_else(|| damaged("events")));
    let previous: Option<Vec<u8>> = row.try_get(8).map_err(unavailable)?;
    Ok(WebhookEndpoint {
        id: EndpointId(row.try_get(0).map_err(unavailable)?),
        customer_id: parse(text(1)?, "customer_id")?,
        url: text(2)?.to_owned(),
        events: kinds.collect::<Result<_, _>>()?,
        description: text(4)?.to_owned(),
        status: EndpointStatus::from_name(text(5)?).ok_or_else(|| damaged("status"))?,
        disabled_reason: row.try_get(6).map_err(unavailable)?,
        secret: SealedSecret(row.try_get(7).map_err(unavailable)?),
        previous_secret: previous.map(SealedSecret).zip(moment(9)?),
        failing_since: moment(10)?,
        version: number(11)?,
        sequence: number(12)?,
        created_at: time(number(13)?)?,
        updated_at: time(number(14)?)?,
    })
}
