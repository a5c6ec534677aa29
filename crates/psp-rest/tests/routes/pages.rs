//! Lists by page and by cursor, each customer's own (I6).

use axum::http::StatusCode;
use psp_domain::ports::Store;
use psp_testkit::fixtures;
use serde_json::{Value, json};

use crate::support::{Answer, World, example};

fn ids(answer: &Answer) -> Vec<Value> {
    answer.json().as_array().unwrap().iter().map(|row| row["id"].clone()).collect()
}

/// The path of the next page.
fn next(answer: &Answer) -> Option<String> {
    let link = answer.headers.get("link")?.to_str().unwrap();
    Some(link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap().to_owned())
}

#[tokio::test]
async fn pages_and_cursors_walk_the_same_list_newest_first() {
    let world = World::new();
    let mut newest_first = Vec::new();
    for _ in 0..7 {
        newest_first.insert(0, json!(world.created(&example()).await.id));
    }
    let mut numbered = Vec::new();
    for page in 1..=4 {
        let answer = world.get(&format!("/transactions?page={page}&limit=2")).await;
        assert_eq!(next(&answer).is_some(), page < 4, "the last page has no next one");
        numbered.extend(ids(&answer));
    }
    assert_eq!(numbered, newest_first);
    let mut followed = Vec::new();
    let mut path = Some("/transactions?limit=3".to_owned());
    while let Some(here) = path {
        let answer = world.get(&here).await;
        assert_eq!(answer.status, StatusCode::OK, "{here}");
        followed.extend(ids(&answer));
        path = next(&answer);
    }
    assert_eq!(followed, newest_first);
    assert_eq!(ids(&world.get("/transactions?page=5&limit=2").await), [] as [Value; 0]);
}

#[tokio::test]
async fn bad_pages_are_refused_and_every_fault_is_told() {
    let world = World::new();
    for (query, faults) in [
        ("page=0", &["page"][..]),
        ("page=-1", &["page"]),
        ("page=1001", &["page"]),
        ("page=", &["page"]),
        ("page=99999999999999999999", &["page"]),
        ("limit=0", &["limit"]),
        ("limit=201", &["limit"]),
        ("limit=100000", &["limit"]),
        ("limit=1.5", &["limit"]),
        ("cursor=garbage", &["cursor"]),
        ("cursor=", &["cursor"]),
        ("page=0&limit=0", &["limit", "page"]),
        ("page=x&limit=y&cursor=z", &["cursor", "cursor", "limit", "page"]),
        ("page=1&cursor=01a1fc085b46770d81ce6b6e95afa0a3", &["cursor"]),
        ("page=1&page=2", &["query"]),
    ] {
        for list in ["/transactions", "/payables"] {
            let answer = world.get(&format!("{list}?{query}")).await;
            answer.assert_problem(StatusCode::UNPROCESSABLE_ENTITY);
            assert_eq!(answer.faults(), faults, "{query}");
        }
    }
    let both = world.get_as("", "/payables?limit=0").await;
    assert_eq!(both.faults(), ["limit", "x-customer-id"]);
    assert_eq!(world.get_as("", "/balance?currency=XXX").await.faults(), ["currency", "x-customer-id"]);
    for good in ["limit=200", "page=1000&limit=1", "unknown=1", "cursor=01a1fc085b46770d81ce6b6e95afa0a3"] {
        assert_eq!(world.get(&format!("/transactions?{good}")).await.status, StatusCode::OK, "{good}");
    }
}

#[tokio::test]
async fn a_customer_sees_nothing_of_another() {
    let world = World::new();
    let transaction = world.created(&example()).await;
    world.memory.apply(fixtures::approve(&transaction, world.now())).await.unwrap();
    let payable = world.get("/payables").await.json()[0]["id"].as_str().unwrap().to_owned();
    for path in [format!("/transactions/{}", transaction.id), format!("/payables/{payable}")] {
        assert_eq!(world.get(&path).await.status, StatusCode::OK);
        for stranger in ["1234", "12", "0123"] {
            world.get_as(stranger, &path).await.assert_problem(StatusCode::NOT_FOUND);
        }
    }
    for list in ["/transactions", "/payables"] {
        assert_eq!(world.get_as("456", list).await.text, "[]");
        let cursor = "ffffffff-ffff-7fff-bfff-ffffffffffff";
        assert_eq!(world.get_as("456", &format!("{list}?cursor={cursor}")).await.text, "[]");
    }
    assert_eq!(world.get_as("456", "/balance").await.json()["waiting_funds"], 0);
}
