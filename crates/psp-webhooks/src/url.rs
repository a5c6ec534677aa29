use std::net::IpAddr;

use psp_domain::ports::UrlPolicy;
use psp_domain::{CardNumber, WebhookEndpoint};
use url::form_urlencoded;
use url::{Host, Position, Url};

use crate::Reach;

/// Where an endpoint is. `Debug` shows neither path nor query, which may hold a secret.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct EndpointUrl(Url);

/// Why nothing is delivered to a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUrl {
    /// It is none.
    #[error("must be a URL such as https://shop.example/webhooks")]
    NotAUrl,
    /// It is too long.
    #[error("must have at most {} bytes", WebhookEndpoint::URL_MAX_LEN)]
    TooLong,
    /// It is not reached over TLS.
    #[error("must begin with https://")]
    NotHttps,
    /// It has a name or a password in it.
    #[error("must not hold a user's name or password")]
    UserInfo,
    /// It has a part that is never sent.
    #[error("must not hold a fragment (#)")]
    Fragment,
    /// Nothing but the port of HTTPS is reached on the public Internet.
    #[error("must be at port 443")]
    Port,
    /// It would be kept and logged in the clear.
    #[error("must not hold a card number")]
    CardNumber,
    /// Its host is not of the public Internet.
    #[error("must not be an address of a private network, or of this machine")]
    RefusedAddress,
}

/// Judges the URLs of endpoints by where they may be.
#[derive(Debug, Clone, Copy)]
pub struct UrlRules {
    /// Where they may be.
    pub reach: Reach,
}

impl UrlPolicy for UrlRules {
    fn check(&self, url: &str) -> Result<String, String> {
        match EndpointUrl::parse(url, self.reach) {
            Ok(EndpointUrl(url)) => Ok(url.into()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl std::fmt::Debug for EndpointUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EndpointUrl({})", self.origin())
    }
}

impl EndpointUrl {
    /// An address is judged at once, however it is written; a name when it is connected to.
    pub(crate) fn parse(text: &str, reach: Reach) -> Result<Self, InvalidUrl> {
        if text.len() > WebhookEndpoint::URL_MAX_LEN {
            return Err(InvalidUrl::TooLong);
        }
        let url = Url::parse(text).map_err(|_| InvalidUrl::NotAUrl)?;
        let is_at_home = reach == Reach::Loopback && is_loopback(&url);
        if url.scheme() != "https" && (url.scheme() != "http" || !is_at_home) {
            return Err(InvalidUrl::NotHttps);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidUrl::UserInfo);
        }
        if url.fragment().is_some() {
            return Err(InvalidUrl::Fragment);
        }
        if url.as_str().len() > WebhookEndpoint::URL_MAX_LEN {
            return Err(InvalidUrl::TooLong);
        }
        if holds_card_number(&url) {
            return Err(InvalidUrl::CardNumber);
        }
        let allowed = match url.host().ok_or(InvalidUrl::NotAUrl)? {
            Host::Domain(name) => reach == Reach::Loopback || !is_local_name(name),
            Host::Ipv4(address) => reach.allows(address.into()),
            Host::Ipv6(address) => reach.allows(address.into()),
        };
        if !allowed {
            return Err(InvalidUrl::RefusedAddress);
        }
        // The default port is none.
        if url.port().is_some() && !is_at_home { Err(InvalidUrl::Port) } else { Ok(Self(url)) }
    }

    pub(crate) fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// Scheme, host and port: who shares connections.
    pub(crate) fn origin(&self) -> String {
        self.0.origin().ascii_serialization()
    }

    /// The host, without the brackets of an IPv6 address.
    pub(crate) fn host(&self) -> String {
        let host = self.0.host_str().unwrap_or_default();
        host.trim_start_matches('[').trim_end_matches(']').to_owned()
    }

    /// The host, where it is an address.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        match self.0.host()? {
            Host::Domain(_) => None,
            Host::Ipv4(address) => Some(address.into()),
            Host::Ipv6(address) => Some(address.into()),
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.port_or_known_default().unwrap_or(443)
    }

    /// The value of the header `host`.
    pub(crate) fn authority(&self) -> &str {
        &self.0[Position::BeforeHost..Position::AfterPort]
    }

    /// The path with its query: never empty.
    pub(crate) fn path(&self) -> &str {
        &self.0[Position::BeforePath..Position::AfterQuery]
    }
}

/// Whether its host is this machine, by its name or its address.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => is_local_name(name),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.to_canonical().is_loopback(),
        None => false,
    }
}

/// Whether a segment of its path, or a name or a value of its query, is a card number as a whole.
fn holds_card_number(url: &Url) -> bool {
    let segments = url.path_segments().into_iter().flatten();
    segments
        .chain(url.query())
        .flat_map(|part| form_urlencoded::parse(part.as_bytes()))
        .any(|(name, value)| CardNumber::is_all_of(&name) || CardNumber::is_all_of(&value))
}

