use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::Uri;
use http::uri::Scheme;

/// Where a gateway is, or whom it calls back: `https`, or `http` on this machine, because cards and money are spoken of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayUrl {
    uri: Uri,
    /// Without the slash at its end.
    path: String,
}

/// Not the address of a gateway. Never carries the address, which may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be https:// and a host, perhaps with a port and a path; http:// only for this machine (127.0.0.1)")]
pub struct InvalidUrl;

impl fmt::Display for GatewayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.join(""))
    }
}

impl GatewayUrl {
    /// Whether it is reached over TLS.
    pub fn is_https(&self) -> bool {
        self.uri.scheme() == Some(&Scheme::HTTPS)
    }

    /// Whether there is a path between the host and what is joined to it.
    pub fn has_path(&self) -> bool {
        !self.path.is_empty()
    }

    /// The host: what a log may show.
    pub(crate) fn host(&self) -> &str {
        self.uri.host().unwrap_or_default()
    }

    /// The whole address of a path below it, which begins with a slash.
    ///
    /// ```
    /// let url: psp_gateways::GatewayUrl = "https://psp.example/v1/".parse()?;
    /// assert_eq!(url.join("/callback"), "https://psp.example/v1/callback");
    /// # Ok::<(), psp_gateways::InvalidUrl>(())
    /// ```
    pub fn join(&self, path: &str) -> String {
        let scheme = if self.is_https() { "https" } else { "http" };
        let authority = self.uri.authority().map_or("", http::uri::Authority::as_str);
        format!("{scheme}://{authority}{}{path}", self.path)
    }

    /// The path that is asked for a path below it: never empty.
    pub(crate) fn path_of(&self, path: &str) -> String {
        let joined = format!("{}{path}", self.path);
        if joined.is_empty() { "/".to_owned() } else { joined }
    }

    /// The address with another path.
    pub(crate) fn with_path(&self, path: &str) -> Option<Uri> {
        let mut parts = self.uri.clone().into_parts();
        parts.path_and_query = Some(path.parse().ok()?);
        Uri::from_parts(parts).ok()
    }
}

impl FromStr for GatewayUrl {
    type Err = InvalidUrl;

    fn from_str(s: &str) -> Result<Self, InvalidUrl> {
        let uri: Uri = s.parse().map_err(|_| InvalidUrl)?;
        let host = uri.host().ok_or(InvalidUrl)?;
        let scheme = uri.scheme().ok_or(InvalidUrl)?;
        let safe = *scheme == Scheme::HTTPS || (*scheme == Scheme::HTTP && is_this_machine(host));
        let plain = uri.query().is_none() && !s.contains(['@', '#']) && !host.is_empty();
        if !safe || !plain {
            return Err(InvalidUrl);
        }
        let path = uri.path().trim_end_matches('/').to_owned();
        Ok(Self { uri, path })
    }
}

fn is_this_machine(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_go_over_tls_or_stay_on_this_machine() {
        for right in [
            "https://acquirer.example",
            "https://acquirer.example:8443/v1/",
            "http://127.0.0.1:8080",
            "http://[::1]:1/x",
        ] {
            let url: GatewayUrl = right.parse().unwrap();
            assert_eq!(url.join("/x"), format!("{}/x", right.trim_end_matches('/')));
            assert_eq!(url.has_path(), right.ends_with("v1/") || right.ends_with("/x"), "{right}");
        }
        for wrong in [
            "",
            "acquirer.example",
            "/v1",
            "ftp://127.0.0.1",
            "http://acquirer.example",
            "http://127.0.0.1.acquirer.example",
            "http://localhost.acquirer.example",
            "https://user:password@acquirer.example",
            "https://acquirer.example/?key=1",
            "https://",
        ] {
            assert_eq!(wrong.parse::<GatewayUrl>(), Err(InvalidUrl), "{wrong}");
        }
    }

    #[test]
    fn a_path_is_never_empty() {
        let url = |text: &str| text.parse::<GatewayUrl>().unwrap();
        assert_eq!(url("https://acquirer.example").path_of(""), "/");
        assert_eq!(url("https://acquirer.example/soap/").path_of(""), "/soap");
        assert_eq!(url("https://acquirer.example/v1").path_of("/refunds"), "/v1/refunds");
    }
}
