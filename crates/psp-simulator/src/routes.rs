use axum::body::{Bytes, to_bytes};
use axum::extract::{FromRequest, Path, Request, State as Shared};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::{HeaderMap, StatusCode};
use psp_domain::AttemptReference;
use psp_gateways::{SIGNATURE_HEADER, Signed, TIMESTAMP_HEADER};
use serde_json::{Map, Value, json};

use crate::ledger::Movement;
use crate::operations::{Fate, Operation, Refusal, Told, refusal};
use crate::{BehaviourChange, Simulator, Totals, soap};

/// The largest body, in bytes.
const MAX_BODY_BYTES: usize = 16 * 1024;

/// Marks an answer that is not to be given: its connection is closed instead.
#[derive(Clone, Copy)]
pub(crate) struct Lost;

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": self.error }))).into_response()
    }
}

pub(crate) fn router(simulator: Simulator) -> Router {
    Router::new()
        .route("/authorizations", post(authorize))
        .route("/payouts", post(pay_out))
        .route("/refunds", post(refund))
        .route("/operations/{reference}", get(find))
        .route("/operations/{reference}/void", post(void))
        .route("/soap", post(soap::ask))
        .route("/admin/behaviour", get(behaviour).patch(change))
        .route("/admin/totals", get(totals))
        .fallback(async || refusal(StatusCode::NOT_FOUND, "no_such_operation"))
        .with_state(simulator)
}

/// The body of a request whose signature is right.
pub(crate) struct SignedBody(pub(crate) Bytes);

impl FromRequest<Simulator> for SignedBody {
    type Rejection = Refusal;

    async fn from_request(request: Request, simulator: &Simulator) -> Result<Self, Refusal> {
        let (parts, body) = request.into_parts();
        let read = to_bytes(body, MAX_BODY_BYTES).await;
        let body = read.map_err(|_| refusal(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"))?;
        let unsigned = || refusal(StatusCode::UNAUTHORIZED, "signature_required");
        let timestamp = header(&parts.headers, TIMESTAMP_HEADER).and_then(|text| text.parse().ok());
        let timestamp = timestamp.ok_or_else(unsigned)?;
        let signature = header(&parts.headers, SIGNATURE_HEADER).ok_or_else(unsigned)?;
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let signed = Signed { timestamp, method: parts.method.as_str(), path, body: &body };
        match simulator.options.key.verify(&signed, signature, simulator.clock.now().timestamp()) {
            Ok(()) => Ok(Self(body)),
            Err(error) => Err(refusal(StatusCode::UNAUTHORIZED, &error.to_string())),
        }
    }
}

pub(crate) fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

impl Fate {
    /// Gives an answer in time, or loses it.
    pub(crate) async fn answer(self, answer: Response) -> Response {
        tokio::time::sleep(self.latency).await;
        let mut response = answer;
        if self.is_lost {
            response.extensions_mut().insert(Lost);
        }
        response
    }
}

fn json_of(told: &Told) -> Response {
    match told.fields() {
        Some(fields) => {
            let fields: Map<_, _> = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            Json(Value::Object(fields)).into_response()
        }
        None => refusal(StatusCode::NOT_FOUND, "unknown_reference").into_response(),
    }
}

impl Simulator {
    async fn answer(&self, operation: Operation) -> Result<Response, Refusal> {
        let (fate, told) = self.operate(operation)?;
        Ok(fate.answer(json_of(&told)).await)
    }
}

fn fields(body: &[u8]) -> Result<Value, Refusal> {
    serde_json::from_slice(body).map_err(|_| refusal(StatusCode::BAD_REQUEST, "malformed"))
}

async fn authorize(Shared(simulator): Shared<Simulator>, body: SignedBody) -> Result<Response, Refusal> {
    simulator.answer(Operation::authorize(fields(&body.0)?, Movement::Charge)?).await
}

async fn pay_out(Shared(simulator): Shared<Simulator>, body: SignedBody) -> Result<Response, Refusal> {
    simulator.answer(Operation::authorize(fields(&body.0)?, Movement::Payout)?).await
}

async fn refund(Shared(simulator): Shared<Simulator>, body: SignedBody) -> Result<Response, Refusal> {
    simulator.answer(Operation::refund(fields(&body.0)?)?).await
}

async fn find(
    Shared(simulator): Shared<Simulator>,
    Path(reference): Path<AttemptReference>,
    _signed: SignedBody,
) -> Result<Response, Refusal> {
    simulator.answer(Operation::Find(reference)).await
}

async fn void(
    Shared(simulator): Shared<Simulator>,
    Path(reference): Path<AttemptReference>,
    _signed: SignedBody,
) -> Result<Response, Refusal> {
    simulator.answer(Operation::Void(reference)).await
}

async fn behaviour(Shared(simulator): Shared<Simulator>) -> impl IntoResponse {
    Json(simulator.behaviour())
}

async fn change(Shared(simulator): Shared<Simulator>, Json(change): Json<BehaviourChange>) -> Response {
    match simulator.change(&change) {
        Ok(behaviour) => Json(behaviour).into_response(),
        Err(error) => refusal(StatusCode::UNPROCESSABLE_ENTITY, &error.to_string()).into_response(),
    }
}

async fn totals(Shared(simulator): Shared<Simulator>) -> Json<Totals> {
    Json(simulator.totals())
}