/// Names that are this machine's wherever they are asked for (RFC 6761).
fn is_local_name(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(reach: Reach, url: &str) -> Result<String, InvalidUrl> {
        EndpointUrl::parse(url, reach).map(|url| url.0.into())
    }

    #[test]
    fn urls_are_kept_as_they_are_sent() {
        for (given, kept) in [
            ("https://shop.example", "https://shop.example/"),
            ("https://Shop.Example:443/a?b=c", "https://shop.example/a?b=c"),
            ("https://shop.example/a/../b", "https://shop.example/b"),
            ("https://bücher.example/", "https://xn--bcher-kva.example/"),
            ("https://8.8.8.8/", "https://8.8.8.8/"),
            ("https://[2606:4700::1111]:443/", "https://[2606:4700::1111]/"),
        ] {
            assert_eq!(check(Reach::Public, given), Ok(kept.to_owned()));
        }
    }

    #[test]
    fn what_nothing_may_be_delivered_to_is_told() {
        let long = format!("https://shop.example/{}", "a".repeat(2_028));
        assert_eq!(long.len(), 2_049);
        assert!(check(Reach::Public, &long[..2_048]).is_ok());
        let grows = format!("https://shop.example/{}", "ü".repeat(1_000));
        for (url, fault) in [
            ("", InvalidUrl::NotAUrl),
            ("shop.example", InvalidUrl::NotAUrl),
            ("https://", InvalidUrl::NotAUrl),
            (long.as_str(), InvalidUrl::TooLong),
            (grows.as_str(), InvalidUrl::TooLong),
            ("http://shop.example/", InvalidUrl::NotHttps),
            ("ftp://shop.example/", InvalidUrl::NotHttps),
            ("file:///etc/passwd", InvalidUrl::NotHttps),
            ("https://user@shop.example/", InvalidUrl::UserInfo),
            ("https://:password@shop.example/", InvalidUrl::UserInfo),
            ("https://shop.example/#part", InvalidUrl::Fragment),
            ("https://shop.example:8443/", InvalidUrl::Port),
            ("https://shop.example:80/", InvalidUrl::Port),
            ("https://8.8.8.8:22/", InvalidUrl::Port),
            ("https://localhost/", InvalidUrl::RefusedAddress),
            ("https://shop.localhost./", InvalidUrl::RefusedAddress),
        ] {
            assert_eq!(check(Reach::Public, url), Err(fault), "{url}");
        }
    }

    #[test]
    fn an_address_is_judged_however_it_is_written() {
        for url in [
            "https://127.0.0.1/",
            "https://2130706433/",
            "https://0x7f000001/",
            "https://0177.0.0.1/",
            "https://127.1/",
            "https://0/",
            "https://１２７.0.0.1/",
            "https://169.254.169.254/latest/meta-data",
            "https://0xa9fea9fe/",
            "https://[::1]/",
            "https://[::ffff:7f00:1]/",
            "https://[64:ff9b::10.0.0.1]/",
            "https://[fd00:ec2::254]/",
        ] {
            assert_eq!(check(Reach::Public, url), Err(InvalidUrl::RefusedAddress), "{url}");
        }
    }

    #[test]
    fn this_machine_is_reached_where_that_is_allowed_and_all_others_as_anywhere() {
        for url in [
            "http://127.0.0.1:8080/x",
            "http://localhost/",
            "http://shop.localhost:8080/",
            "https://[::1]/",
            "http://[::ffff:7f00:1]:8080/",
            "https://shop.localhost:8443/",
            "https://shop.example/",
        ] {
            assert_eq!(check(Reach::Loopback, url).as_deref(), Ok(url));
        }
        for (url, fault) in [
            ("http://10.0.0.1/", InvalidUrl::NotHttps),
            ("http://8.8.8.8/", InvalidUrl::NotHttps),
            ("http://shop.example/", InvalidUrl::NotHttps),
            ("http://localhost.shop.example/", InvalidUrl::NotHttps),
            ("https://shop.example:8443/", InvalidUrl::Port),
            ("https://10.0.0.1/", InvalidUrl::RefusedAddress),
            ("ftp://127.0.0.1/", InvalidUrl::NotHttps),
        ] {
            assert_eq!(check(Reach::Loopback, url), Err(fault), "{url}");
        }
    }

    #[test]
    fn no_part_of_it_is_a_card_number() {
        for url in [
            "https://shop.example/4111111111111111",
            "https://shop.example/of/4111-1111-1111-1111/hook",
            "https://shop.example/of/4111%201111%201111%201111",
            "https://shop.example/of/%34111111111111111",
            "https://shop.example/of/a=4111111111111111",
            "https://shop.example/?card=4111111111111111",
            "https://shop.example/?a=b&card=4111+1111+1111+1111",
            "https://shop.example/?4111111111111111",
            "https://shop.example/?4111%2D1111%2D1111%2D1111=a",
        ] {
            assert_eq!(check(Reach::Public, url), Err(InvalidUrl::CardNumber), "{url}");
        }
        for url in ["https://shop.example/4111111111111112", "https://shop.example/01a1fc23?at=1769860800123"] {
            assert_eq!(check(Reach::Public, url).as_deref(), Ok(url));
        }
    }

    #[test]
    fn neither_path_nor_query_is_shown() {
        let url = EndpointUrl::parse("https://shop.localhost:8443/hidden?key=hidden", Reach::Loopback).unwrap();
        assert_eq!(format!("{url:?}"), "EndpointUrl(https://shop.localhost:8443)");
        assert_eq!((url.authority(), url.path(), url.port()), ("shop.localhost:8443", "/hidden?key=hidden", 8443));
    }
}
