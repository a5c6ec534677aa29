//! Creating the transaction that a request asks for: once for each idempotency key, and with a card that a token stands for.

use std::sync::Arc;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use psp_domain::usecases::{
    CreateError, CreateOutcome, CreateTransaction, IdempotentRequest, TokenizeCard, TokenizeError,
};
use psp_domain::{
    CardExpiry, CardNumber, CardToken, CustomerId, GatewayName, IdempotencyKey, InvalidTransaction, NewTransaction,
    StoredAnswer, Transaction,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use crate::format::Body;
use crate::idempotency;
use crate::page::JSON;
use crate::payments::FAMILY;
use crate::problem::{Fault, Problem};
use crate::request::{Fields, not_a_card_number, object_after, parsed};
use crate::state::App;

/// What differs between the routes that create transactions.
pub(crate) struct Family {
    /// Keeps the requests of one key apart.
    pub(crate) route: &'static str,
    /// The field that names the payment method.
    pub(crate) method_field: &'static str,
    /// What the customer is told.
    pub(crate) answer: fn(&Transaction) -> StoredAnswer,
}

/// A request that is being read: gathers faults.
pub(crate) struct Reading<'r> {
    pub(crate) app: &'r App,
    pub(crate) family: &'static Family,
    pub(crate) fields: Fields,
    pub(crate) customer: Option<CustomerId>,
    key: Option<IdempotencyKey>,
    passing: Vec<Fault>,
}

/// A request that has no faults of its own.
pub(crate) struct Asked {
    family: &'static Family,
    new: NewTransaction,
    /// What the card is to be taken from. It can be opened once, so only when the request is no repetition.
    token: Option<CardToken>,
    key: Option<IdempotencyKey>,
    /// Faults that depend on more than the request: a repetition gets its first answer in spite of them, or the client would
    /// take it for refused and ask for another payment.
    passing: Vec<Fault>,
}

/// An answer, and whether it was given before.
pub(crate) struct Answered {
    pub(crate) answer: StoredAnswer,
    pub(crate) is_replayed: bool,
}

impl<'r> Reading<'r> {
    /// Reads the headers.
    pub(crate) fn begin(
        app: &'r App,
        family: &'static Family,
        headers: &HeaderMap,
        customer: Result<CustomerId, Fault>,
    ) -> Self {
        let mut fields = Fields::default();
        let customer =
            customer.and_then(|customer| not_a_card_number("x-customer-id", customer.as_str()).map(|()| customer));
        let customer = customer.map_err(|fault| fields.faults.push(fault)).ok();
        let key = idempotency::key(headers).map_err(|fault| fields.faults.push(fault)).ok().flatten();
        Self { app, family, fields, customer, key, passing: Vec::new() }
    }

    /// Takes the body apart.
    pub(crate) fn body<'b, T: Deserialize<'b>>(&mut self, body: &'b [u8]) -> Result<T, Problem> {
        object_after(&mut self.fields.faults, body)
    }

