//! Connections to addresses that the guard has judged: to exactly those, so that a name that changes its address between the
//! judgement and the connection changes nothing.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hyper_rustls::ConfigBuilderExt;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use crate::Reach;
use crate::client::Failure;
use crate::names::Names;
use crate::url::EndpointUrl;

/// The most addresses of one name that are tried.
const MAX_ADDRESSES: usize = 4;

/// Finds the addresses of a name.
#[async_trait]
pub trait Resolve: Send + Sync {
    /// The addresses, those to be tried first before the others.
    ///
    /// # Errors
    /// When there is no such name, or nobody who knows.
    async fn resolve(&self, host: &str) -> std::io::Result<Vec<IpAddr>>;
}

/// Asks the operating system. Each question has a thread, also after whoever asked has given up.
#[derive(Debug, Clone, Copy)]
pub struct SystemResolver;

#[async_trait]
impl Resolve for SystemResolver {
    async fn resolve(&self, host: &str) -> std::io::Result<Vec<IpAddr>> {
        let host = host.to_owned();
        let answer = tokio::task::spawn_blocking(move || {
            (host.as_str(), 0).to_socket_addrs().map(|found| found.map(|address| address.ip()).collect())
        });
        answer.await.map_err(std::io::Error::other)?
    }
}

/// TLS with the certificates that this machine trusts, or those of the file that `SSL_CERT_FILE` names.
///
/// # Errors
/// When they cannot be read.
pub fn native_tls() -> std::io::Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider);
    let tls = tls.with_safe_default_protocol_versions().map_err(std::io::Error::other)?;
    Ok(tls.with_native_roots()?.with_no_client_auth())
}

/// A connection, with or without TLS.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

pub(crate) struct Connector {
    pub(crate) names: Names,
    pub(crate) reach: Reach,
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) timeout: Duration,
}

impl Connector {
    /// A connection to one of the host's addresses that may be reached.
    pub(crate) async fn connect(&self, url: &EndpointUrl) -> Result<Box<dyn Stream>, Failure> {
        let by = Instant::now() + self.timeout;
        let addresses = self.addresses(url).await?;
        timeout_at(by, self.connect_to(&addresses, url, by)).await.unwrap_or(Err(Failure::Timeout))
    }

    async fn connect_to(
        &self,
        addresses: &[IpAddr],
        url: &EndpointUrl,
        by: Instant,
    ) -> Result<Box<dyn Stream>, Failure> {
        let tcp = connect_any(addresses, url.port(), by).await?;
        if !url.is_https() {
            return Ok(Box::new(tcp));
        }
        let name = ServerName::try_from(url.host()).map_err(|_| Failure::Tls)?;
        let tls = TlsConnector::from(Arc::clone(&self.tls)).connect(name, tcp).await.map_err(|error| {
            tracing::debug!(error = &error as &dyn std::error::Error, "no TLS");
            Failure::Tls
        })?;
        Ok(Box::new(tls))
    }

    async fn addresses(&self, url: &EndpointUrl) -> Result<Vec<IpAddr>, Failure> {
        let found = match url.address() {
            Some(address) => vec![address],
            // Less than the whole attempt may take, so that it is told whose fault it is when there is no answer.
            None => self.names.addresses(&url.host(), self.timeout * 4 / 5).await?,
        };
        let allowed: Vec<_> = found.into_iter().filter(|address| self.reach.allows(*address)).collect();
        if allowed.is_empty() { Err(Failure::RefusedAddress) } else { Ok(allowed) }
    }
}

/// The first of the addresses that answers; each has its part of the time that is left.
async fn connect_any(addresses: &[IpAddr], port: u16, by: Instant) -> Result<TcpStream, Failure> {
    let mut failure = Failure::Connect;
    let count = addresses.len().min(MAX_ADDRESSES);
    for (left, address) in (1..=count).rev().zip(addresses) {
        let patience = by.saturating_duration_since(Instant::now()) / u32::try_from(left).unwrap_or(1);
        match timeout(patience, TcpStream::connect(SocketAddr::new(*address, port))).await {
            Ok(Ok(stream)) => {
                // A signed request is one small write: it waits for nothing.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(_)) => failure = Failure::Connect,
            Err(_) => failure = Failure::Timeout,
        }
    }
    Err(failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_system_knows_this_machine_and_no_invalid_name() {
        let found = SystemResolver.resolve("localhost").await.unwrap();
        assert!(!found.is_empty() && found.iter().all(IpAddr::is_loopback), "{found:?}");
        // Such a name is nobody's (RFC 6761, section 6.4).
        assert!(SystemResolver.resolve("shop.invalid").await.is_err());
    }
}
