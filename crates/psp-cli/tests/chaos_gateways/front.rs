//! What stands before the APIs for the gateways: gives callbacks to one API after the other, and keeps what was told and
//! answered.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use crate::support::Client;

/// A callback that was answered.
#[derive(Clone)]
pub(crate) struct Told {
    /// The transaction's id.
    pub(crate) id: uuid::Uuid,
    pub(crate) body: Value,
    pub(crate) answered: StatusCode,
}

type Kept = Arc<Mutex<Vec<Told>>>;

pub(crate) struct Front {
    /// Where gateways reach it.
    pub(crate) address: String,
    told: Kept,
    task: JoinHandle<()>,
}

impl Front {
    pub(crate) async fn start(apis: Vec<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let told = Kept::default();
        let kept = Arc::clone(&told);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            for api in apis.iter().cycle() {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (api, kept) = (api.clone(), Arc::clone(&kept));
                let service = hyper::service::service_fn(move |request| pass(api.clone(), Arc::clone(&kept), request));
                let http = hyper::server::conn::http1::Builder::new();
                connections.spawn(http.serve_connection(TokioIo::new(stream), service));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, told, task }
    }

    /// Every callback that was answered until now.
    pub(crate) fn told(&self) -> Vec<Told> {
        self.told.lock().unwrap().clone()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(api: String, kept: Kept, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let answer = forward(&api, &kept, request).await;
    Ok(answer.unwrap_or_else(|| respond(StatusCode::BAD_GATEWAY, String::new())))
}

/// The answer of the API; `None` where it gives none.
async fn forward(api: &str, kept: &Kept, request: Request<Incoming>) -> Option<Response<Full<Bytes>>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.ok()?.to_bytes();
    let id = parts.uri.path().strip_prefix("/callback/")?.parse().ok()?;
    let told = serde_json::from_slice(&body).ok()?;
    let mut client = Client::connect(api).await.ok()?;
    let answer = client.send(Request::from_parts(parts, Full::new(body))).await.ok()?;
    kept.lock().unwrap().push(Told { id, body: told, answered: answer.status });
    Some(respond(answer.status, answer.text))
}

fn respond(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
}
