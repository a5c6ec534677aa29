use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;

/// The most connections at once; more wait in the listener's backlog.
const MAX_CONNECTIONS: usize = 8_192;
/// How long a connection may be idle, and a request's headers may take to arrive: slow senders must not hold connections. A
/// load balancer in front must close its idle connections sooner, or it sends a request on one that is just being closed.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(45);
/// How long a client may take none of its answer: one that asks and never reads must not hold a connection.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// The most bytes of a request's line and headers together; more are answered 431.
const MAX_HEADER_BYTES: usize = 32 * 1024;
/// The most headers of a request; more are answered 431.
const MAX_HEADERS: usize = 64;
/// The wait after a failed accept (out of file descriptors, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves HTTP/1.1 until `stop` is ready. Then accepts no more, closes idle connections, and gives the requests under way
/// `grace` to be answered.
///
/// # Errors
/// [`io::ErrorKind::TimedOut`] when requests were still under way at the end of the grace period.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()> + Send + 'static,
    grace: Duration,
) -> io::Result<()> {
    let mut http = http1::Builder::new();
    // No `pipeline_flush`: it closes on requests that cannot be parsed before their answer is sent.
    http.timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .max_header_size(MAX_HEADER_BYTES)
        .max_buf_size(2 * MAX_HEADER_BYTES)
        .max_headers(MAX_HEADERS);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = GracefulShutdown::new();
    tokio::pin!(stop);
    loop {
        let place = tokio::select! {
            biased;
            () = &mut stop => break,
            place = Arc::clone(&places).acquire_owned() => place.map_err(io::Error::other)?,
        };
        let stream = tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match stream {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let _ = TcpStream::set_nodelay(&stream, true);
        let mut stream = Box::pin(TimeoutStream::new(stream));
        stream.as_mut().set_write_timeout_pinned(Some(WRITE_TIMEOUT));
        let service = TowerToHyperService::new(router.clone());
        let connection = connections.watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            // A client that breaks off is no event.
            let _ = connection.await;
            drop(place);
        });
    }
    drop(listener);
    tokio::time::timeout(grace, connections.shutdown())
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "requests were still under way"))
}