    /// The body as JSON, whatever it was sent as.
    pub(crate) fn json(&mut self, body: Body, root: &str, known: &'static [&'static str]) -> Result<Bytes, Problem> {
        match body.into_json(root, known) {
            Ok((json, faults)) => {
                self.fields.faults.extend(faults);
                Ok(json)
            }
            Err(mut problem) => {
                problem.errors.append(&mut self.fields.faults);
                Err(problem)
            }
        }
    }

    /// The gateway that is asked for, which must be enabled.
    pub(crate) fn gateway(&mut self, json: Option<&RawValue>) -> Option<GatewayName> {
        let name: GatewayName = self.fields.optional("gateway", json, parsed)?;
        if !self.app.ports.gateways.is_enabled(&name) {
            self.passing.push(Fault::new("gateway", "must be a gateway that is enabled"));
        }
        Some(name)
    }

    /// Refuses an expiry that has passed, where that is configured.
    pub(crate) fn expiry(&mut self, expiry: Option<CardExpiry>) {
        let is_past = |expiry: CardExpiry| expiry.is_past(self.app.options.clock.now());
        if self.app.options.refuse_expired_cards && expiry.is_some_and(is_past) {
            self.passing.push(Fault::new("card_expiration_date", "has passed"));
        }
    }

    /// The rules across fields that are broken.
    pub(crate) fn rules(&mut self, broken: Vec<InvalidTransaction>) {
        self.fields.faults.extend(broken.into_iter().map(|invalid| fault(self.family, invalid)));
    }

    /// Refuses the card's number in headers and fields that are stored in the clear.
    pub(crate) fn number(&mut self, number: Option<&CardNumber>, order_id: Option<&str>) {
        let Some(number) = number else { return };
        let faults = texts_with(number, self.customer.as_ref(), self.key.as_ref(), order_id);
        self.fields.faults.extend(faults);
    }

    /// The request, or every fault of it.
    pub(crate) fn finish(
        self,
        new: impl FnOnce(CustomerId) -> Option<NewTransaction>,
        token: Option<CardToken>,
    ) -> Result<Asked, Problem> {
        let family = self.family;
        let (new, key, passing) = self.end(new)?;
        Ok(Asked { family, new, token, key, passing })
    }

    /// What was made of the fields, the key, and the faults that depend on more than the request; or every fault.
    pub(crate) fn end<T>(
        self,
        make: impl FnOnce(CustomerId) -> Option<T>,
    ) -> Result<(T, Option<IdempotencyKey>, Vec<Fault>), Problem> {
        let mut faults = self.fields.faults;
        match self.customer.and_then(make) {
            Some(value) if faults.is_empty() => Ok((value, self.key, self.passing)),
            _ => {
                faults.extend(self.passing);
                Err(Problem::invalid(faults))
            }
        }
    }
}

/// The fault of a rule across fields, at the field that is to be changed.
fn fault(family: &Family, invalid: InvalidTransaction) -> Fault {
    let path = match invalid {
        InvalidTransaction::Description => "description",
        InvalidTransaction::InstallmentsNeedCredit => "installments",
        InvalidTransaction::CardNumberInText => "card_number",
        InvalidTransaction::Card => family.method_field,
        _ => "amount",
    };
    Fault::new(path, invalid.to_string().replace("payment_method", family.method_field))
}

/// The texts that hold a card's number and would be stored in the clear.
fn texts_with(
    number: &CardNumber,
    customer: Option<&CustomerId>,
    key: Option<&IdempotencyKey>,
    order_id: Option<&str>,
) -> Vec<Fault> {
    let texts = [
        ("x-customer-id", customer.map(CustomerId::as_str)),
        ("idempotency-key", key.map(IdempotencyKey::as_str)),
        ("order_id", order_id),
    ];
    texts
        .into_iter()
        .filter(|(_, text)| text.is_some_and(|text| number.appears_in(text)))
        .map(|(path, _)| Fault::new(path, "must not hold the card number"))
        .collect()
}

/// Creates what is asked for, or finds out that it was created before.
pub(crate) async fn create(app: &App, asked: Asked) -> Result<Answered, Problem> {
    let outcome = match asked.key.clone() {
        None => run(&app.ports.create, &app.ports.tokenize, asked, None).await?,
        Some(key) => create_once(app, asked, key).await?,
    };
    answered(outcome)
}

/// What an outcome is answered.
pub(crate) fn answered(outcome: CreateOutcome) -> Result<Answered, Problem> {
    match outcome {
        CreateOutcome::Created(answer) => Ok(Answered { answer, is_replayed: false }),
        CreateOutcome::Replayed(answer) => {
            metrics::counter!("psp_idempotency_replays_total").increment(1);
            Ok(Answered { answer, is_replayed: true })
        }
        CreateOutcome::KeyReused => Err(idempotency::reused()),
        CreateOutcome::TokenSpent => Err(no_such_token()),
    }
}

