//! The gateway over HTTP while the acquirer has its faults: whatever is lost, a transaction is charged once or not at all.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use psp_domain::ports::{AuthorizationResult, Clock, Gateway, GatewayError, SystemClock, VOIDED};
use psp_gateways::TEST_CARDS;
use psp_simulator::{Behaviour, BehaviourChange, ReferenceTotals};
use psp_testkit::clock::FixedClock;
use psp_testkit::contract::gateway::request;
use psp_testkit::servers::{Fault, FaultyProxy};
use support::{World, key};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const APPROVED: &str = "4111111111111111";

fn losing(rate: f64) -> BehaviourChange {
    BehaviourChange { lost_rate: Some(rate), ..BehaviourChange::default() }
}

fn unavailable<T>(answer: &Result<T, GatewayError>) -> bool {
    matches!(answer, Err(GatewayError::Unavailable(_)))
}

#[tokio::test]
async fn an_answer_lost_after_charging_is_found_and_given_again_and_charged_once() {
    let world = World::new().await;
    let (gateway, request) = (world.gateway(), request(APPROVED));
    let id = request.reference;
    world.simulator.change(&losing(1.0)).unwrap();
    assert_eq!(gateway.authorize(&request).await, Err(GatewayError::TimedOut));
    assert_eq!(world.simulator.totals().sums["BRL"], 2500, "it has charged");
    world.simulator.change(&losing(0.0)).unwrap();
    let approved = AuthorizationResult::Approved { reference: format!("simulator-{id}"), amount: Some(request.amount) };
    assert_eq!(gateway.find(id).await, Ok(Some(approved.clone())));
    assert_eq!(gateway.authorize(&request).await, Ok(approved));
    let totals = world.simulator.totals();
    assert_eq!(totals.references[&id], ReferenceTotals { requests: 2, charges: 1, voided: false });
    assert_eq!((totals.charges, totals.sums["BRL"]), (1, 2500));
}

