//! Answers that come later, and the callbacks that tell them.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

mod support;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use http::{HeaderMap, StatusCode};
use psp_domain::ports::{AuthorizationRequest, AuthorizationResult, CallbackSignature, Gateway};
use psp_domain::{PaymentMethod, TransactionKind};
use psp_gateways::{HttpGateway, HttpProtocol, SIGNATURE_HEADER, TIMESTAMP_HEADER};
use psp_simulator::{BehaviourChange, CallbackTotals, Totals};
use psp_testkit::contract::gateway::{cardless_request, refund_request, request};
use serde_json::{Value, json};
use support::World;
use tokio::net::TcpListener;

const APPROVED: &str = "4111111111111111";

/// A callback as it came.
#[derive(Clone)]
struct Heard {
    path: String,
    timestamp: String,
    signature: String,
    body: Bytes,
}

impl Heard {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

#[derive(Default)]
struct Notes {
    heard: Mutex<Vec<Heard>>,
    /// What is answered to the next callbacks, before 202.
    answers: Mutex<Vec<u16>>,
}

/// Who is called back.
struct Listener {
    base: String,
    notes: Arc<Notes>,
}

async fn hear(State(notes): State<Arc<Notes>>, Path(id): Path<String>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    let heard = Heard {
        path: format!("/v1/callback/{id}"),
        timestamp: header(TIMESTAMP_HEADER),
        signature: header(SIGNATURE_HEADER),
        body,
    };
    notes.heard.lock().unwrap().push(heard);
    let answer = notes.answers.lock().unwrap().pop();
    StatusCode::from_u16(answer.unwrap_or(202)).unwrap()
}

impl Listener {
    async fn new() -> Self {
        let notes: Arc<Notes> = Arc::default();
        let router = Router::new().route("/v1/callback/{id}", axum::routing::post(hear)).with_state(Arc::clone(&notes));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}/v1", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { base, notes }
    }

    fn gateway(&self, world: &World, protocol: HttpProtocol) -> HttpGateway {
        let path = if protocol == HttpProtocol::Xml { "/soap" } else { "" };
        world.gateway_with(|options| {
            options.protocol = protocol;
            options.url = format!("http://{}{path}", world.address).parse().unwrap();
            options.callback_base = Some(self.base.parse().unwrap());
        })
    }

    fn heard(&self) -> Vec<Heard> {
        self.notes.heard.lock().unwrap().clone()
    }
}

