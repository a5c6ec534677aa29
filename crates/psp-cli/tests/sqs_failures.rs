//! SQS that takes a part of a batch, or nothing.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_sdk_sqs::config::{Credentials, Region};
use psp_domain::ports::{IdGenerator, Message, Queue, QueueError, SystemClock, UuidV7Generator};
use psp_domain::{MessageId, QueueName};
use psp_sqs::{SqsOptions, SqsQueue};
use psp_testkit::servers::{self, Fault, FaultyProxy};
use serde_json::json;

const QUEUE: QueueName = QueueName::Transactions;

fn message(body: &str) -> Message {
    Message {
        id: MessageId(UuidV7Generator.next_id()),
        queue: QUEUE,
        kind: "test".into(),
        aggregate_id: UuidV7Generator.next_id(),
        body: body.into(),
    }
}

/// The queues behind a proxy that does this to each request to send.
async fn behind(fault: impl Fn(usize) -> Fault + Send + Sync + 'static) -> (Arc<SqsQueue>, FaultyProxy) {
    let place = servers::sqs().await;
    let count = AtomicUsize::new(0);
    let decide = move |piece: &[u8]| {
        let sends = piece.windows(16).any(|window| window == b"SendMessageBatch");
        if sends { fault(count.fetch_add(1, Ordering::Relaxed)) } else { Fault::None }
    };
    let proxy = FaultyProxy::start(place.endpoint.trim_start_matches("http://"), decide).await;
    let credentials = Credentials::new("test", "test", None, None, "test");
    let config = psp_sqs::config().endpoint_url(format!("http://{}", proxy.address)).region(Region::new("us-east-1"));
    let config = config.credentials_provider(credentials).load().await;
    let mut options = SqsOptions::new(place.prefix);
    options.attempt_timeout = Duration::from_millis(500);
    SqsQueue::create(&config, &options).await.unwrap();
    (SqsQueue::open(&config, options, Arc::new(SystemClock)).await.unwrap(), proxy)
}

async fn received(queue: &SqsQueue) -> Vec<String> {
    let deliveries = queue.receive(QUEUE, 10, Duration::from_secs(1)).await.unwrap();
    deliveries.into_iter().map(|delivery| delivery.message.body).collect()
}

/// An answer that takes all entries of three but the second.
fn partly(sender_fault: bool, code: &str, message: &str) -> &'static str {
    let taken = |id: &str, md5: &str| json!({ "Id": id, "MessageId": id, "MD5OfMessageBody": md5 });
    let body = json!({
        "Successful": [taken("0", "c4ca4238a0b923820dcc509a6f75849b"), taken("2", "eccbc87e4b5ce2fe28308fd9f2a7baf3")],
        "Failed": [{ "Id": "1", "SenderFault": sender_fault, "Code": code, "Message": message }],
    })
    .to_string();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/x-amz-json-1.0\r\nconnection: close\r\ncontent-length:";
    format!("{head} {}\r\n\r\n{body}", body.len()).leak()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_was_not_taken_is_sent_again_alone() {
    let first = partly(false, "InternalError", "later");
    let (queue, _proxy) = behind(move |number| if number == 0 { Fault::Answer(first) } else { Fault::None }).await;
    queue.send(vec![message("1"), message("2"), message("3")]).await.unwrap();
    // The first answer was not the server's, so only what was sent again is there.
    assert_eq!(received(&queue).await, ["2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_is_refused_for_good_is_named() {
    let answer = partly(true, "InvalidMessage", "never");
    let (queue, _proxy) = behind(move |_| Fault::Answer(answer)).await;
    let messages = vec![message("1"), message("2"), message("3")];
    let error = queue.send(messages.clone()).await.unwrap_err();
    let QueueError::Refused(refused) = error else { panic!("{error:?}") };
    assert_eq!(refused, [(messages[1].id, "InvalidMessage: never".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_too_large_is_refused_and_the_others_are_sent() {
    let (queue, _proxy) = behind(|_| Fault::None).await;
    let large = message(&"x".repeat(300 * 1024));
    let error = queue.send(vec![message("1"), large.clone(), message("3")]).await.unwrap_err();
    let QueueError::Refused(refused) = error else { panic!("{error:?}") };
    assert_eq!(refused.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [large.id]);
    assert_eq!(received(&queue).await, ["1", "3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_and_errors_are_asked_again() {
    const ERROR: &str = "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let fault = |number| match number {
        0 => Fault::Silence,
        1 => Fault::Answer(ERROR),
        _ => Fault::None,
    };
    let (queue, _proxy) = behind(fault).await;
    queue.send(vec![message("1")]).await.unwrap();
    assert_eq!(received(&queue).await, ["1"]);

    let (queue, _proxy) = behind(|_| Fault::Answer(ERROR)).await;
    let messages = vec![message("1"), message("2")];
    let error = queue.send(messages.clone()).await.unwrap_err();
    let QueueError::Refused(refused) = error else { panic!("{error:?}") };
    assert_eq!(
        refused.iter().map(|(id, _)| *id).collect::<Vec<_>>(),
        messages.iter().map(|m| m.id).collect::<Vec<_>>()
    );
}