/// Creates the transaction in a task of its own: a client that goes away, or the end of the request's time, must not land
/// the key while the write is under way.
async fn create_once(app: &App, asked: Asked, key: IdempotencyKey) -> Result<CreateOutcome, Problem> {
    let flight = app.keys_in_flight.begin_key(&asked.new.customer_id, &key)?;
    let fingerprint = app.ports.fingerprints.fingerprint(&asked.canonical()).await?;
    let (create, tokenize) = (Arc::clone(&app.ports.create), Arc::clone(&app.ports.tokenize));
    in_task(flight, async move { run(&create, &tokenize, asked, Some(IdempotentRequest { key, fingerprint })).await })
        .await
}

/// Does work in a task of its own, and lands what is in flight, such as its key, at its end.
pub(crate) async fn in_task<T: Send + 'static>(
    flight: impl Send + 'static,
    work: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> Result<T, Problem> {
    let task = tokio::spawn(async move {
        let _flight = flight;
        work.await
    });
    let done = task.await.map_err(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(cancelled) => Problem::internal().because(cancelled),
    });
    done?
}

/// Does what a request with a key asks for in a task of its own, and keeps the answer afterwards. Where the process ends in between,
/// the same request does it again, so that must do no harm.
pub(crate) async fn do_once(
    app: &App,
    (customer, key): (CustomerId, IdempotencyKey),
    canonical: &[u8],
    work: impl Future<Output = Result<StoredAnswer, Problem>> + Send + 'static,
) -> Result<Answered, Problem> {
    let flight = app.keys_in_flight.begin_key(&customer, &key)?;
    let request = IdempotentRequest { fingerprint: app.ports.fingerprints.fingerprint(canonical).await?, key };
    let create = Arc::clone(&app.ports.create);
    in_task(flight, async move {
        let replay = async || create.replay(&customer, &request).await.map_err(problem(&FAMILY));
        if let Some(outcome) = replay().await? {
            return answered(outcome);
        }
        match work.await {
            Ok(answer) => answered(create.keep(&customer, &request, answer).await?),
            // Another process may have been first.
            Err(refused) => replay().await?.map_or(Err(refused), answered),
        }
    })
    .await
}

async fn run(
    create: &CreateTransaction,
    tokenize: &TokenizeCard,
    mut asked: Asked,
    request: Option<IdempotentRequest>,
) -> Result<CreateOutcome, Problem> {
    let may_not_be_read_again = asked.token.is_some() || !asked.passing.is_empty();
    if let Some(request) = request.as_ref().filter(|_| may_not_be_read_again)
        && let Some(outcome) = create.replay(&asked.new.customer_id, request).await.map_err(problem(asked.family))?
    {
        return Ok(outcome);
    }
    if !asked.passing.is_empty() {
        return Err(Problem::invalid(asked.passing));
    }
    if let Some(token) = asked.token
        && !asked.open(tokenize, token).await?
    {
        let outcome = match request {
            // Another process may have spent it meanwhile, and on this very request.
            Some(request) => create.replay(&asked.new.customer_id, &request).await.map_err(problem(asked.family))?,
            None => None,
        };
        return Ok(outcome.unwrap_or(CreateOutcome::TokenSpent));
    }
    let Asked { new, token, family, .. } = asked;
    create.execute(new, token, request, family.answer).await.map_err(problem(family))
}

impl Asked {
    /// Takes the card from its token; `false` where there is no such token any more.
    async fn open(&mut self, tokenize: &TokenizeCard, token: CardToken) -> Result<bool, Problem> {
        let new = &mut self.new;
        let opened = tokenize.open(&new.customer_id, token).await.map_err(tokenize_problem)?;
        let Some(card) = opened else { return Ok(false) };
        let order_id = new.named.order_id.as_ref().map(psp_domain::OrderName::as_str);
        let faults = texts_with(&card.number, Some(&new.customer_id), self.key.as_ref(), order_id);
        if !faults.is_empty() {
            return Err(Problem::invalid(faults));
        }
        new.card = Some(card);
        Ok(true)
    }

