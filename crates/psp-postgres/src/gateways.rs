//! Gateways, routes and what processes say of their breakers: few rows, read whole.

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use psp_domain::ports::{GatewayStore, StoreError};
use psp_domain::{
    BreakerState, Country, GatewayHealth, GatewayName, GatewayProtocol, GatewayRecord, PaymentMethod, Route,
    RoutingTable, TransactionKind,
};

use crate::classify::{damaged, parse, repeat};
use crate::connection::PgStore;

/// What a process said is kept for so long after others have said something.
const KEPT: TimeDelta = TimeDelta::days(1);

#[async_trait]
impl GatewayStore for PgStore {
    async fn routing(&self) -> Result<RoutingTable, StoreError> {
        let gateways = repeat(|| {
            let query = sqlx::query_as!(
                GatewayRow,
                "SELECT name, protocol, url, enabled, created_at, updated_at FROM gateways ORDER BY name"
            );
            query.fetch_all(&self.reads)
        });
        let gateways = gateways.await?.into_iter().map(GatewayRecord::try_from).collect::<Result<_, _>>()?;
        let routes = repeat(|| {
            let query = sqlx::query_as!(
                RouteRow,
                "SELECT gateway, country, kind, method, currency, priority, retry_declines FROM gateway_routes \
                   ORDER BY gateway, country, kind, method, currency"
            );
            query.fetch_all(&self.reads)
        });
        let routes = routes.await?.into_iter().map(Route::try_from).collect::<Result<_, _>>()?;
        Ok(RoutingTable::new(gateways, routes))
    }

    async fn put_gateway(&self, gateway: &GatewayRecord) -> Result<bool, StoreError> {
        let inserted = repeat(|| {
            let query = sqlx::query!(
                "INSERT INTO gateways (name, protocol, url, enabled, created_at, updated_at) \
                 VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (name) DO NOTHING",
                gateway.name.as_str(),
                gateway.protocol.as_str(),
                gateway.url,
                gateway.enabled,
                gateway.created_at,
                gateway.updated_at
            );
            query.execute(&self.writes)
        });
        if inserted.await?.rows_affected() == 1 {
            return Ok(true);
        }
        let updated = repeat(|| {
            let query = sqlx::query!(
                "UPDATE gateways SET protocol = $2, url = $3, updated_at = $4 WHERE name = $1",
                gateway.name.as_str(),
                gateway.protocol.as_str(),
                gateway.url,
                gateway.updated_at
            );
            query.execute(&self.writes)
        });
        updated.await?;
        Ok(false)
    }

    async fn enable(&self, name: &GatewayName, enabled: bool, now: DateTime<Utc>) -> Result<bool, StoreError> {
        let changed = repeat(|| {
            let query = sqlx::query!(
                "UPDATE gateways SET enabled = $2, updated_at = $3 WHERE name = $1",
                name.as_str(),
                enabled,
                now
            );
            query.execute(&self.writes)
        });
        Ok(changed.await?.rows_affected() == 1)
    }

    async fn put_route(&self, route: &Route) -> Result<(), StoreError> {
        let [country, kind, method, currency] = criteria(route);
        let put = repeat(|| {
            let query = sqlx::query!(
                "INSERT INTO gateway_routes (gateway, country, kind, method, currency, priority, retry_declines) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (gateway, country, kind, method, currency) \
                 DO UPDATE SET priority = excluded.priority, retry_declines = excluded.retry_declines",
                route.gateway.as_str(),
                country,
                kind,
                method,
                currency,
                i32::from(route.priority),
                &route.retry_declines
            );
            query.execute(&self.writes)
        });
        put.await?;
        Ok(())
    }

    async fn remove_route(&self, route: &Route) -> Result<bool, StoreError> {
        let [country, kind, method, currency] = criteria(route);
        let removed = repeat(|| {
            let query = sqlx::query!(
                "DELETE FROM gateway_routes \
                 WHERE gateway = $1 AND country = $2 AND kind = $3 AND method = $4 AND currency = $5",
                route.gateway.as_str(),
                country,
                kind,
                method,
                currency
            );
            query.execute(&self.writes)
        });
        Ok(removed.await?.rows_affected() == 1)
    }

