use std::str::FromStr;
use std::time::Duration;

use axum::body::{Bytes, to_bytes};
use axum::extract::{FromRequest, Path, Request, State as Shared};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::{HeaderMap, StatusCode};
use psp_domain::{
    CardExpiry, CardNumber, CardVerificationCode, Currency, Installments, Money, PaymentMethod, TransactionId,
};
use psp_gateways::{Behaviour as CardBehaviour, SIGNATURE_HEADER, Signed, TIMESTAMP_HEADER};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::ledger::{Decision, Taken, Terms};
use crate::{BehaviourChange, Simulator, Totals};

/// The largest body, in bytes.
const MAX_BODY_BYTES: usize = 16 * 1024;

/// Marks an answer that is not to be given: its connection is closed instead.
#[derive(Clone, Copy)]
pub(crate) struct Lost;

/// A refusal that took nothing.
type Refusal = (StatusCode, Json<Value>);

fn refusal(status: StatusCode, error: &str) -> Refusal {
    (status, Json(json!({ "error": error })))
}

pub(crate) fn router(simulator: Simulator) -> Router {
    Router::new()
        .route("/authorizations", post(authorize))
        .route("/authorizations/{id}", get(find))
        .route("/authorizations/{id}/void", post(void))
        .route("/admin/behaviour", get(behaviour).patch(change))
        .route("/admin/totals", get(totals))
        .with_state(simulator)
}

/// The body of a request whose signature is right.
struct SignedBody(Bytes);

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
            Err(error) => Err((StatusCode::UNAUTHORIZED, Json(json!({ "error": error.to_string() })))),
        }
    }
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// What the behaviour has for one request that was let in.
struct Fate {
    latency: Duration,
    is_lost: bool,
}

impl Simulator {
    /// Throws the dice for one request.
    fn fate(&self) -> Result<Fate, Refusal> {
        let mut state = self.state();
        let behaviour = state.behaviour;
        // Both are thrown for every request, so that one rate does not shift the chances of the other.
        let (error, lost) = (state.chances.f64(), state.chances.f64());
        if behaviour.outage || error < behaviour.error_rate {
            return Err(refusal(StatusCode::SERVICE_UNAVAILABLE, "unavailable"));
        }
        Ok(Fate { latency: behaviour.latency(), is_lost: lost < behaviour.lost_rate })
    }
}

impl Fate {
    async fn answer(self, answer: impl IntoResponse) -> Response {
        tokio::time::sleep(self.latency).await;
        let mut response = answer.into_response();
        if self.is_lost {
            response.extensions_mut().insert(Lost);
        }
        response
    }
}

fn decided(id: TransactionId, decision: Decision) -> Json<Value> {
    Json(match decision {
        Decision::Approved => {
            json!({ "reference": id, "status": "approved", "gateway_reference": format!("simulator-{id}") })
        }
        Decision::Declined(reason) => json!({ "reference": id, "status": "declined", "reason": reason }),
    })
}

async fn authorize(Shared(simulator): Shared<Simulator>, body: SignedBody) -> Result<Response, Refusal> {
    let Authorization { id, terms, card } = Authorization::read(&body.0)?;
    let mut fate = simulator.fate()?;
    let taken = simulator.state().ledger.authorize(id, terms, card);
    if card == CardBehaviour::ApproveSlowly {
        fate.latency += simulator.options.slow_answer;
    }
    match taken {
        Taken::Decided(decision) => Ok(fate.answer(decided(id, decision)).await),
        Taken::Refused => Err(refusal(StatusCode::SERVICE_UNAVAILABLE, "unavailable")),
        Taken::Full => Err(refusal(StatusCode::SERVICE_UNAVAILABLE, "too_many_references")),
        Taken::Conflict => Err(refusal(StatusCode::CONFLICT, "reference_reused")),
    }
}

async fn find(
    Shared(simulator): Shared<Simulator>,
    Path(id): Path<TransactionId>,
    _signed: SignedBody,
) -> Result<Response, Refusal> {
    let fate = simulator.fate()?;
    let found = simulator.state().ledger.find(id);
    let found = found.map(|decision| decided(id, decision));
    Ok(fate.answer(found.ok_or_else(|| refusal(StatusCode::NOT_FOUND, "unknown_reference"))).await)
}

async fn void(
    Shared(simulator): Shared<Simulator>,
    Path(id): Path<TransactionId>,
    _signed: SignedBody,
) -> Result<Response, Refusal> {
    let fate = simulator.fate()?;
    if !simulator.state().ledger.void(id) {
        return Err(refusal(StatusCode::SERVICE_UNAVAILABLE, "too_many_references"));
    }
    Ok(fate.answer(Json(json!({ "reference": id, "status": "voided" }))).await)
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

/// The body of an authorization.
#[derive(Deserialize)]
struct Body {
    reference: TransactionId,
    amount: i64,
    currency: String,
    method: PaymentMethod,
    installments: u8,
    card: CardBody,
}

#[derive(Deserialize)]
struct CardBody {
    number: String,
    holder_name: String,
    expiry: String,
    verification_code: String,
}

/// An authorization that makes sense.
struct Authorization {
    id: TransactionId,
    terms: Terms,
    card: CardBehaviour,
}

impl Authorization {
    /// Reads a body; the refusal names the part that is wrong and does not show it.
    fn read(body: &[u8]) -> Result<Self, Refusal> {
        fn part<T: FromStr>(name: &str, text: &str) -> Result<T, Refusal> {
            text.parse().map_err(|_| wrong(name))
        }
        fn wrong(name: &str) -> Refusal {
            refusal(StatusCode::UNPROCESSABLE_ENTITY, &format!("wrong {name}"))
        }
        let body: Body = serde_json::from_slice(body).map_err(|_| refusal(StatusCode::BAD_REQUEST, "no_json"))?;
        let number: CardNumber = part("card.number", &body.card.number)?;
        part::<CardExpiry>("card.expiry", &body.card.expiry)?;
        part::<CardVerificationCode>("card.verification_code", &body.card.verification_code)?;
        part::<psp_domain::CardHolderName>("card.holder_name", &body.card.holder_name)?;
        let currency: Currency = part("currency", &body.currency)?;
        if !(1..=Money::MAX_MINOR).contains(&body.amount) {
            return Err(wrong("amount"));
        }
        let terms = Terms {
            amount: Money::new(body.amount, currency),
            method: body.method,
            installments: Installments::new(body.installments).ok_or_else(|| wrong("installments"))?,
        };
        Ok(Self { id: body.reference, terms, card: CardBehaviour::of(number.expose()) })
    }
}