    /// A form of the request that equal requests share and different ones do not: every field with its length before it.
    fn canonical(&self) -> Zeroizing<Vec<u8>> {
        let (new, card, named) = (&self.new, self.new.card.as_ref(), &self.new.named);
        let (amount, parts) = (new.amount.minor().to_be_bytes(), [new.installments.get()]);
        let expiry = card.map(|card| card.expiry.first_day().timestamp().to_be_bytes());
        let mut fields: Vec<&[u8]> = vec![
            self.family.route.as_bytes(),
            new.description.as_bytes(),
            &amount,
            new.amount.currency().code().as_bytes(),
            new.payment_method.as_str().as_bytes(),
            card.map_or(&[], |card| card.number.expose().as_bytes()),
            card.map_or(&[], |card| card.holder_name.as_str().as_bytes()),
            expiry.as_ref().map_or(&[], |expiry| expiry),
            card.map_or(&[], |card| card.verification_code.expose().as_bytes()),
            &parts,
        ];
        let token = self.token.map(|token| token.0.into_bytes());
        // What came later is told only where it is there: keys of before an upgrade still fit their requests.
        let optional: [(&str, Option<&[u8]>); 5] = [
            ("order_id", named.order_id.as_ref().map(|id| id.as_str().as_bytes())),
            ("user_id", named.user_id.as_ref().map(|id| id.as_str().as_bytes())),
            ("country", named.country.as_ref().map(|country| country.as_str().as_bytes())),
            ("gateway", named.gateway.as_ref().map(|name| name.as_str().as_bytes())),
            ("card_token", token.as_ref().map(<[u8; 16]>::as_slice)),
        ];
        for (name, value) in optional {
            fields.extend(value.map(|value| [name.as_bytes(), value]).into_iter().flatten());
        }
        lengths_and(&fields)
    }
}

/// The fields, each with its length before it.
pub(crate) fn lengths_and(fields: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let length = fields.iter().map(|field| field.len() + 8).sum();
    let mut canonical = Zeroizing::new(Vec::with_capacity(length));
    for field in fields {
        canonical.extend_from_slice(&(field.len() as u64).to_be_bytes());
        canonical.extend_from_slice(field);
    }
    canonical
}

/// What the customer is told of a failure.
pub(crate) fn problem(family: &'static Family) -> impl Fn(CreateError) -> Problem {
    move |error| match error {
        CreateError::Invalid(faults) => {
            Problem::invalid(faults.into_iter().map(|invalid| fault(family, invalid)).collect())
        }
        CreateError::Vault(error) => error.into(),
        CreateError::Store(error) => error.into(),
    }
}

pub(crate) fn tokenize_problem(error: TokenizeError) -> Problem {
    match error {
        TokenizeError::Vault(error) => error.into(),
        TokenizeError::Store(error) => error.into(),
    }
}

fn no_such_token() -> Problem {
    Problem::invalid(vec![Fault::new("card_token", "is unknown, was spent or has expired")])
}

/// The answer with that status and that body, to be kept with its key.
pub(crate) fn stored(status: StatusCode, body: &impl Serialize) -> StoredAnswer {
    StoredAnswer { status: status.as_u16(), body: serde_json::to_string(body).unwrap_or_default() }
}

impl Answered {
    /// The status that was stored.
    pub(crate) fn status(&self) -> Result<StatusCode, Problem> {
        StatusCode::from_u16(self.answer.status).map_err(|_| Problem::internal())
    }

    /// The answer in JSON.
    pub(crate) fn into_json(self) -> Result<Response, Problem> {
        let (status, is_replayed) = (self.status()?, self.is_replayed);
        let response = (status, [(header::CONTENT_TYPE, JSON)], self.answer.body).into_response();
        Ok(marked(response, is_replayed))
    }
}

/// The response, marked where its answer was given before.
pub(crate) fn marked(mut response: Response, is_replayed: bool) -> Response {
    if is_replayed {
        response.headers_mut().insert(idempotency::REPLAYED, HeaderValue::from_static("true"));
    }
    response
}
