//! Gateways, routes and what processes say of their breakers: few rows, read whole.

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use psp_domain::ports::{GatewayStore, StoreError};
use psp_domain::{
    BreakerState, Country, GatewayHealth, GatewayName, GatewayProtocol, GatewayRecord, PaymentMethod, Route,
    RoutingTable, TransactionKind,
};
use sqlx::sqlite::SqliteRow;
use sqlx::types::Json;
use sqlx::{Row, SqliteConnection};

use crate::bulk::{Bulk, Values};
use crate::connection::{Durability, SqliteStore, commit, damaged, millis, parse, time, unavailable};

const PUT_ROUTE: &str = "INSERT INTO gateway_routes (gateway, country, kind, method, currency, priority, retry_declines) \
                         VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (gateway, country, kind, method, currency) \
                         DO UPDATE SET priority = excluded.priority, retry_declines = excluded.retry_declines";

const REPORT: Bulk = Bulk::new(
    "INSERT INTO gateway_health (gateway, instance, breaker, failures, reported_at) {values} \
     ON CONFLICT (gateway, instance) DO UPDATE SET breaker = excluded.breaker, failures = excluded.failures, \
     reported_at = excluded.reported_at",
    5,
);

/// What a process said is kept for so long after others have said something.
const KEPT: TimeDelta = TimeDelta::days(1);

#[async_trait]
impl GatewayStore for SqliteStore {
    async fn routing(&self) -> Result<RoutingTable, StoreError> {
        let sql = "SELECT name, protocol, url, enabled, created_at, updated_at FROM gateways ORDER BY name";
        let gateways = sqlx::query(sql).fetch_all(&self.readers).await.map_err(unavailable)?;
        let sql = "SELECT gateway, country, kind, method, currency, priority, retry_declines FROM gateway_routes \
                   ORDER BY gateway, country, kind, method, currency";
        let routes = sqlx::query(sql).fetch_all(&self.readers).await.map_err(unavailable)?;
        let gateways = gateways.iter().map(decode_gateway).collect::<Result<_, _>>()?;
        Ok(RoutingTable::new(gateways, routes.iter().map(decode_route).collect::<Result<_, _>>()?))
    }

    async fn put_gateway(&self, gateway: &GatewayRecord) -> Result<bool, StoreError> {
        let mut writer = self.writer().await?;
        let mut database = writer.begin(Durability::Full).await?;
        let is_new = put_gateway(&mut database, gateway).await.map_err(unavailable)?;
        commit(database).await?;
        Ok(is_new)
    }

    async fn enable(&self, name: &GatewayName, enabled: bool, now: DateTime<Utc>) -> Result<bool, StoreError> {
        let mut writer = self.writer().await?;
        let mut database = writer.begin(Durability::Full).await?;
        let sql = "UPDATE gateways SET enabled = ?, updated_at = ? WHERE name = ?";
        let query = sqlx::query(sql).bind(enabled).bind(millis(now)).bind(name.as_str());
        let changed = query.execute(&mut *database).await.map_err(unavailable)?.rows_affected();
        commit(database).await?;
        Ok(changed == 1)
    }

    async fn put_route(&self, route: &Route) -> Result<(), StoreError> {
        let mut writer = self.writer().await?;
        let mut database = writer.begin(Durability::Full).await?;
        let [country, kind, method, currency] = criteria(route);
        let query = sqlx::query(PUT_ROUTE).bind(route.gateway.as_str()).bind(country).bind(kind).bind(method);
        let query = query.bind(currency).bind(route.priority).bind(Json(&route.retry_declines));
        query.execute(&mut *database).await.map_err(unavailable)?;
        commit(database).await
    }

    async fn remove_route(&self, route: &Route) -> Result<bool, StoreError> {
        let mut writer = self.writer().await?;
        let mut database = writer.begin(Durability::Full).await?;
        let sql = "DELETE FROM gateway_routes \
                   WHERE gateway = ? AND country = ? AND kind = ? AND method = ? AND currency = ?";
        let [country, kind, method, currency] = criteria(route);
        let query = sqlx::query(sql).bind(route.gateway.as_str()).bind(country).bind(kind).bind(method).bind(currency);
        let removed = query.execute(&mut *database).await.map_err(unavailable)?.rows_affected();
        commit(database).await?;
        Ok(removed == 1)
    }

