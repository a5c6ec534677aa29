use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::ensure;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use psp_webhooks::ID_HEADER;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use uuid::Uuid;

/// Receivers, as many ports of this machine, served by a thread of their own: all take what comes and answer, at once or
/// after a while, but for the first while it is silent.
pub(super) struct Receivers {
    pub(super) addresses: Vec<SocketAddr>,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    count: AtomicU64,
    first_is_silent: AtomicBool,
    latency_ms: AtomicU64,
    records: AtomicBool,
    arrivals: Mutex<Vec<(Uuid, Instant)>>,
}

impl Receivers {
    pub(super) fn start(count: usize) -> anyhow::Result<Self> {
        let bind = || std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let listeners = (0..count).map(|_| bind()).collect::<Result<Vec<_>, _>>()?;
        let addresses = listeners.iter().map(std::net::TcpListener::local_addr).collect::<Result<_, _>>()?;
        let (seen, runtime) = (Arc::new(Seen::default()), Builder::new_current_thread().enable_all().build()?);
        for (number, listener) in listeners.into_iter().enumerate() {
            listener.set_nonblocking(true)?;
            let _context = runtime.enter();
            runtime.spawn(accept(TcpListener::from_std(listener)?, number, Arc::clone(&seen)));
        }
        std::thread::Builder::new()
            .name("receivers".to_owned())
            .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
        Ok(Self { addresses, seen })
    }

    pub(super) fn url(&self, number: usize) -> String {
        format!("http://{}/webhooks", self.addresses[number])
    }

    /// How many have arrived.
    pub(super) fn count(&self) -> u64 {
        self.seen.count.load(Ordering::Relaxed)
    }

    /// Waits until so many have arrived.
    pub(super) async fn await_count(&self, count: u64, patience: Duration) -> anyhow::Result<()> {
        let begun = Instant::now();
        while self.count() < count {
            ensure!(begun.elapsed() < patience, "{} deliveries of {count} arrived", self.count());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// Whether the first takes what comes and does not answer.
    pub(super) fn silence_first(&self, is_silent: bool) {
        self.seen.first_is_silent.store(is_silent, Ordering::Relaxed);
    }

    /// How long each takes for an answer.
    pub(super) fn set_latency_ms(&self, latency_ms: u64) {
        self.seen.latency_ms.store(latency_ms, Ordering::Relaxed);
    }

    /// From now on remembers what arrives, and when.
    pub(super) fn record(&self) {
        self.arrivals();
        self.seen.records.store(true, Ordering::Relaxed);
    }

    /// What has arrived since it was asked last.
    pub(super) fn arrivals(&self) -> Vec<(Uuid, Instant)> {
        std::mem::take(&mut *self.seen.arrivals.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn accept(listener: TcpListener, number: usize, seen: Arc<Seen>) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let seen = Arc::clone(&seen);
        let service = service_fn(move |request| answer(request, number, Arc::clone(&seen)));
        // A connection that ends is none of the receiver's business.
        tokio::spawn(async move { http1::Builder::new().serve_connection(TokioIo::new(stream), service).await });
    }
}

async fn answer(
    request: Request<Incoming>,
    number: usize,
    seen: Arc<Seen>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if number == 0 && seen.first_is_silent.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
    let latency_ms = seen.latency_ms.load(Ordering::Relaxed);
    if latency_ms > 0 {
        tokio::time::sleep(Duration::from_millis(latency_ms)).await;
    }
    let (head, body) = request.into_parts();
    // What breaks off did not arrive: nobody waits for its answer.
    if body.collect().await.is_ok() {
        seen.count.fetch_add(1, Ordering::Relaxed);
        let id = head.headers.get(ID_HEADER).and_then(|id| Uuid::try_parse_ascii(id.as_bytes()).ok());
        if let Some(id) = id.filter(|_| seen.records.load(Ordering::Relaxed)) {
            seen.arrivals.lock().unwrap_or_else(PoisonError::into_inner).push((id, Instant::now()));
        }
    }
    Ok(Response::new(Full::new(Bytes::from_static(b"{\"received\":true}"))))
}
