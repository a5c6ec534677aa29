//! What routing costs a payment: from a full table to the gateway's answer, without the gateway.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use hdrhistogram::Histogram;
use metrics_exporter_prometheus::PrometheusBuilder;
use psp_domain::ports::{
    AuthorizationRequest, AuthorizationResult, CallbackSignature, Clock, ForgedCallback, Gateway, GatewayDirectory,
    GatewayError, GatewayStore, RefundRequest, StoreError, SystemClock, UuidV7Generator, VOIDED,
};
use psp_domain::usecases::Sources;
use psp_domain::{
    AttemptReference, Country, Currency, GatewayHealth, GatewayName, GatewayProtocol, GatewayRecord, Installments,
    Money, Named, NewTransaction, PaymentMethod, Route, RoutingTable, Transaction, TransactionKind,
};
use psp_gateways::{BreakerOptions, Directory};

use crate::table::{Row, Table};

const GATEWAYS: usize = 10;
/// Payments of each shape.
const PAYMENTS: u32 = 200_000;
/// How much a payment's routing may cost.
const TARGET: Duration = Duration::from_micros(50);
const COUNTRIES: [&str; 20] = [
    "AR", "AT", "AU", "BE", "BO", "CA", "CH", "CL", "CO", "DE", "EC", "ES", "FR", "GB", "IN", "IT", "MX", "PE", "US",
    "BR",
];

/// Measures payments that few routes fit, and payments that all routes fit.
pub(crate) async fn measure(table: &mut Table) -> anyhow::Result<()> {
    // As in the product: metrics that nobody records cost less.
    PrometheusBuilder::new().install_recorder().context("metrics")?;
    let by_country = (0..Route::MAX).map(|n| route(n, Some(COUNTRIES[n / GATEWAYS % COUNTRIES.len()])));
    measure_routes(table, "50 fit a payment", by_country.collect::<anyhow::Result<_>>()?).await?;
    // As many routes of one gateway without a country are one in the product: the worst that a table could be.
    let every_one = (0..Route::MAX).map(|n| route(n, None));
    measure_routes(table, "all fit it", every_one.collect::<anyhow::Result<_>>()?).await
}

async fn measure_routes(table: &mut Table, shape: &str, routes: Vec<Route>) -> anyhow::Result<()> {
    let records = (0..GATEWAYS).map(|n| record(&format!("gateway-{n}"))).collect::<anyhow::Result<_>>()?;
    let store = Arc::new(FixedTable(RoutingTable::new(records, routes)));
    let make = Box::new(|record: &GatewayRecord| Ok(Arc::new(Instantly(record.name.clone())) as Arc<dyn Gateway>));
    let options = BreakerOptions::default();
    let directory = Directory::open(store, record("main")?, make, options, Sources::default()).await?;
    let (transaction, request) = payment()?;
    ensure!(directory.candidates(&transaction).len() == GATEWAYS, "every gateway is a candidate");

    let mut nanoseconds = Histogram::<u64>::new(3)?;
    let mut before = Duration::ZERO;
    for n in 0..PAYMENTS + PAYMENTS / 10 {
        // The first tenth warms up.
        if n == PAYMENTS / 10 {
            (before, nanoseconds) = (processor_time()?, Histogram::new(3)?);
        }
        let begun = Instant::now();
        let candidates = directory.candidates(black_box(&transaction));
        let first = candidates.first().context("a candidate")?;
        black_box(first.gateway.authorize(&request).await?);
        nanoseconds.record(u64::try_from(begun.elapsed().as_nanos())?)?;
    }
    let mean = processor_time()?.saturating_sub(before) / PAYMENTS;
    let [p50, p99] = [0.5, 0.99].map(|quantile| micros(nanoseconds.value_at_quantile(quantile)));
    let name = format!(
        "routing of a payment, {} routes to {GATEWAYS} gateways, {shape}: processor time, p50 / p99",
        Route::MAX
    );
    let value = format!("{} µs, {p50} / {p99} µs", micros(u64::try_from(mean.as_nanos())?));
    table.add(Row::new(name, value).target("≤ 50 µs", mean <= TARGET));
    Ok(())
}

