use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use psp_domain::{Payable, PayableId, PayableStatus};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::answers::{Missing, Parameters};
use crate::fields::number;
use crate::page::{JSON, ListRequest, PageQuery};
use crate::problem::Problem;
use crate::request::{Customer, CustomerHeaders, PathId};
use crate::state::App;

/// What is owed for one instalment of an approved payment, or what a refund takes back of it. `receivable_amount` + `fee_amount` = `amount`.
#[derive(Serialize, ToSchema)]
#[schema(as = Payable)]
pub(crate) struct PayableBody<'p> {
    id: Uuid,
    #[schema(example = "123")]
    customer_id: &'p str,
    #[schema(value_type = PayableStatusSchema)]
    status: PayableStatus,
    /// When it is due.
    #[serde(serialize_with = "crate::time::serialize")]
    payment_date: DateTime<Utc>,
    /// The fee's rate, in percent.
    #[schema(value_type = f64, format = "decimal", minimum = 0, maximum = 100, example = 5)]
    fee: Option<Box<RawValue>>,
    /// What the customer gets, in minor units; not positive where a refund takes back.
    #[schema(example = 2375)]
    receivable_amount: i64,
    /// Which instalment: from 1.
    #[schema(example = 1)]
    installment: u8,
    transaction_id: Uuid,
    #[serde(serialize_with = "crate::time::serialize")]
    created_at: DateTime<Utc>,
    #[serde(serialize_with = "crate::time::serialize")]
    updated_at: DateTime<Utc>,
    /// What the PSP keeps, in minor units.
    #[schema(example = 125)]
    fee_amount: i64,
    /// The instalment, in minor units.
    #[schema(example = 2500)]
    amount: i64,
    #[schema(example = "BRL")]
    currency: &'static str,
    /// Which refund of the transaction takes back: from 1; absent where this is what is owed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = 1)]
    refund: Option<u16>,
}

#[derive(ToSchema)]
#[schema(as = PayableStatus, rename_all = "snake_case")]
#[expect(dead_code, reason = "describes the domain's states")]
pub(crate) enum PayableStatusSchema {
    WaitingFunds,
    Paid,
}

impl<'p> From<&'p Payable> for PayableBody<'p> {
    fn from(p: &'p Payable) -> Self {
        Self {
            id: p.id.0,
            customer_id: p.customer_id.as_str(),
            status: p.status,
            payment_date: p.payment_date,
            fee: number(p.fee_percent),
            receivable_amount: p.receivable.minor(),
            installment: p.installment,
            transaction_id: p.transaction_id.0,
            created_at: p.created_at,
            updated_at: p.updated_at,
            fee_amount: p.fee.minor(),
            amount: p.receivable.minor() + p.fee.minor(),
            currency: p.receivable.currency().code(),
            refund: (p.refund > 0).then_some(p.refund),
        }
    }
}

/// A customer's payables, newest first.
#[utoipa::path(
    get,
    path = "/payables",
    tag = "payables",
    operation_id = "listPayables",
    params(CustomerHeaders, PageQuery),
    responses(
        (status = 200, description = "A page", body = Vec<PayableBody>),
        Parameters,
    )
)]
pub(crate) async fn list(State(app): State<Arc<App>>, request: ListRequest) -> Result<Response, Problem> {
    let page = app.ports.payables.list(&request.customer, request.page).await?;
    let rows: Vec<_> = page.items.iter().map(PayableBody::from).collect();
    Ok(request.respond(&rows, page.next))
}

/// One payable.
#[utoipa::path(
    get,
    path = "/payables/{id}",
    tag = "payables",
    operation_id = "getPayable",
    params(CustomerHeaders, ("id" = Uuid, Path, description = "The payable")),
    responses(
        (status = 200, description = "The payable", body = PayableBody),
        Missing,
    )
)]
pub(crate) async fn find(
    State(app): State<Arc<App>>,
    Customer(customer): Customer,
    PathId(id): PathId,
) -> Result<Response, Problem> {
    let found = app.ports.payables.find(&customer, PayableId(id)).await?;
    let payable = found.ok_or_else(|| Problem::missing("there is no such payable"))?;
    let json = serde_json::to_vec(&PayableBody::from(&payable)).map_err(|_| Problem::internal())?;
    Ok(([(header::CONTENT_TYPE, JSON)], json).into_response())
}
