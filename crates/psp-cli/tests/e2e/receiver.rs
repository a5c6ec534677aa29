//! A merchant's server: it keeps what it hears, answers as it is told, and verifies signatures by hand, with nothing of psp's.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use ring::hmac;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::support::{PATIENCE, pause};

/// A request that was heard.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// A server on this machine.
pub(crate) struct Receiver {
    pub(crate) url: String,
    heard: Arc<Mutex<Vec<Heard>>>,
    status: Arc<AtomicU16>,
}

impl Heard {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn id(&self) -> String {
        self.header("webhook-id").to_owned()
    }

    /// Which of the signatures is that of this secret: Standard Webhooks 1.0.0.
    pub(crate) fn signed_by(&self, secret: &str) -> Option<usize> {
        let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        assert_eq!(key.len(), 32);
        let head = format!("{}.{}.", self.header("webhook-id"), self.header("webhook-timestamp"));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), &[head.as_bytes(), &self.body].concat());
        let signature = format!("v1,{}", STANDARD.encode(tag));
        self.header("webhook-signature").split(' ').position(|part| part == signature)
    }
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/webhooks", listener.local_addr().unwrap());
        let receiver = Self { url, heard: Arc::default(), status: Arc::new(AtomicU16::new(200)) };
        let (heard, status) = (Arc::clone(&receiver.heard), Arc::clone(&receiver.status));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (heard, status) = (Arc::clone(&heard), Arc::clone(&status));
                let service = service_fn(move |request| hear(request, Arc::clone(&heard), Arc::clone(&status)));
                let server = hyper::server::conn::http1::Builder::new();
                tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
            }
        });
        receiver
    }

    /// What it answers from now on.
    pub(crate) fn answer(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }

    /// The ids of the events that it heard.
    pub(crate) fn ids(&self) -> BTreeSet<String> {
        self.heard().iter().map(Heard::id).collect()
    }

    /// Waits until it has heard that many requests; all of them.
    pub(crate) async fn await_heard(&self, wanted: usize) -> Vec<Heard> {
        let begun = Instant::now();
        loop {
            let heard = self.heard();
            if heard.len() >= wanted {
                return heard;
            }
            assert!(begun.elapsed() < PATIENCE, "{} of {wanted} were heard", heard.len());
            pause().await;
        }
    }

    /// Waits until it has heard of that event so often; the latest of them.
    pub(crate) async fn await_event(&self, id: &str, times: usize) -> Heard {
        let begun = Instant::now();
        loop {
            let of_event: Vec<_> = self.heard().into_iter().filter(|heard| heard.id() == id).collect();
            if of_event.len() >= times {
                return of_event.last().unwrap().clone();
            }
            assert!(begun.elapsed() < PATIENCE, "heard {} of {times} times", of_event.len());
            pause().await;
        }
    }
}

async fn hear(
    request: Request<Incoming>,
    heard: Arc<Mutex<Vec<Heard>>>,
    status: Arc<AtomicU16>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let status = status.load(Ordering::SeqCst);
    // A sender that was killed may have sent the half.
    if let Ok(body) = body.collect().await {
        heard.lock().unwrap().push(Heard { headers: parts.headers, body: body.to_bytes() });
    }
    Ok(Response::builder().status(status).body(Full::from(format!("answered {status}"))).unwrap())
}