/// What this thread has spent on a processor so far: others on this machine cost waiting, and are not meant.
fn processor_time() -> anyhow::Result<Duration> {
    let path = "/proc/thread-self/schedstat";
    let text = std::fs::read_to_string(path).context(path)?;
    Ok(Duration::from_nanos(text.split_whitespace().next().context(path)?.parse()?))
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn micros(nanoseconds: u64) -> String {
    format!("{:.1}", nanoseconds as f64 / 1e3)
}

fn record(name: &str) -> anyhow::Result<GatewayRecord> {
    let now = SystemClock.now();
    let (name, url) = (name.parse()?, format!("https://{name}.example"));
    Ok(GatewayRecord { name, protocol: GatewayProtocol::Json, url, enabled: true, created_at: now, updated_at: now })
}

fn route(number: usize, country: Option<&str>) -> anyhow::Result<Route> {
    Ok(Route {
        gateway: format!("gateway-{}", number % GATEWAYS).parse()?,
        priority: u16::try_from(number)?,
        country: country.map(str::parse::<Country>).transpose()?,
        kind: Some(TransactionKind::Payment),
        method: Some(PaymentMethod::Pix),
        currency: Some(Currency::BRL),
        retry_declines: vec!["issuer_unavailable".to_owned()],
    })
}

fn payment() -> anyhow::Result<(Transaction, AuthorizationRequest)> {
    let country = Some("BR".parse()?);
    let new = NewTransaction {
        kind: TransactionKind::Payment,
        customer_id: "123".parse()?,
        description: "Lightsaber".into(),
        amount: Money::new(2500, Currency::BRL),
        payment_method: PaymentMethod::Pix,
        card: None,
        installments: Installments::ONE,
        named: Named { country, ..Named::default() },
        order: None,
    };
    let created = Transaction::create(&new, SystemClock.now(), &UuidV7Generator);
    let (transaction, _) = created.map_err(|faults| anyhow::anyhow!("{faults:?}"))?;
    let request = AuthorizationRequest {
        reference: AttemptReference(transaction.id.0),
        transaction_id: transaction.id,
        kind: transaction.kind,
        amount: transaction.amount,
        payment_method: transaction.payment_method,
        installments: transaction.installments,
        country,
        card: None,
    };
    Ok((transaction, request))
}

/// A gateway that approves without taking any time.
struct Instantly(GatewayName);

#[async_trait]
impl Gateway for Instantly {
    fn name(&self) -> &GatewayName {
        &self.0
    }

    async fn authorize(&self, request: &AuthorizationRequest) -> Result<AuthorizationResult, GatewayError> {
        Ok(AuthorizationResult::Approved { reference: String::new(), amount: Some(request.amount) })
    }

    async fn find(&self, _: AttemptReference) -> Result<Option<AuthorizationResult>, GatewayError> {
        Ok(None)
    }

    async fn void(&self, _: AttemptReference) -> Result<(), GatewayError> {
        Ok(())
    }

    async fn refund(&self, _: &RefundRequest) -> Result<AuthorizationResult, GatewayError> {
        Ok(AuthorizationResult::Declined { reason: VOIDED.to_owned() })
    }

    fn verify_callback(&self, _: &CallbackSignature<'_>) -> Result<(), ForgedCallback> {
        Err(ForgedCallback::Signature)
    }
}

/// A table that nobody changes.
struct FixedTable(RoutingTable);

#[async_trait]
impl GatewayStore for FixedTable {
    async fn routing(&self) -> Result<RoutingTable, StoreError> {
        Ok(self.0.clone())
    }

    async fn put_gateway(&self, _: &GatewayRecord) -> Result<bool, StoreError> {
        Ok(false)
    }

    async fn enable(&self, _: &GatewayName, _: bool, _: DateTime<Utc>) -> Result<bool, StoreError> {
        Ok(false)
    }

    async fn put_route(&self, _: &Route) -> Result<(), StoreError> {
        Ok(())
    }

    async fn remove_route(&self, _: &Route) -> Result<bool, StoreError> {
        Ok(false)
    }

    async fn report(&self, _: &[GatewayHealth]) -> Result<(), StoreError> {
        Ok(())
    }

    async fn health(&self, _: DateTime<Utc>) -> Result<Vec<GatewayHealth>, StoreError> {
        Ok(Vec::new())
    }
}
