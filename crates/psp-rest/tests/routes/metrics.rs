//! What the routes count.

use axum::http::StatusCode;
use metrics_exporter_prometheus::PrometheusBuilder;

use crate::support::{World, example};

#[tokio::test]
async fn requests_are_counted_by_method_route_and_status_never_by_what_clients_choose() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let world = World::measured(|_, _| {}, Some(handle));
    for _ in 0..2 {
        assert_eq!(world.post_with_key("key-1", &example()).await.status, StatusCode::CREATED);
    }
    world.post("{}").await;
    let id = "01a1fc08-5b46-770d-81ce-6b6e95afa0a3";
    world.get(&format!("/payables/{id}")).await;
    world.get("/chosen-by-a-client").await;
    let metrics = world.get("/metrics").await;
    assert!(metrics.headers["content-type"].to_str().unwrap().starts_with("text/plain"));
    for line in [
        r#"psp_http_requests_total{route="/transactions",method="POST",status="201"} 2"#,
        r#"psp_http_requests_total{route="/transactions",method="POST",status="422"} 1"#,
        r#"psp_http_requests_total{route="/payables/{id}",method="GET",status="404"} 1"#,
        r#"psp_http_requests_total{route="other",method="any",status="404"} 1"#,
        r#"psp_http_request_duration_seconds_count{route="/transactions",method="POST"} 3"#,
        "psp_http_requests_in_flight 1",
        "psp_idempotency_replays_total 1",
    ] {
        assert!(metrics.text.lines().any(|found| found == line), "{line} is not in\n{}", metrics.text);
    }
    assert!(!metrics.text.contains(id) && !metrics.text.contains("chosen"), "{}", metrics.text);
}

#[tokio::test]
async fn a_process_that_records_no_metrics_has_no_such_page() {
    World::new().get("/metrics").await.assert_problem(StatusCode::NOT_FOUND);
}
