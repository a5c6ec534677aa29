//! What is asked and told, whatever protocol it comes in.

use std::str::FromStr;
use std::time::Duration;

use http::StatusCode;
use psp_domain::{
    AttemptReference, CardExpiry, CardHolderName, CardNumber, CardVerificationCode, Country, Currency, Installments,
    Money, PaymentMethod, TransactionId, TransactionKind,
};
use psp_gateways::{Behaviour as CardBehaviour, GatewayUrl};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Simulator;
use crate::callbacks::Plan;
use crate::ledger::{Decision, Known, Movement, Taken, Terms};

/// A refusal that took nothing.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) error: String,
}

pub(crate) fn refusal(status: StatusCode, error: &str) -> Refusal {
    Refusal { status, error: error.to_owned() }
}

/// The refusal of a part of a request, which it does not show.
fn wrong(name: &str) -> Refusal {
    refusal(StatusCode::UNPROCESSABLE_ENTITY, &format!("wrong {name}"))
}

/// An operation that makes sense.
pub(crate) enum Operation {
    Authorize(Authorization),
    Refund { reference: AttemptReference, of: AttemptReference, terms: Terms },
    Find(AttemptReference),
    Void(AttemptReference),
}

pub(crate) struct Authorization {
    reference: AttemptReference,
    terms: Terms,
    is_payment: bool,
    /// The amount's where there is none.
    card: CardBehaviour,
    callback_url: Option<GatewayUrl>,
}

/// What is told of a reference.
pub(crate) enum Told {
    Known(AttemptReference, Known),
    /// To a void.
    Voided(AttemptReference),
    Unknown,
}

/// What the behaviour has for one request that was let in.
pub(crate) struct Fate {
    pub(crate) latency: Duration,
    pub(crate) is_lost: bool,
    is_pending: bool,
    plan: Plan,
}

/// The body of an authorization or a payout.
#[derive(Deserialize)]
struct Body {
    reference: AttemptReference,
    transaction_id: TransactionId,
    kind: TransactionKind,
    amount: i64,
    currency: String,
    method: PaymentMethod,
    installments: u8,
    country: Option<String>,
    card: Option<CardBody>,
    callback_url: Option<String>,
}

#[derive(Deserialize)]
struct CardBody {
    number: String,
    holder_name: String,
    expiry: String,
    verification_code: String,
}

#[derive(Deserialize)]
struct RefundBody {
    reference: AttemptReference,
    of: AttemptReference,
    amount: i64,
    currency: String,
}

#[derive(Deserialize)]
struct ReferenceBody {
    reference: AttemptReference,
}

fn part<T: FromStr>(name: &str, text: &str) -> Result<T, Refusal> {
    text.parse().map_err(|_| wrong(name))
}

fn amount(minor: i64, currency: &str) -> Result<Money, Refusal> {
    let currency: Currency = part("currency", currency)?;
    let fits = (1..=Money::MAX_MINOR).contains(&minor);
    if fits { Ok(Money::new(minor, currency)) } else { Err(wrong("amount")) }
}

fn body<T: DeserializeOwned>(fields: Value) -> Result<T, Refusal> {
    serde_json::from_value(fields).map_err(|_| refusal(StatusCode::BAD_REQUEST, "malformed"))
}

impl Operation {
    /// Reads a charge or a payout.
    pub(crate) fn authorize(fields: Value, movement: Movement) -> Result<Self, Refusal> {
        let body: Body = body(fields)?;
        if (body.kind == TransactionKind::Withdrawal) != (movement == Movement::Payout) {
            return Err(wrong("kind"));
        }
        if body.card.is_some() != body.method.is_card() {
            return Err(wrong("card"));
        }
        body.country.map(|country| part::<Country>("country", &country)).transpose()?;
        let terms = Terms {
            movement,
            transaction_id: Some(body.transaction_id),
            amount: amount(body.amount, &body.currency)?,
            method: Some(body.method),
            installments: Installments::new(body.installments).ok_or_else(|| wrong("installments"))?,
        };
        let card = body.card.map(CardBody::behaviour).transpose()?;
        Ok(Self::Authorize(Authorization {
            reference: body.reference,
            terms,
            is_payment: body.kind == TransactionKind::Payment,
            card: card.unwrap_or_else(|| CardBehaviour::of_amount(body.amount)),
            callback_url: body.callback_url.map(|url| part("callback_url", &url)).transpose()?,
        }))
    }

    pub(crate) fn refund(fields: Value) -> Result<Self, Refusal> {
        let RefundBody { reference, of, amount: minor, currency } = body(fields)?;
        let terms = Terms {
            movement: Movement::Refund(of),
            transaction_id: None,
            amount: amount(minor, &currency)?,
            method: None,
            installments: Installments::ONE,
        };
        Ok(Self::Refund { reference, of, terms })
    }

    pub(crate) fn find(fields: Value) -> Result<Self, Refusal> {
        body(fields).map(|ReferenceBody { reference }| Self::Find(reference))
    }

    pub(crate) fn void(fields: Value) -> Result<Self, Refusal> {
        body(fields).map(|ReferenceBody { reference }| Self::Void(reference))
    }
}

