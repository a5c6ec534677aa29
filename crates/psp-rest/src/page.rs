//! Pages of lists: `page` and `limit`, or `cursor` and `limit`; the next page is in the `Link` header (RFC 8288).

use std::sync::Arc;

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use psp_domain::{CustomerId, PageRequest, Position};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;
use validator::{Validate, ValidationErrors};

use crate::problem::{Fault, Problem};
use crate::request::{customer, customer_or_default};
use crate::state::App;

/// Which part of a list.
#[derive(Debug, Deserialize, IntoParams, Validate)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageQuery {
    /// The n-th page, newest first. Deeper than page 1000, follow the cursor.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000, default = 1)]
    #[validate(custom(function = "in_range::<1, { PageRequest::MAX_PAGE }>"))]
    page: Option<String>,
    /// The most rows.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 100)]
    #[validate(custom(function = "in_range::<1, { PageRequest::MAX_LIMIT }>"))]
    limit: Option<String>,
    /// Goes on where the page that named it ended, at the same cost at any depth. Not together with `page`.
    #[validate(custom(function = "is_cursor"))]
    cursor: Option<String>,
}

fn in_range<const LEAST: u32, const MOST: u32>(text: &str) -> Result<(), validator::ValidationError> {
    let fits = text.parse::<u32>().is_ok_and(|number| (LEAST..=MOST).contains(&number));
    let message = format!("must be an integer from {LEAST} to {MOST}");
    if fits { Ok(()) } else { Err(validator::ValidationError::new("range").with_message(message.into())) }
}

fn is_cursor(text: &str) -> Result<(), validator::ValidationError> {
    let message = "must be a cursor from a Link header".into();
    Uuid::try_parse(text).map(drop).map_err(|_| validator::ValidationError::new("cursor").with_message(message))
}

/// Every fault, by parameter. The rejected values stay out of it.
fn faults(errors: &ValidationErrors) -> Vec<Fault> {
    let mut faults: Vec<_> = errors
        .field_errors()
        .into_iter()
        .flat_map(|(field, errors)| {
            errors.iter().map(move |error| Fault {
                path: field.to_string().into(),
                message: error.message.clone().unwrap_or_else(|| error.code.clone()),
            })
        })
        .collect();
    faults.sort_by(|a, b| a.path.cmp(&b.path));
    faults
}

/// The page that a request asks for, with its customer: both are checked, and all faults are told together.
pub(crate) struct ListRequest {
    pub(crate) customer: CustomerId,
    pub(crate) page: PageRequest,
    path: String,
}

/// The same of a request that need not name its customer.
pub(crate) struct ListRequestOrDefault(pub(crate) ListRequest);

impl<S: Send + Sync> FromRequestParts<S> for ListRequest {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let customer = customer(&parts.headers);
        Self::read(parts, customer)
    }
}

impl FromRequestParts<Arc<App>> for ListRequestOrDefault {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let customer = customer_or_default(app, &parts.headers);
        ListRequest::read(parts, customer).map(Self)
    }
}

impl PageQuery {
    /// The page that a query asks for, or every fault of it.
    fn read(uri: &Uri) -> Result<PageRequest, Vec<Fault>> {
        let query = Query::<Self>::try_from_uri(uri).map_err(|_| vec![named_twice()])?;
        query.page_request()
    }

    fn page_request(&self) -> Result<PageRequest, Vec<Fault>> {
        let mut all = self.validate().map_err(|errors| faults(&errors)).err().unwrap_or_default();
        if self.page.is_some() && self.cursor.is_some() {
            all.push(Fault::new("cursor", "must not be given together with page"));
        }
        if !all.is_empty() {
            return Err(all);
        }
        let number = |text: &Option<String>, default| text.as_ref().and_then(|t| t.parse().ok()).unwrap_or(default);
        let cursor = self.cursor.as_ref().and_then(|text| Uuid::try_parse(text).ok());
        let position = cursor.map_or_else(|| Position::Page(number(&self.page, 1)), Position::After);
        PageRequest::new(position, number(&self.limit, PageRequest::DEFAULT_LIMIT))
            .map_err(|error| vec![Fault::new("limit", error.to_string())])
    }
}

