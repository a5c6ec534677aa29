//! A receiver of webhooks that answers as it is told.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Barrier;

pub(crate) type Reply = Response<BoxBody<Bytes, Infallible>>;

/// A request that was heard.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Heard {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

/// Counts what happens.
#[derive(Default)]
struct Notes {
    heard: Mutex<Vec<Heard>>,
    connections: AtomicUsize,
    in_hand: AtomicUsize,
    most_in_hand: AtomicUsize,
}

#[derive(Clone)]
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    notes: Arc<Notes>,
}

/// An answer without more.
pub(crate) fn status(status: u16) -> Reply {
    with_body(status, "")
}

pub(crate) fn with_body(status: u16, body: impl Into<Bytes>) -> Reply {
    Response::builder().status(status).body(Full::new(body.into()).boxed()).unwrap()
}

pub(crate) fn with_header(status: u16, name: &'static str, value: &str) -> Reply {
    let mut reply = with_body(status, "");
    reply.headers_mut().insert(name, value.parse().unwrap());
    reply
}

impl Receiver {
    /// One that gives each request, by its number from 0, what that makes.
    pub(crate) async fn answering(answer: impl Fn(usize) -> BoxFuture<'static, Reply> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Self { address: listener.local_addr().unwrap(), notes: Arc::default() };
        let (notes, answer) = (Arc::clone(&receiver.notes), Arc::new(answer));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, Arc::clone(&notes), Arc::clone(&answer)));
            }
        });
        receiver
    }

    /// One that answers everybody so.
    pub(crate) async fn saying(code: u16) -> Self {
        Self::answering(move |_| Box::pin(async move { status(code) })).await
    }

    /// One that never answers.
    pub(crate) async fn hanging() -> Self {
        Self::answering(|_| Box::pin(std::future::pending())).await
    }

    /// One that says at once that it took everything, and never ends what else it says.
    pub(crate) async fn dripping() -> Self {
        Self::answering(|_| {
            let drop = futures::stream::iter([Ok(Frame::data(Bytes::from_static(b"drip")))]);
            let body = StreamBody::new(drop.chain(futures::stream::pending()));
            Box::pin(async move { Response::new(BodyExt::boxed(body)) })
        })
        .await
    }

    /// One that sends these bytes to whoever connects, once it has heard something, and closes the connection.
    pub(crate) async fn raw(bytes: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Self { address: listener.local_addr().unwrap(), notes: Arc::default() };
        let notes = Arc::clone(&receiver.notes);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                notes.connections.fetch_add(1, Ordering::SeqCst);
                assert_ne!(stream.read(&mut [0; 8_192]).await.unwrap(), 0);
                // The client may have gone when it has enough.
                let _ = stream.write_all(&bytes).await;
            }
        });
        receiver
    }

    /// One that answers the first request of each connection, and hangs up on the second.
    pub(crate) async fn tiring() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Self { address: listener.local_addr().unwrap(), notes: Arc::default() };
        let notes = Arc::clone(&receiver.notes);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                notes.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    let mut heard = [0; 8_192];
                    assert_ne!(stream.read(&mut heard).await.unwrap(), 0);
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
                    let _ = stream.read(&mut heard).await;
                });
            }
        });
        receiver
    }

    /// One whose first two connections answer one request each, once both have one, and nothing afterwards; later ones answer.
    pub(crate) async fn forgetting_two() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Self { address: listener.local_addr().unwrap(), notes: Arc::default() };
        let (notes, both) = (Arc::clone(&receiver.notes), Arc::new(Barrier::new(2)));
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let is_forgotten = notes.connections.fetch_add(1, Ordering::SeqCst) < 2;
                let both = Arc::clone(&both);
                tokio::spawn(async move {
                    let mut heard = [0; 8_192];
                    assert_ne!(stream.read(&mut heard).await.unwrap(), 0);
                    if is_forgotten {
                        both.wait().await;
                    }
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
                    while stream.read(&mut heard).await.is_ok_and(|read| read > 0) {}
                });
            }
        });
        receiver
    }

    /// One over TLS.
    pub(crate) async fn over_tls(config: rustls::ServerConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Self { address: listener.local_addr().unwrap(), notes: Arc::default() };
        let (notes, acceptor) = (Arc::clone(&receiver.notes), tokio_rustls::TlsAcceptor::from(Arc::new(config)));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // The client may refuse the certificate.
                let Ok(stream) = acceptor.accept(stream).await else { continue };
                let answer = |_| -> BoxFuture<'static, Reply> { Box::pin(async { status(204) }) };
                tokio::spawn(serve(stream, Arc::clone(&notes), Arc::new(answer)));
            }
        });
        receiver
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook?shop=1", self.address)
    }

    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.notes.heard.lock().unwrap().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.notes.heard.lock().unwrap().len()
    }

    pub(crate) fn connections(&self) -> usize {
        self.notes.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn in_hand(&self) -> usize {
        self.notes.in_hand.load(Ordering::SeqCst)
    }

    pub(crate) fn most_in_hand(&self) -> usize {
        self.notes.most_in_hand.load(Ordering::SeqCst)
    }
}

async fn serve<S, A>(stream: S, notes: Arc<Notes>, answer: Arc<A>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    A: Fn(usize) -> BoxFuture<'static, Reply> + Send + Sync + 'static,
{
    notes.connections.fetch_add(1, Ordering::SeqCst);
    let service = service_fn(move |request: Request<Incoming>| {
        let (notes, answer) = (Arc::clone(&notes), Arc::clone(&answer));
        async move { Ok::<_, Infallible>(hear(request, &notes, &*answer).await) }
    });
    // The client may have gone when it has enough.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn hear(
    request: Request<Incoming>,
    notes: &Notes,
    answer: &(impl Fn(usize) -> BoxFuture<'static, Reply> + Sync),
) -> Reply {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let number = {
        let mut all = notes.heard.lock().unwrap();
        all.push(Heard { path: head.uri.to_string(), headers: head.headers, body });
        all.len() - 1
    };
    let in_hand = notes.in_hand.fetch_add(1, Ordering::SeqCst) + 1;
    notes.most_in_hand.fetch_max(in_hand, Ordering::SeqCst);
    let reply = answer(number).await;
    notes.in_hand.fetch_sub(1, Ordering::SeqCst);
    reply
}
