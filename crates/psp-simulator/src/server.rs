use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{MutexGuard, Semaphore};
use tokio::task::JoinSet;
use tower::ServiceExt;

use crate::Simulator;
use crate::callbacks::Due;
use crate::routes::{Lost, router};

/// The most connections at once; more wait in the listener's backlog.
const MAX_CONNECTIONS: usize = 1_024;
/// How long a request's head may take to arrive.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// The wait after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Simulator {
    /// Serves HTTP/1.1 and makes the decisions that come later, until `stop` is ready; then it is gone at once, as a
    /// simulator may.
    ///
    /// # Errors
    /// None while it runs; connections that fail are no failure of it.
    pub async fn serve(self, listener: TcpListener, stop: impl Future<Output = ()> + Send) -> io::Result<()> {
        let router = router(self.clone());
        // Of two servers of one simulator the first makes the decisions.
        let mut decisions = self.decisions.try_lock().ok();
        let mut later = JoinSet::new();
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
        let (places, mut connections) = (Arc::new(Semaphore::new(MAX_CONNECTIONS)), JoinSet::new());
        tokio::pin!(stop);
        loop {
            let place = Arc::clone(&places).acquire_owned();
            let accept = async { (place.await, listener.accept().await) };
            let (place, accepted) = tokio::select! {
                () = &mut stop => return Ok(()),
                Some(_) = connections.join_next() => continue,
                Some(_) = later.join_next() => continue,
                due = next(&mut decisions) => {
                    later.spawn(self.clone().decide(due));
                    continue;
                }
                accepted = accept => accepted,
            };
            let place = place.map_err(io::Error::other)?;
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let _ = stream.set_nodelay(true);
            let router = router.clone();
            let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                let router = router.clone();
                async move {
                    let response = router.oneshot(request.map(Body::new)).await.map_err(io::Error::other)?;
                    // An error closes the connection without a word.
                    let lost = response.extensions().get::<Lost>().is_some();
                    if lost { Err(io::Error::other("the answer is lost")) } else { Ok(response) }
                }
            });
            let connection = http.serve_connection(TokioIo::new(stream), service);
            connections.spawn(async move {
                let _ = connection.await;
                drop(place);
            });
        }
    }
}

/// The next decision that comes later; waits for ever where somebody else makes them.
async fn next(decisions: &mut Option<MutexGuard<'_, UnboundedReceiver<Due>>>) -> Due {
    if let Some(decisions) = decisions
        && let Some(due) = decisions.recv().await
    {
        return due;
    }
    std::future::pending().await
}
