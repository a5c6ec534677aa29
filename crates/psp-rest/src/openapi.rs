use std::sync::Arc;

use axum::Router;
use axum::http::header;
use axum::routing::get;
use utoipa::OpenApi as _;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::path::Operation;
use utoipa::openapi::{
    ContentBuilder, ObjectBuilder, OpenApi, Ref, RefOr, Response as OpenApiResponse, ResponseBuilder, Type,
};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::page::JSON;
use crate::state::App;
use crate::{balance, gateways, health, payables, transactions};

#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "psp", description = "A payment service provider. Amounts are integers in minor units; times are RFC 3339, UTC."),
    tags(
        (name = "transactions", description = "Card payments"),
        (name = "payables", description = "What is owed for approved payments"),
        (name = "gateways", description = "Who is asked for approval"),
        (name = "health", description = "For load balancers"),
    )
)]
struct Document;

/// Every documented route.
pub(crate) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(transactions::create, transactions::list))
        .routes(routes!(transactions::find))
        .routes(routes!(payables::list))
        .routes(routes!(payables::find))
        .routes(routes!(balance::find))
        .routes(routes!(gateways::list))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
}

/// The OpenAPI document, generated from the routes.
pub fn openapi() -> OpenApi {
    let mut document = routes().into_openapi();
    let items = document.paths.paths.values_mut();
    for operation in items.flat_map(|item| [item.get.as_mut(), item.post.as_mut()]).flatten() {
        complete(operation);
    }
    document
}

/// Adds what the middleware gives to every answer, and the failures that every resource has.
fn complete(operation: &mut Operation) {
    let responses = &mut operation.responses.responses;
    if operation.parameters.is_some() {
        let failures = [
            ("422", "Invalid headers or parameters, all of them"),
            ("500", "A fault of ours: the log has it under the request's id"),
            ("503", "Overloaded, unavailable or too late: try again"),
        ];
        for (status, description) in failures {
            responses.entry(status.to_owned()).or_insert_with(|| problem(description).into());
        }
    }
    for (status, response) in responses {
        let RefOr::T(response) = response else { continue };
        let id = header("The request's id, given or made", Type::String);
        response.headers.insert("x-request-id".to_owned(), id.into());
        if matches!(status.as_str(), "409" | "503") {
            let seconds = header("When to try again, in seconds", Type::Integer);
            response.headers.insert("retry-after".to_owned(), seconds.into());
        }
    }
}

fn problem(description: &str) -> OpenApiResponse {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    ResponseBuilder::new().description(description).content("application/problem+json", content).build()
}

fn header(description: &str, of: Type) -> Header {
    HeaderBuilder::new().description(Some(description)).schema(Some(ObjectBuilder::new().schema_type(of))).build()
}

/// The document and a page that shows it, served from the binary.
pub(crate) fn docs() -> Router<Arc<App>> {
    let json: &'static str = openapi().to_json().unwrap_or_default().leak();
    // By default the page asks a validator on the internet.
    let page = SwaggerUi::new("/docs").config(Config::from("/openapi.json").validator_url("none"));
    Router::new().route("/openapi.json", get(move || async move { ([(header::CONTENT_TYPE, JSON)], json) })).merge(page)
}