impl CardBody {
    fn behaviour(self) -> Result<CardBehaviour, Refusal> {
        let number: CardNumber = part("card.number", &self.number)?;
        part::<CardExpiry>("card.expiry", &self.expiry)?;
        part::<CardVerificationCode>("card.verification_code", &self.verification_code)?;
        part::<CardHolderName>("card.holder_name", &self.holder_name)?;
        Ok(CardBehaviour::of(number.expose()))
    }
}

/// The acquirer's own reference.
pub(crate) fn gateway_reference(reference: AttemptReference) -> String {
    format!("simulator-{reference}")
}

impl Told {
    /// The fields of the answer, in order; `None` where nothing is known.
    pub(crate) fn fields(&self) -> Option<Vec<(&'static str, Value)>> {
        let (reference, known) = match self {
            Self::Unknown => return None,
            Self::Voided(reference) => (reference, None),
            Self::Known(reference, known) => (reference, Some(known)),
        };
        let mut fields = vec![("reference", reference.to_string().into())];
        let status = match known.map(|known| known.decision) {
            Some(Decision::Approved) => "approved",
            Some(Decision::Declined(_)) => "declined",
            Some(Decision::Pending) => "pending",
            Some(Decision::Voided) | None => "voided",
        };
        fields.push(("status", status.into()));
        let Some(Known { decision, terms }) = known else { return Some(fields) };
        match decision {
            Decision::Declined(reason) => fields.push(("reason", (*reason).into())),
            Decision::Approved | Decision::Pending => {
                fields.push(("gateway_reference", gateway_reference(*reference).into()));
                if let Some(Terms { amount, .. }) = terms {
                    fields.push(("amount", amount.minor().into()));
                    fields.push(("currency", amount.currency().code().into()));
                }
            }
            Decision::Voided => {}
        }
        Some(fields)
    }
}

impl Simulator {
    /// Throws the dice for one request.
    fn fate(&self) -> Result<Fate, Refusal> {
        let mut state = self.state();
        let behaviour = state.behaviour;
        // All are thrown for every request, so that one rate does not shift the chances of another.
        let [error, lost, pending, duplicate, wrong_amount, forgotten] = std::array::from_fn(|_| state.chances.f64());
        if behaviour.outage || error < behaviour.error_rate {
            return Err(refusal(StatusCode::SERVICE_UNAVAILABLE, "unavailable"));
        }
        let plan = Plan {
            delay: behaviour.callback_delay(),
            is_duplicate: duplicate < behaviour.duplicate_rate,
            has_wrong_amount: wrong_amount < behaviour.wrong_amount_rate,
            is_forgotten: forgotten < behaviour.forget_rate,
        };
        let is_pending = pending < behaviour.pending_rate;
        Ok(Fate { latency: behaviour.latency(), is_lost: lost < behaviour.lost_rate, is_pending, plan })
    }

    /// Does what is asked, at once; what is told is told by the fate.
    pub(crate) fn operate(&self, operation: Operation) -> Result<(Fate, Told), Refusal> {
        let mut fate = self.fate()?;
        let told = match operation {
            Operation::Authorize(authorization) => self.authorize(authorization, &mut fate)?,
            Operation::Refund { reference, of, terms } => {
                let taken = self.state().ledger.refund(reference, of, terms);
                Told::Known(reference, Known { decision: decided(taken)?.0, terms: Some(terms) })
            }
            Operation::Find(reference) => {
                let known = self.state().ledger.find(reference);
                known.map_or(Told::Unknown, |known| Told::Known(reference, known))
            }
            Operation::Void(reference) => {
                if !self.state().ledger.void(reference) {
                    return Err(full());
                }
                Told::Voided(reference)
            }
        };
        Ok((fate, told))
    }

    fn authorize(&self, authorization: Authorization, fate: &mut Fate) -> Result<Told, Refusal> {
        let Authorization { reference, terms, is_payment, card, callback_url } = authorization;
        let is_later = fate.is_pending || (!is_payment && callback_url.is_some());
        let taken = self.state().ledger.authorize(reference, terms, card, is_later);
        if card == CardBehaviour::ApproveSlowly {
            fate.latency += self.options.slow_answer;
        }
        let (decision, is_first) = decided(taken)?;
        if is_first && decision == Decision::Pending {
            self.decide_later(reference, callback_url, fate.plan);
        }
        Ok(Told::Known(reference, Known { decision, terms: Some(terms) }))
    }
}

fn decided(taken: Taken) -> Result<(Decision, bool), Refusal> {
    match taken {
        Taken::Decided(decision, is_first) => Ok((decision, is_first)),
        Taken::Refused => Err(refusal(StatusCode::SERVICE_UNAVAILABLE, "unavailable")),
        Taken::Full => Err(full()),
        Taken::Conflict => Err(refusal(StatusCode::CONFLICT, "reference_reused")),
    }
}

fn full() -> Refusal {
    refusal(StatusCode::SERVICE_UNAVAILABLE, "too_many_references")
}
