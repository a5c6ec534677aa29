use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::http::header;
use axum::routing::get;
use utoipa::OpenApi as _;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::path::{Operation, Parameter};
use utoipa::openapi::xml::{Xml, XmlBuilder};
use utoipa::openapi::{Content, ObjectBuilder, OpenApi, RefOr, Schema, Type};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::answers::problem;
use crate::format::{Format, SPEAK_XML};
use crate::page::JSON;
use crate::problem::{ProblemBody, XML_NAMESPACE};
use crate::state::App;
use crate::{
    balance, callbacks, card_tokens, deliveries, events, gateways, health, order_payments, orders, payables, payments,
    refunds, transactions, transfers, webhook_endpoints,
};

#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "psp", description = "A payment service provider. Amounts are integers in minor units, but decimals of major units where a field says so; times are RFC 3339, UTC."),
    tags(
        (name = "transactions", description = "Card payments, and refunds of any"),
        (name = "payments", description = "Payments by any method, and tokens of cards to pay with"),
        (name = "deposits and withdrawals", description = "Money of users in and out; JSON or XML"),
        (name = "callbacks", description = "What gateways tell; JSON or XML"),
        (name = "orders", description = "Orders and their payments, in decimals of major units"),
        (name = "webhooks", description = "What happened, and where it is told"),
        (name = "payables", description = "What is owed for approved payments"),
        (name = "gateways", description = "Who is asked for approval"),
        (name = "health", description = "For load balancers"),
    ),
    components(schemas(ProblemBody))
)]
struct Document;

/// Every documented route.
pub(crate) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(transactions::create, transactions::list))
        .routes(routes!(transactions::find))
        .routes(routes!(refunds::create))
        .routes(routes!(refunds::list))
        .routes(routes!(payments::create, payments::list))
        .routes(routes!(payments::find))
        .routes(routes!(payments::cancel))
        .routes(routes!(card_tokens::create))
        .routes(routes!(transfers::create_deposit))
        .routes(routes!(transfers::find_deposit))
        .routes(routes!(transfers::create_withdrawal))
        .routes(routes!(transfers::find_withdrawal))
        .routes(routes!(callbacks::receive))
        .routes(routes!(orders::create, orders::list))
        .routes(routes!(orders::find))
        .routes(routes!(orders::cancel))
        .routes(routes!(order_payments::list))
        .routes(routes!(order_payments::stats))
        .routes(routes!(order_payments::find))
        .routes(routes!(order_payments::of_order))
        .routes(routes!(events::list))
        .routes(routes!(events::find))
        .routes(routes!(deliveries::list))
        .routes(routes!(deliveries::redeliver))
        .routes(routes!(webhook_endpoints::create, webhook_endpoints::list))
        .routes(routes!(webhook_endpoints::find, webhook_endpoints::change, webhook_endpoints::delete))
        .routes(routes!(webhook_endpoints::rotate_secret))
        .routes(routes!(deliveries::recover))
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
    let schemas = document.components.as_ref().map(|components| components.schemas.clone()).unwrap_or_default();
    for (path, item) in &mut document.paths.paths {
        let root = SPEAK_XML.iter().find(|(speaks, _)| speaks == path).map(|(_, root)| *root);
        let operations = [&mut item.get, &mut item.post, &mut item.patch, &mut item.delete];
        for operation in operations.into_iter().filter_map(Option::as_mut) {
            complete(operation);
            if let Some(root) = root {
                add_xml(operation, root, &schemas);
            }
        }
    }
    document
}

/// Adds what the middleware gives to every answer, the headers that parameters bring about, and the failures that every
/// resource has.
fn complete(operation: &mut Operation) {
    let responses = &mut operation.responses.responses;
    let parameters = operation.parameters.as_deref();
    let is_named = |parameter: &RefOr<Parameter>, name| matches!(parameter, RefOr::T(p) if p.name == name);
    let takes = |name| parameters.is_some_and(|parameters| parameters.iter().any(|p| is_named(p, name)));
    let (is_keyed, is_page) = (takes("idempotency-key"), takes("cursor"));
    if parameters.is_some() {
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
        if is_keyed && status.starts_with('2') {
            let replayed = header("`true` on an answer that was given before; absent otherwise", Type::Boolean);
            response.headers.insert("idempotency-replayed".to_owned(), replayed.into());
        }
        if is_page && status == "200" {
            let link = header("The next page, `rel=\"next\"`; absent on the last one", Type::String);
            response.headers.insert("link".to_owned(), link.into());
        }
        if matches!(status.as_str(), "409" | "503") {
            let seconds = header("When to try again, in seconds", Type::Integer);
            response.headers.insert("retry-after".to_owned(), seconds.into());
        }
    }
}

type Schemas = BTreeMap<String, RefOr<Schema>>;

/// Adds XML beside JSON: the same schemas, with the names of their elements.
fn add_xml(operation: &mut Operation, root: &'static str, schemas: &Schemas) {
    if let Some(RefOr::T(body)) = &mut operation.request_body {
        let added = in_xml(&body.content, root, schemas);
        body.content.extend(added);
    }
    for response in operation.responses.responses.values_mut() {
        let RefOr::T(response) = response else { continue };
        let added = in_xml(&response.content, root, schemas);
        response.content.extend(added);
    }
}

/// What is there in JSON, by the content types that it has in XML.
fn in_xml<'c>(
    content: impl IntoIterator<Item = (&'c String, &'c RefOr<Content>)>,
    root: &'static str,
    schemas: &Schemas,
) -> Vec<(String, RefOr<Content>)> {
    let twins = |(content_type, content): (&String, &RefOr<Content>)| {
        let is_problem = content_type == Format::Json.problem_type();
        let name = if is_problem { "problem" } else { root };
        let xml = XmlBuilder::new().name(Some(name)).namespace(is_problem.then_some(XML_NAMESPACE)).build();
        [Format::Xml, Format::TextXml].map(|format| {
            let content_type = if is_problem { format.problem_type() } else { format.media_type() };
            (content_type.to_owned(), named(content, &xml, schemas))
        })
    };
    content.into_iter().flat_map(twins).collect()
}

/// The same content, in elements of that name.
fn named(content: &RefOr<Content>, xml: &Xml, schemas: &Schemas) -> RefOr<Content> {
    let mut content = content.clone();
    let RefOr::T(inner) = &mut content else { return content };
    let Some(RefOr::Ref(reference)) = &inner.schema else { return content };
    let name = reference.ref_location.rsplit('/').next().unwrap_or_default();
    if let Some(RefOr::T(Schema::Object(object))) = schemas.get(name) {
        let mut object = object.clone();
        object.xml = Some(xml.clone());
        if let Some(RefOr::T(Schema::Array(faults))) = object.properties.get_mut("errors") {
            // An array is an element with an `i` for each item.
            faults.xml = Some(XmlBuilder::new().name(Some("i")).wrapped(Some(true)).build());
        }
        // The example is in JSON.
        (object.example, object.examples) = (None, Vec::new());
        inner.schema = Some(RefOr::T(Schema::Object(object)));
    }
    content
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
