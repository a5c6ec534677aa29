use std::time::Duration;

use psp_domain::ports::{AuthorizationResult, CallbackSignature, DeadLetters, Queue};
use psp_domain::usecases::{Notice, Received};
use psp_domain::{QueueName, TransactionStatus};

use crate::support::*;

const UNSIGNED: CallbackSignature<'static> =
    CallbackSignature { path: "/callback/1", timestamp: None, signature: None, body: b"{}" };

fn completed() -> Notice {
    Notice { gateway_reference: "gw-tx-12345".into(), status: "completed".into(), amount: None, currency: None }
}

#[tokio::test(start_paused = true)]
async fn a_callback_ends_a_pending_payment_and_its_message_is_done() {
    let world = world();
    world.gateway.answer(Duration::ZERO, Ok(AuthorizationResult::Pending { reference: None }));
    let id = world.create().await;
    world.start_transactions();
    world.until_idle(QueueName::Transactions).await;
    assert_eq!(world.transaction(id).await.status, TransactionStatus::Processing);
    world.start_callbacks();
    assert_eq!(world.callbacks().receive(id, completed(), &UNSIGNED).await.unwrap(), Received::Stored);
    world.until(id, TransactionStatus::PendingPayment).await;
    world.until_idle(QueueName::GatewayCallbacks).await;
    assert!(DeadLetters::list(&*world.memory, None, None, 10).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_callback_that_comes_before_any_attempt_waits_for_it() {
    let world = world();
    world.gateway.answer(Duration::ZERO, Ok(AuthorizationResult::Pending { reference: None }));
    let id = world.create().await;
    world.callbacks().receive(id, completed(), &UNSIGNED).await.unwrap();
    world.start_callbacks();
    world.tick().await;
    assert_eq!(world.transaction(id).await.status, TransactionStatus::Processing);
    world.start_transactions();
    world.until(id, TransactionStatus::PendingPayment).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_no_callback_is_put_aside_with_its_reason() {
    let world = world();
    let queue = QueueName::GatewayCallbacks;
    for kind in ["apply_callback", "other"] {
        world.memory.send(vec![message(queue, kind, "{}")]).await.unwrap();
    }
    world.start_callbacks();
    world.until_idle(queue).await;
    let reasons: Vec<_> = DeadLetters::list(&*world.memory, Some(queue), None, 10).await.unwrap();
    let reasons: Vec<_> = reasons.into_iter().map(|letter| letter.reason).collect();
    assert!(reasons[0].contains("no such callback") && reasons[1].contains("other"), "{reasons:?}");
}