#[tokio::test]
async fn a_request_that_arrives_twice_or_after_its_void_does_not_charge_again() {
    let world = World::new().await;
    let twice = FaultyProxy::start(&world.address, |_| Fault::Twice).await;
    let url = format!("http://{}", twice.address).parse().unwrap();
    let gateway = world.gateway_with(|options| options.url = url);
    let (once, late) = (request(APPROVED), request(APPROVED));
    assert!(matches!(gateway.authorize(&once).await, Ok(AuthorizationResult::Approved { .. })));
    gateway.void(late.reference).await.unwrap();
    let voided = AuthorizationResult::Declined { reason: VOIDED.into() };
    assert_eq!(gateway.authorize(&late).await, Ok(voided));
    let begun = Instant::now();
    while world.simulator.totals().references[&once.reference].requests < 2 {
        assert!(begun.elapsed() < Duration::from_secs(10), "the second one does not arrive");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let totals = world.simulator.totals();
    assert_eq!((totals.charges, totals.sums["BRL"]), (1, 2500));
}

#[tokio::test]
async fn an_answer_that_comes_too_late_is_found() {
    let world = World::new().await;
    let request = request("4000000000003220");
    let hasty = world.gateway_with(|options| options.timeout = Duration::from_millis(200));
    assert_eq!(hasty.authorize(&request).await, Err(GatewayError::TimedOut));
    assert!(matches!(hasty.find(request.reference).await, Ok(Some(AuthorizationResult::Approved { .. }))));
}

#[tokio::test]
async fn a_voided_charge_is_given_back_also_when_the_answer_to_the_void_is_lost() {
    let world = World::new().await;
    let (gateway, request) = (world.gateway(), request(APPROVED));
    gateway.authorize(&request).await.unwrap();
    world.simulator.change(&losing(1.0)).unwrap();
    assert_eq!(gateway.void(request.reference).await, Err(GatewayError::TimedOut));
    world.simulator.change(&losing(0.0)).unwrap();
    gateway.void(request.reference).await.unwrap();
    let voided = AuthorizationResult::Declined { reason: VOIDED.into() };
    assert_eq!(gateway.authorize(&request).await, Ok(voided));
    let totals = world.simulator.totals();
    assert_eq!((totals.charges, totals.voided, totals.sums.len()), (1, 1, 0));
}

#[tokio::test]
async fn an_outage_and_errors_take_nothing() {
    let world = World::new().await;
    let (gateway, request) = (world.gateway(), request(APPROVED));
    let outage = BehaviourChange { outage: Some(true), ..BehaviourChange::default() };
    let errors = BehaviourChange { outage: Some(false), error_rate: Some(1.0), ..BehaviourChange::default() };
    for change in [outage, errors] {
        world.simulator.change(&change).unwrap();
        assert!(unavailable(&gateway.authorize(&request).await));
        assert!(unavailable(&gateway.find(request.reference).await));
        assert!(unavailable(&gateway.void(request.reference).await));
    }
    assert_eq!(world.simulator.totals(), psp_simulator::Totals::default());
}

#[tokio::test]
async fn forged_and_stale_signatures_are_refused() {
    let world = World::new().await;
    let request = request(APPROVED);
    let forger = world.gateway_with(|options| options.key = key("another secret, which is long enough, too"));
    // Its clock stands still in January.
    let clock = Arc::new(FixedClock::default());
    assert!((SystemClock.now() - clock.now()).num_hours().abs() > 1);
    let stale = world.gateway_by(clock, |_| ());
    for gateway in [forger, stale] {
        let refused = GatewayError::Refused("answered 401".into());
        assert_eq!(gateway.authorize(&request).await, Err(refused.clone()));
        assert_eq!(gateway.find(request.reference).await, Err(refused.clone()));
        assert_eq!(gateway.void(request.reference).await, Err(refused));
    }
    let answer = ask(&world, "POST /authorizations", "{}").await;
    assert!(answer.contains("401") && answer.contains("signature_required"), "{answer}");
    assert_eq!(world.simulator.totals(), psp_simulator::Totals::default());
}

#[tokio::test]
async fn the_cards_of_the_sandbox_mean_the_same_here() {
    use psp_gateways::Behaviour as Card;
    let world = World::new().await;
    let gateway = world.gateway();
    for card in TEST_CARDS {
        let request = request(card.number);
        let first = gateway.authorize(&request).await;
        let second = gateway.authorize(&request).await;
        let is_approved = |answer: &Result<_, _>| matches!(answer, Ok(AuthorizationResult::Approved { .. }));
        match card.behaviour {
            Card::Approve | Card::ApproveSlowly => assert!(is_approved(&first) && second == first),
            Card::Decline(reason) => {
                assert_eq!(first, Ok(AuthorizationResult::Declined { reason: reason.into() }));
                assert_eq!(second, first);
            }
            Card::FailOnce => assert!(unavailable(&first) && is_approved(&second)),
            Card::FailAlways => assert!(unavailable(&first) && unavailable(&second)),
        }
    }
    assert_eq!(world.simulator.totals().charges, 3);
}

/// Asks without a signature; the whole answer.
async fn ask(world: &World, line: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(&world.address).await.unwrap();
    let length = body.len();
    let request = format!(
        "{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn the_admin_routes_change_the_behaviour_and_tell_the_totals() {
    let world = World::new().await;
    let answer = ask(&world, "PATCH /admin/behaviour", r#"{"error_rate":0.5,"latency_ms":3}"#).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let expected = Behaviour { error_rate: 0.5, latency_ms: 3, ..Behaviour::default() };
    assert_eq!(world.simulator.behaviour(), expected);
    for wrong in [r#"{"error_rate":2}"#, r#"{"latency":3}"#, r#"{"outage":"yes"}"#] {
        let answer = ask(&world, "PATCH /admin/behaviour", wrong).await;
        assert!(answer.starts_with("HTTP/1.1 422"), "{wrong}: {answer}");
    }
    assert_eq!(world.simulator.behaviour(), expected);
    assert!(ask(&world, "GET /admin/behaviour", "").await.contains(r#""error_rate":0.5"#));
    let totals = ask(&world, "GET /admin/totals", "").await;
    let totals: psp_simulator::Totals = serde_json::from_str(totals.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(totals, psp_simulator::Totals::default());
}

#[tokio::test]
async fn the_same_seed_has_the_same_chances() {
    let fates = || async {
        let world = World::new().await;
        let change = BehaviourChange { error_rate: Some(0.3), lost_rate: Some(0.3), ..BehaviourChange::default() };
        world.simulator.change(&change).unwrap();
        let (gateway, mut fates) = (world.gateway(), Vec::new());
        for _ in 0..30 {
            fates.push(gateway.authorize(&request(APPROVED)).await.map(drop));
        }
        fates
    };
    let (one, other) = (fates().await, fates().await);
    assert_eq!(one, other);
    for kind in [Ok(()), Err(GatewayError::TimedOut), Err(GatewayError::Unavailable("answered 503".into()))] {
        assert!(one.contains(&kind), "{kind:?} never happens");
    }
}
