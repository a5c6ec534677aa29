use std::sync::Arc;

use axum::Router;
use axum::http::header;
use axum::routing::get;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::page::JSON;
use crate::state::App;
use crate::{balance, health, payables, transactions};

#[derive(OpenApi)]
#[openapi(
    info(title = "psp", description = "A payment service provider. Amounts are integers in minor units; times are RFC 3339, UTC."),
    tags(
        (name = "transactions", description = "Card payments"),
        (name = "payables", description = "What is owed for approved payments"),
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
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
}

/// The OpenAPI document, generated from the routes.
pub fn openapi() -> utoipa::openapi::OpenApi {
    routes().into_openapi()
}

/// The document and a page that shows it, served from the binary.
pub(crate) fn docs() -> Router<Arc<App>> {
    let json: &'static str = openapi().to_json().unwrap_or_default().leak();
    let page = SwaggerUi::new("/docs").config(Config::from("/openapi.json"));
    Router::new().route("/openapi.json", get(move || async move { ([(header::CONTENT_TYPE, JSON)], json) })).merge(page)
}
