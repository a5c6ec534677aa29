//! What several routes answer: a body in JSON, and the failures that they share, as the OpenAPI document has them.

use std::collections::BTreeMap;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::IntoResponses;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response as Documented, ResponseBuilder};

use crate::page::JSON;
use crate::problem::Problem;

/// Failures with their statuses, to be named among the responses of a route.
macro_rules! failures {
    ($(#[$doc:meta])* $name:ident, $($status:literal: $description:literal),+) => {
        $(#[$doc])*
        pub(crate) struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Documented>> {
                [$(($status, $description)),+].map(|(status, told)| (status.to_owned(), problem(told).into())).into()
            }
        }
    };
}

failures!(
    /// Of a body in JSON.
    JsonBody,
    "400": "Malformed JSON",
    "413": "Body over 64 KiB",
    "415": "Body not JSON by its content type"
);
failures!(
    /// Of a body in JSON or XML.
    AnyBody,
    "400": "Malformed JSON or XML, or XML with a DOCTYPE",
    "413": "Body over 64 KiB",
    "415": "Body neither JSON nor XML in UTF-8 by its content type"
);
failures!(
    /// Of an answer in JSON or XML.
    AnyAnswer,
    "406": "`Accept` takes neither JSON nor XML"
);
failures!(
    /// Of a request that may have an idempotency key.
    Keyed,
    "409": "The first request with this key is still in flight",
    "422": "Invalid fields or headers, all of them; or the key came with another request before"
);
failures!(
    /// Of headers and fields, where no idempotency key is taken.
    Fields,
    "422": "Invalid fields or headers, all of them"
);
failures!(
    /// Of parameters.
    Parameters,
    "422": "Invalid parameters, all of them"
);
failures!(
    /// Of an id in the path.
    Missing,
    "404": "None of this customer's"
);

/// A problem that means that.
pub(crate) fn problem(description: &str) -> Documented {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    ResponseBuilder::new().description(description).content("application/problem+json", content).build()
}

/// A body in JSON.
pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Result<Response, Problem> {
    let json = serde_json::to_string(body).map_err(|_| Problem::internal())?;
    Ok((status, [(header::CONTENT_TYPE, JSON)], json).into_response())
}