async fn until(world: &World, is_so: impl Fn(&Totals) -> bool) -> Totals {
    let begun = Instant::now();
    loop {
        let totals = world.simulator.totals();
        if is_so(&totals) {
            return totals;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{totals:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn deposit() -> AuthorizationRequest {
    cardless_request(TransactionKind::Deposit, PaymentMethod::Pix)
}

fn pending(request: &AuthorizationRequest) -> AuthorizationResult {
    AuthorizationResult::Pending { reference: Some(format!("simulator-{}", request.reference)) }
}

fn approved(request: &AuthorizationRequest) -> AuthorizationResult {
    let reference = format!("simulator-{}", request.reference);
    AuthorizationResult::Approved { reference, amount: Some(request.amount) }
}

#[tokio::test]
async fn deposits_and_withdrawals_are_pending_and_a_signed_callback_ends_them() {
    for protocol in [HttpProtocol::Json, HttpProtocol::Xml] {
        let (world, listener) = (World::new().await, Listener::new().await);
        let gateway = listener.gateway(&world, protocol);
        let requests = [deposit(), cardless_request(TransactionKind::Withdrawal, PaymentMethod::BankTransfer)];
        for (count, request) in (1..).zip(&requests) {
            assert_eq!(gateway.authorize(request).await, Ok(pending(request)));
            until(&world, |totals| totals.callbacks.delivered == count).await;
            assert_eq!(gateway.find(request.reference).await, Ok(Some(approved(request))));
            assert_eq!(gateway.authorize(request).await, Ok(approved(request)), "asked again");
        }
        let heard = listener.heard();
        assert_eq!(heard.len(), 2, "and called back once each");
        for (heard, request) in heard.iter().zip(&requests) {
            assert_eq!(heard.path, format!("/v1/callback/{}", request.transaction_id));
            let callback = CallbackSignature {
                path: &heard.path,
                timestamp: Some(&heard.timestamp),
                signature: Some(&heard.signature),
                body: &heard.body,
            };
            assert_eq!(gateway.verify_callback(&callback), Ok(()));
            let id = format!("simulator-{}", request.reference);
            let expected = json!({ "gateway_txn_id": id, "status": "completed", "amount": "25.00", "currency": "BRL" });
            assert_eq!(heard.json(), expected);
        }
        let totals = world.simulator.totals();
        assert_eq!((totals.charges, totals.payouts), (1, 1));
        assert_eq!((totals.sums["BRL"], totals.paid_out["BRL"]), (2500, 2500));
        for request in &requests {
            let of = &totals.transactions[&request.transaction_id];
            assert_eq!((of.charges, of.charged, of.currency.as_str()), (1, 2500, "BRL"));
        }
    }
}

#[tokio::test]
async fn a_payment_is_pending_as_often_as_the_behaviour_says_and_a_declined_card_is_rejected() {
    let (world, listener) = (World::new().await, Listener::new().await);
    let gateway = listener.gateway(&world, HttpProtocol::Json);
    assert_eq!(
        gateway
            .authorize(&request(APPROVED))
            .await
            .map(|answer| matches!(answer, AuthorizationResult::Approved { .. })),
        Ok(true)
    );
    let always = BehaviourChange { pending_rate: Some(1.0), ..BehaviourChange::default() };
    world.simulator.change(&always).unwrap();
    let declined = request("4000000000009995");
    assert_eq!(gateway.authorize(&declined).await, Ok(pending(&declined)));
    until(&world, |totals| totals.callbacks.delivered == 1).await;
    assert_eq!(listener.heard()[0].json()["status"], "rejected");
    let reason = AuthorizationResult::Declined { reason: "insufficient_funds".into() };
    assert_eq!(gateway.find(declined.reference).await, Ok(Some(reason)));
}

#[tokio::test]
async fn who_names_no_address_is_told_only_when_asked() {
    let world = World::new().await;
    let gateway = world.gateway();
    let request = deposit();
    assert_eq!(gateway.authorize(&request).await, Ok(approved(&request)), "there is nobody to call back");
    let always = BehaviourChange { pending_rate: Some(1.0), ..BehaviourChange::default() };
    world.simulator.change(&always).unwrap();
    let request = deposit();
    assert_eq!(gateway.authorize(&request).await, Ok(pending(&request)));
    until(&world, |totals| totals.charges == 2).await;
    assert_eq!(gateway.find(request.reference).await, Ok(Some(approved(&request))));
    assert_eq!(world.simulator.totals().callbacks, CallbackTotals::default());
}

#[tokio::test]
async fn a_forgotten_callback_leaves_its_decision_to_be_found() {
    let (world, listener) = (World::new().await, Listener::new().await);
    let gateway = listener.gateway(&world, HttpProtocol::Json);
    world.simulator.change(&BehaviourChange { forget_rate: Some(1.0), ..BehaviourChange::default() }).unwrap();
    let request = deposit();
    assert_eq!(gateway.authorize(&request).await, Ok(pending(&request)));
    until(&world, |totals| totals.callbacks.forgotten == 1).await;
    assert_eq!(gateway.find(request.reference).await, Ok(Some(approved(&request))));
    assert!(listener.heard().is_empty());
}

#[tokio::test]
async fn a_callback_comes_with_a_wrong_amount_first_and_twice_when_it_is_told_to() {
    let (world, listener) = (World::new().await, Listener::new().await);
    let gateway = listener.gateway(&world, HttpProtocol::Json);
    let faults = BehaviourChange {
        wrong_amount_rate: Some(1.0),
        duplicate_rate: Some(1.0),
        callback_delay_ms: Some(20),
        ..BehaviourChange::default()
    };
    world.simulator.change(&faults).unwrap();
    gateway.authorize(&deposit()).await.unwrap();
    let totals = until(&world, |totals| totals.callbacks.delivered == 3).await;
    let amounts: Vec<_> = listener.heard().iter().map(|heard| heard.json()["amount"].clone()).collect();
    assert_eq!(amounts, ["25.01", "25.00", "25.00"]);
    assert_eq!((totals.callbacks.wrong_amounts, totals.callbacks.duplicates), (1, 1));
    assert_eq!(totals.sums["BRL"], 2500, "what is charged is what was asked for");
}

#[tokio::test]
async fn a_callback_is_sent_again_until_it_is_answered_and_not_after_it_was_refused() {
    let (world, listener) = (World::new().await, Listener::new().await);
    let gateway = listener.gateway(&world, HttpProtocol::Json);
    *listener.notes.answers.lock().unwrap() = vec![200, 302, 503];
    gateway.authorize(&deposit()).await.unwrap();
    until(&world, |totals| totals.callbacks.delivered == 1).await;
    assert_eq!(listener.heard().len(), 3);
    *listener.notes.answers.lock().unwrap() = vec![409];
    gateway.authorize(&deposit()).await.unwrap();
    until(&world, |totals| totals.callbacks.delivered == 2).await;
    assert_eq!(listener.heard().len(), 4);
}

#[tokio::test]
async fn a_callback_that_nobody_answers_is_given_up() {
    let world = World::new().await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let base = format!("http://{nobody}").parse().unwrap();
    let gateway = world.gateway_with(|options| options.callback_base = Some(base));
    gateway.authorize(&deposit()).await.unwrap();
    let totals = until(&world, |totals| totals.callbacks.undelivered == 1).await;
    assert_eq!((totals.callbacks.delivered, totals.charges), (0, 1));
}

#[tokio::test]
async fn what_is_voided_before_it_is_decided_moves_no_money_and_is_not_called_back() {
    let (world, listener) = (World::new().await, Listener::new().await);
    let gateway = listener.gateway(&world, HttpProtocol::Json);
    world.simulator.change(&BehaviourChange { callback_delay_ms: Some(50), ..BehaviourChange::default() }).unwrap();
    let (voided, kept) = (deposit(), deposit());
    gateway.authorize(&voided).await.unwrap();
    gateway.void(voided.reference).await.unwrap();
    gateway.authorize(&kept).await.unwrap();
    // The one that was begun later is decided later.
    let totals = until(&world, |totals| totals.callbacks.delivered == 1).await;
    assert_eq!((totals.charges, totals.voided, totals.sums["BRL"]), (1, 0, 2500));
    let paths: Vec<_> = listener.heard().iter().map(|heard| heard.path.clone()).collect();
    assert_eq!(paths, [format!("/v1/callback/{}", kept.transaction_id)]);
}

#[tokio::test]
async fn refunds_are_summed_and_give_no_more_back_than_was_charged() {
    for protocol in [HttpProtocol::Json, HttpProtocol::Xml] {
        let (world, listener) = (World::new().await, Listener::new().await);
        let gateway = listener.gateway(&world, protocol);
        let charge = request(APPROVED);
        gateway.authorize(&charge).await.unwrap();
        let mut answers = Vec::new();
        for _ in 0..3 {
            answers.push(gateway.refund(&refund_request(charge.reference)).await.unwrap());
        }
        let refused = AuthorizationResult::Declined { reason: "exceeds_charge".into() };
        let is_approved = |answer: &AuthorizationResult| matches!(answer, AuthorizationResult::Approved { .. });
        assert!(is_approved(&answers[0]) && is_approved(&answers[1]) && answers[2] == refused, "{answers:?}");
        let nothing = gateway.refund(&refund_request(request(APPROVED).reference)).await;
        assert_eq!(nothing, Ok(AuthorizationResult::Declined { reason: "not_charged".into() }));
        let totals = world.simulator.totals();
        assert_eq!((totals.sums["BRL"], totals.refunded["BRL"]), (2500, 2000));
        assert_eq!(totals.transactions[&charge.transaction_id].refunded, 2000);
    }
}