impl ListRequest {
    fn read(parts: &Parts, customer: Result<CustomerId, Fault>) -> Result<Self, Problem> {
        let mut all = Vec::new();
        let customer = customer.map_err(|fault| all.push(fault)).ok();
        let page = PageQuery::read(&parts.uri).map_err(|faults| all.extend(faults)).ok();
        match (customer, page) {
            (Some(customer), Some(page)) => Ok(Self { customer, page, path: parts.uri.path().to_owned() }),
            _ => Err(Problem::invalid(all)),
        }
    }

    /// The rows as JSON, with a link to the page after `next` where there is one.
    pub(crate) fn respond(&self, rows: &[impl Serialize], next: Option<Uuid>) -> Response {
        let Ok(json) = serde_json::to_string(rows) else { return Problem::internal().into_response() };
        linked(json, self.page, next.map(|next| (self.path.as_str(), next)))
    }

    /// The rows with how many there are in all, and a link to the page after `next` where there is one.
    pub(crate) fn respond_counted(&self, rows: Vec<impl Serialize>, total: u64, next: Option<Uuid>) -> Response {
        let limit = self.page.limit();
        let meta = PageMeta {
            page: self.page.after().is_none().then(|| self.page.offset() / limit + 1),
            limit,
            total,
            total_pages: total.div_ceil(limit.into()),
        };
        let body = CountedPage { data: rows, meta };
        let Ok(json) = serde_json::to_string(&body) else { return Problem::internal().into_response() };
        linked(json, self.page, next.map(|next| (self.path.as_str(), next)))
    }
}

/// A page that says how many rows there are.
#[derive(Serialize)]
struct CountedPage<T> {
    data: Vec<T>,
    meta: PageMeta,
}

/// Where a page is in its list.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PageMeta {
    /// Absent where the page was asked for by its cursor.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = 1)]
    page: Option<u32>,
    /// The most rows of a page.
    #[schema(example = 10)]
    limit: u32,
    /// How many rows there are.
    #[schema(example = 2)]
    total: u64,
    /// How many pages they fill.
    #[schema(example = 1)]
    total_pages: u64,
}

/// The page of a list that is walked by cursor alone, or every fault of the query.
pub(crate) fn page_by_cursor(uri: &Uri) -> Result<PageRequest, Vec<Fault>> {
    let Query(mut query) = Query::<PageQuery>::try_from_uri(uri).map_err(|_| vec![named_twice()])?;
    let message = "is not offered here: follow the cursor of the Link header";
    let numbered = query.page.take().map(|_| Fault::new("page", message));
    match (query.page_request(), numbered) {
        (read, None) => read,
        (read, Some(fault)) => Err(read.err().into_iter().flatten().chain([fault]).collect()),
    }
}

pub(crate) fn named_twice() -> Fault {
    Fault::new("query", "must name each parameter once")
}

/// A page as JSON, with a link to the next one where there is one: its path, which may have parameters, and its cursor.
pub(crate) fn linked(json: String, page: PageRequest, next: Option<(&str, Uuid)>) -> Response {
    let mut response = ([(header::CONTENT_TYPE, JSON)], json).into_response();
    if let Some((path, cursor)) = next {
        let and = if path.contains('?') { '&' } else { '?' };
        let link = format!("<{path}{and}cursor={}&limit={}>; rel=\"next\"", cursor.simple(), page.limit());
        if let Ok(link) = HeaderValue::try_from(link) {
            response.headers_mut().insert(HeaderName::from_static("link"), link);
        }
    }
    response
}

/// The content type of every body that is no problem.
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");
