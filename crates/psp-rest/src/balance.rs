use std::sync::Arc;

use axum::extract::{FromRequestParts, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use psp_domain::Currency;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::answers::Parameters;
use crate::page::JSON;
use crate::problem::{Fault, Problem};
use crate::request::{CustomerHeaders, customer};
use crate::state::App;

/// What a customer is owed in one currency, in minor units.
#[derive(Serialize, ToSchema)]
#[schema(as = Balance)]
pub(crate) struct BalanceBody {
    /// The receivables of paid payables.
    #[schema(example = 0)]
    available: i64,
    /// The receivables of payables that wait for their date.
    #[schema(example = 2375)]
    waiting_funds: i64,
    #[schema(example = "BRL")]
    currency: &'static str,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct BalanceQuery {
    /// ISO 4217; the configured one where absent.
    #[param(nullable = false, min_length = 3, max_length = 3, pattern = "^[A-Z]{3}$", example = "BRL")]
    currency: Option<String>,
}

/// The query, or that it cannot be read.
pub(crate) struct ReadQuery(Option<BalanceQuery>);

impl<S: Send + Sync> FromRequestParts<S> for ReadQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = Query::<BalanceQuery>::from_request_parts(parts, state).await;
        Ok(Self(query.ok().map(|Query(query)| query)))
    }
}

/// A customer's balance.
#[utoipa::path(
    get,
    path = "/balance",
    tag = "payables",
    operation_id = "getBalance",
    params(CustomerHeaders, BalanceQuery),
    responses(
        (status = 200, description = "The balance; zero where there are no payables", body = BalanceBody),
        Parameters,
    )
)]
pub(crate) async fn find(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    ReadQuery(query): ReadQuery,
) -> Result<Response, Problem> {
    let mut faults = Vec::new();
    let customer = customer(&headers).map_err(|fault| faults.push(fault)).ok();
    let currency = currency(&app, query).map_err(|fault| faults.push(fault)).ok();
    let (Some(customer), Some(currency)) = (customer, currency) else { return Err(Problem::invalid(faults)) };
    let balance = app.ports.balances.balance(&customer, currency).await?;
    let body = BalanceBody {
        available: balance.available.minor(),
        waiting_funds: balance.waiting_funds.minor(),
        currency: currency.code(),
    };
    let json = serde_json::to_vec(&body).map_err(|_| Problem::internal())?;
    Ok(([(header::CONTENT_TYPE, JSON)], json).into_response())
}

fn currency(app: &App, query: Option<BalanceQuery>) -> Result<Currency, Fault> {
    let query = query.ok_or_else(|| Fault::new("query", "must name each parameter once"))?;
    let Some(code) = query.currency else { return Ok(app.options.default_currency) };
    code.parse().map_err(|error: psp_domain::MoneyError| Fault::new("currency", error.to_string()))
}