    async fn report(&self, health: &[GatewayHealth]) -> Result<(), StoreError> {
        let Some(latest) = health.iter().map(|h| h.reported_at).max() else { return Ok(()) };
        let gateways: Vec<_> = health.iter().map(|h| h.gateway.as_str()).collect();
        let instances: Vec<_> = health.iter().map(|h| h.instance.as_str()).collect();
        let breakers: Vec<_> = health.iter().map(|h| h.breaker.as_str()).collect();
        let failures: Vec<_> = health.iter().map(|h| i64::from(h.failures)).collect();
        let times: Vec<_> = health.iter().map(|h| h.reported_at).collect();
        let reported = repeat(|| {
            // A process that was silent for long replaces its own rows and must not delete them, too.
            let query = sqlx::query!(
                "WITH forgotten AS (DELETE FROM gateway_health WHERE reported_at < $6 AND instance <> ALL ($2)) \
                 INSERT INTO gateway_health (gateway, instance, breaker, failures, reported_at) \
                 SELECT * FROM UNNEST($1::text[], $2::text[], $3::text[], $4::bigint[], $5::timestamptz[]) \
                 ON CONFLICT (gateway, instance) DO UPDATE SET breaker = excluded.breaker, \
                 failures = excluded.failures, reported_at = excluded.reported_at",
                &gateways as &[&str],
                &instances as &[&str],
                &breakers as &[&str],
                &failures,
                &times,
                latest - KEPT
            );
            query.execute(&self.leases)
        });
        reported.await?;
        Ok(())
    }

    async fn health(&self, since: DateTime<Utc>) -> Result<Vec<GatewayHealth>, StoreError> {
        let rows = repeat(|| {
            let query = sqlx::query!(
                "SELECT gateway, instance, breaker, failures, reported_at FROM gateway_health \
                 WHERE reported_at >= $1 ORDER BY gateway, instance",
                since
            );
            query.fetch_all(&self.reads)
        });
        let mut health = Vec::new();
        for row in rows.await? {
            health.push(GatewayHealth {
                gateway: parse(&row.gateway, "gateway")?,
                instance: row.instance,
                breaker: BreakerState::from_name(&row.breaker).ok_or_else(|| damaged("breaker"))?,
                failures: u32::try_from(row.failures).map_err(|_| damaged("failures"))?,
                reported_at: row.reported_at,
            });
        }
        Ok(health)
    }
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

struct GatewayRow {
    name: String,
    protocol: String,
    url: String,
    enabled: bool,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl TryFrom<GatewayRow> for GatewayRecord {
    type Error = StoreError;

    fn try_from(row: GatewayRow) -> Result<Self, StoreError> {
        Ok(Self {
            name: parse(&row.name, "name")?,
            protocol: GatewayProtocol::from_name(&row.protocol).ok_or_else(|| damaged("protocol"))?,
            url: row.url,
            enabled: row.enabled,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

struct RouteRow {
    gateway: String,
    country: String,
    kind: String,
    method: String,
    currency: String,
    priority: i32,
    retry_declines: Vec<String>,
}

impl TryFrom<RouteRow> for Route {
    type Error = StoreError;

    fn try_from(row: RouteRow) -> Result<Self, StoreError> {
        let criterion = |text: String| Some(text).filter(|text| !text.is_empty());
        let kind = |name: String| TransactionKind::from_name(&name).ok_or_else(|| damaged("kind"));
        let method = |name: String| PaymentMethod::from_name(&name).ok_or_else(|| damaged("method"));
        Ok(Self {
            gateway: parse(&row.gateway, "gateway")?,
            priority: u16::try_from(row.priority).map_err(|_| damaged("priority"))?,
            country: criterion(row.country).map(|country| parse(&country, "country")).transpose()?,
            kind: criterion(row.kind).map(kind).transpose()?,
            method: criterion(row.method).map(method).transpose()?,
            currency: criterion(row.currency).map(|currency| parse(&currency, "currency")).transpose()?,
            retry_declines: row.retry_declines,
        })
    }
}
