use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// What becomes of one piece of what a client sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It passes.
    None,
    /// It passes, and the connection is cut before the server's answer to it comes back.
    CutAfter,
    /// It passes, and once more on a connection of its own, whose answer nobody gets.
    Twice,
    /// It does not pass, and the connection is cut.
    CutBefore,
    /// It does not pass; this is answered instead, and the connection is closed.
    Answer(&'static str),
    /// It does not pass, and nothing is ever answered.
    Silence,
}

/// A TCP proxy that does to each piece of a client's bytes what a function decides: a lost COMMIT answer, an error of a
/// broker, a time-out, a message sent twice.
pub struct FaultyProxy {
    /// Where it listens.
    pub address: SocketAddr,
    upstream: Arc<Mutex<String>>,
    task: JoinHandle<()>,
}

/// Decides by the bytes of a piece: what one read of the client's stream gave.
type Decide = dyn Fn(&[u8]) -> Fault + Send + Sync;

impl FaultyProxy {
    /// Listens before the server at that address (host:port).
    pub async fn start(upstream: &str, decide: impl Fn(&[u8]) -> Fault + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let upstream = Arc::new(Mutex::new(upstream.to_owned()));
        let (decide, target) = (Arc::new(decide), Arc::clone(&upstream));
        let task = tokio::spawn(async move {
            // Connections end with the proxy.
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let upstream = target.lock().unwrap().clone();
                let decide = Arc::clone(&decide);
                connections.spawn(async move {
                    if let Ok(server) = TcpStream::connect(&upstream).await {
                        let _ = pass(client, server, &upstream, &*decide).await;
                    }
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, upstream, task }
    }

    /// Sends new connections elsewhere: the server came back at another address.
    pub fn point_to(&self, upstream: &str) {
        upstream.clone_into(&mut self.upstream.lock().unwrap());
    }
}

impl Drop for FaultyProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(client: TcpStream, server: TcpStream, upstream: &str, decide: &Decide) -> std::io::Result<()> {
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let mut buffer = vec![0; 256 * 1024];
    let mut answers = vec![0; 64 * 1024];
    let mut repeats = JoinSet::new();
    loop {
        let count = tokio::select! {
            biased;
            count = from_server.read(&mut answers) => match count? {
                0 => return Ok(()),
                count => {
                    to_client.write_all(&answers[..count]).await?;
                    continue;
                }
            },
            count = from_client.read(&mut buffer) => count?,
        };
        let piece = &buffer[..count];
        match if count == 0 { Fault::CutBefore } else { decide(piece) } {
            Fault::None => to_server.write_all(piece).await?,
            Fault::Twice => {
                repeats.spawn(repeat(upstream.to_owned(), piece.to_vec()));
                to_server.write_all(piece).await?;
            }
            Fault::CutAfter => {
                // The server reads what it was sent, and answers to nobody.
                to_server.write_all(piece).await?;
                to_server.shutdown().await?;
                drop((from_client, to_client));
                while from_server.read(&mut answers).await? > 0 {}
                return Ok(());
            }
            Fault::CutBefore => return Ok(()),
            Fault::Answer(text) => return to_client.write_all(text.as_bytes()).await,
            Fault::Silence => std::future::pending().await,
        }
    }
}

/// Sends a request, and reads what is answered for a while.
async fn repeat(upstream: String, request: Vec<u8>) -> std::io::Result<()> {
    let mut server = TcpStream::connect(upstream).await?;
    server.write_all(&request).await?;
    let mut answer = [0; 4096];
    while server.read(&mut answer).await? > 0 {}
    Ok(())
}
