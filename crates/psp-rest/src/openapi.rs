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

use crate::format::{Format, SPEAK_XML};
use crate::page::JSON;
use crate::state::App;
use crate::{balance, callbacks, card_tokens, gateways, health, payables, payments, transactions, transfers};

#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "psp", description = "A payment service provider. Amounts are integers in minor units, but decimals of major units where a field says so; times are RFC 3339, UTC."),
    tags(
        (name = "transactions", description = "Card payments"),
        (name = "payments", description = "Payments by any method, and tokens of cards to pay with"),
        (name = "deposits and withdrawals", description = "Money of users in and out; JSON or XML"),
        (name = "callbacks", description = "What gateways tell; JSON or XML"),
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
        .routes(routes!(payments::create, payments::list))
        .routes(routes!(payments::find))
        .routes(routes!(payments::cancel))
        .routes(routes!(card_tokens::create))
        .routes(routes!(transfers::create_deposit))
        .routes(routes!(transfers::find_deposit))
        .routes(routes!(transfers::create_withdrawal))
        .routes(routes!(transfers::find_withdrawal))
        .routes(routes!(callbacks::receive))
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
    for (path, item) in &mut document.paths.paths {
        for operation in [item.get.as_mut(), item.post.as_mut()].into_iter().flatten() {
            complete(operation);
            if SPEAK_XML.contains(&path.as_str()) {
                add_xml(operation);
            }
        }
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

/// Adds XML beside JSON: the same schema, under the other content types.
fn add_xml(operation: &mut Operation) {
    if let Some(RefOr::T(body)) = &mut operation.request_body {
        let added = in_xml(&body.content);
        body.content.extend(added);
    }
    for response in operation.responses.responses.values_mut() {
        let RefOr::T(response) = response else { continue };
        let added = in_xml(&response.content);
        response.content.extend(added);
    }
}

/// What is there in JSON, by the content types that it has in XML.
fn in_xml<'c, C: Clone + 'c>(content: impl IntoIterator<Item = (&'c String, &'c C)>) -> Vec<(String, C)> {
    let twins = |(content_type, content): (&String, &C)| {
        let twin = |xml: Format| {
            let is_body = content_type == Format::Json.media_type();
            let twin = if is_body { xml.media_type() } else { xml.problem_type() };
            (twin.to_owned(), content.clone())
        };
        [Format::Xml, Format::TextXml].map(twin)
    };
    content.into_iter().flat_map(twins).collect()
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