    async fn report(&self, health: &[GatewayHealth]) -> Result<(), StoreError> {
        let Some(latest) = health.iter().map(|h| h.reported_at).max() else { return Ok(()) };
        let bind = |values: &mut Values, h: &GatewayHealth| {
            values.push(h.gateway.as_str()).push(&*h.instance).push(h.breaker.as_str());
            values.push(i64::from(h.failures)).push(millis(h.reported_at));
        };
        let mut writer = self.writer().await?;
        let mut database = writer.begin(Durability::Lease).await?;
        let sql = "DELETE FROM gateway_health WHERE reported_at < ?";
        let forget = sqlx::query(sql).bind(millis(latest - KEPT));
        forget.execute(&mut *database).await.map_err(unavailable)?;
        REPORT.execute(&mut database, health.iter(), bind).await.map_err(unavailable)?;
        commit(database).await
    }

    async fn health(&self, since: DateTime<Utc>) -> Result<Vec<GatewayHealth>, StoreError> {
        let sql = "SELECT gateway, instance, breaker, failures, reported_at FROM gateway_health \
                   WHERE reported_at >= ? ORDER BY gateway, instance";
        let rows = sqlx::query(sql).bind(millis(since)).fetch_all(&self.readers).await.map_err(unavailable)?;
        rows.iter().map(decode_health).collect()
    }
}

async fn put_gateway(connection: &mut SqliteConnection, gateway: &GatewayRecord) -> Result<bool, sqlx::Error> {
    let sql = "INSERT INTO gateways (name, protocol, url, enabled, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?) \
               ON CONFLICT (name) DO NOTHING";
    let query = sqlx::query(sql).bind(gateway.name.as_str()).bind(gateway.protocol.as_str()).bind(&*gateway.url);
    let query = query.bind(gateway.enabled).bind(millis(gateway.created_at)).bind(millis(gateway.updated_at));
    if query.execute(&mut *connection).await?.rows_affected() == 1 {
        return Ok(true);
    }
    let sql = "UPDATE gateways SET protocol = ?, url = ?, updated_at = ? WHERE name = ?";
    let query = sqlx::query(sql).bind(gateway.protocol.as_str()).bind(&*gateway.url);
    query.bind(millis(gateway.updated_at)).bind(gateway.name.as_str()).execute(connection).await?;
    Ok(false)
}

/// Country, kind, method and currency as they are stored: empty where every one fits.
fn criteria(route: &Route) -> [&'static str; 4] {
    [
        route.country.map_or("", Country::as_str),
        route.kind.map_or("", TransactionKind::as_str),
        route.method.map_or("", PaymentMethod::as_str),
        route.currency.map_or("", |currency| currency.code()),
    ]
}

fn decode_gateway(row: &SqliteRow) -> Result<GatewayRecord, StoreError> {
    let text = |i: usize| row.try_get::<&str, _>(i).map_err(unavailable);
    Ok(GatewayRecord {
        name: parse(text(0)?, "name")?,
        protocol: GatewayProtocol::from_name(text(1)?).ok_or_else(|| damaged("protocol"))?,
        url: text(2)?.to_owned(),
        enabled: row.try_get(3).map_err(unavailable)?,
        created_at: time(row.try_get(4).map_err(unavailable)?)?,
        updated_at: time(row.try_get(5).map_err(unavailable)?)?,
    })
}

fn decode_route(row: &SqliteRow) -> Result<Route, StoreError> {
    let text = |i: usize| row.try_get::<&str, _>(i).map_err(unavailable);
    let criterion = |i: usize| text(i).map(|text| Some(text).filter(|text| !text.is_empty()));
    let kind = |name| TransactionKind::from_name(name).ok_or_else(|| damaged("kind"));
    let method = |name| PaymentMethod::from_name(name).ok_or_else(|| damaged("method"));
    let Json(retry_declines) = row.try_get(6).map_err(unavailable)?;
    Ok(Route {
        gateway: parse(text(0)?, "gateway")?,
        priority: row.try_get(5).map_err(unavailable)?,
        country: criterion(1)?.map(|country| parse(country, "country")).transpose()?,
        kind: criterion(2)?.map(kind).transpose()?,
        method: criterion(3)?.map(method).transpose()?,
        currency: criterion(4)?.map(|currency| parse(currency, "currency")).transpose()?,
        retry_declines,
    })
}

fn decode_health(row: &SqliteRow) -> Result<GatewayHealth, StoreError> {
    let text = |i: usize| row.try_get::<&str, _>(i).map_err(unavailable);
    Ok(GatewayHealth {
        gateway: parse(text(0)?, "gateway")?,
        instance: text(1)?.to_owned(),
        breaker: BreakerState::from_name(text(2)?).ok_or_else(|| damaged("breaker"))?,
        failures: row.try_get(3).map_err(unavailable)?,
        reported_at: time(row.try_get(4).map_err(unavailable)?)?,
    })
}
