//! Stopping, and what is in hand then.

use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use psp_domain::DeliveryStatus;
use tokio::sync::Semaphore;

use crate::receiver::{Receiver, status};
use crate::support::{Case, LEASE, eventually};

#[tokio::test]
async fn what_is_in_hand_is_finished_and_nothing_more_is_begun() {
    let (case, gate) = (Case::default(), Arc::new(Semaphore::new(0)));
    let held = Arc::clone(&gate);
    let receiver = Receiver::answering(move |_| {
        let held = Arc::clone(&held);
        Box::pin(async move {
            held.acquire().await.unwrap().forget();
            status(200)
        })
    });
    let receiver = receiver.await;
    let (endpoint, _) = case.endpoint(&receiver.url()).await;
    let working = case.start();
    let id = case.event().await;
    eventually(async || receiver.count() == 1).await;
    working.stop.cancel();
    let late = case.event().await;
    assert!(!working.task.is_finished());
    gate.add_permits(10);
    working.task.await.unwrap();
    assert_eq!(case.delivery(id, &endpoint).await.status, DeliveryStatus::Delivered);
    let late = case.delivery(late, &endpoint).await;
    assert!(late.attempts.len() <= 1 && receiver.count() == 1 + late.attempts.len(), "{late:?}");
}

#[tokio::test]
async fn what_hangs_beyond_the_grace_is_left_to_its_lease() {
    let (mut case, receiver) = (Case::default(), Receiver::hanging().await);
    case.options.grace = Duration::from_millis(50);
    let (endpoint, _) = case.endpoint(&receiver.url()).await;
    let working = case.start();
    let id = case.event().await;
    eventually(async || receiver.count() == 1).await;
    working.stop.cancel();
    working.task.await.unwrap();
    let delivery = case.delivery(id, &endpoint).await;
    assert_eq!((delivery.status, delivery.attempts.len()), (DeliveryStatus::Pending, 0));
    let _working = case.start();
    case.clock.advance(LEASE);
    eventually(async || receiver.count() == 2).await;
}

#[test]
fn deliveries_are_counted_and_timed() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            let case = Case::default();
            let receiver =
                Receiver::answering(|n| Box::pin(async move { status(if n == 0 { 500 } else { 200 }) })).await;
            let (endpoint, _) = case.endpoint(&receiver.url()).await;
            let working = case.start();
            let first = case.event().await;
            case.attempted(first, &endpoint, 1).await;
            case.clock.advance(Duration::from_secs(5));
            case.attempted(first, &endpoint, 2).await;
            case.attempted(case.event().await, &endpoint, 1).await;
            working.stop.cancel();
            working.task.await.unwrap();
        });
    });
    let text = handle.render();
    for line in [
        "psp_webhook_deliveries_total{outcome=\"delivered\"} 2",
        "psp_webhook_deliveries_total{outcome=\"retried\"} 1",
        "psp_webhook_deliveries_total{outcome=\"failed\"} 0",
        "psp_webhook_in_flight 0",
        "psp_webhook_duration_seconds_count 3",
        "psp_webhook_latency_seconds_count 1",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}
