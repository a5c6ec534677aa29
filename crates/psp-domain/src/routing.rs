//! Which gateways are asked for a transaction, and in which order.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{Currency, PaymentMethod, Transaction, TransactionKind};

/// Names a gateway: 1 to 64 of `a` to `z`, digits, `_` and `-`, beginning with a letter.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(transparent)]
pub struct GatewayName(Arc<str>);

/// Not the name of a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to {} of a-z, 0-9, _ and -, beginning with a letter", GatewayName::MAX_LEN)]
pub struct InvalidGatewayName;

impl GatewayName {
    /// The largest length, in bytes.
    pub const MAX_LEN: usize = 64;

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for GatewayName {
    type Err = InvalidGatewayName;

    fn from_str(s: &str) -> Result<Self, InvalidGatewayName> {
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
        let begins = s.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
        let is_name = begins && s.len() <= Self::MAX_LEN && s.bytes().all(fits);
        if is_name { Ok(Self(s.into())) } else { Err(InvalidGatewayName) }
    }
}

impl fmt::Display for GatewayName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A country by its two letters (ISO 3166-1 alpha-2).
///
/// ```
/// use psp_domain::Country;
/// assert_eq!("BR".parse::<Country>().map(|c| c.to_string()), Ok("BR".to_owned()));
/// assert!("XX".parse::<Country>().is_err());
/// assert!("br".parse::<Country>().is_err());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Country(&'static str);

/// Not a country.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a country by two capital letters (ISO 3166-1 alpha-2)")]
pub struct InvalidCountry;

impl Country {
    /// The two letters.
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

impl FromStr for Country {
    type Err = InvalidCountry;

    fn from_str(s: &str) -> Result<Self, InvalidCountry> {
        let is_code = s.len() == 2 && s.bytes().all(|b| b.is_ascii_uppercase());
        let found = if is_code { rust_iso3166::from_alpha2(s) } else { None };
        found.map(|country| Self(country.alpha2)).ok_or(InvalidCountry)
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl fmt::Debug for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Country({})", self.0)
    }
}

/// What a gateway speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GatewayProtocol {
    /// None: it decides in this process, by test cards.
    Sandbox,
    /// JSON over HTTP.
    Json,
    /// XML in SOAP envelopes over HTTP.
    Xml,
}

impl GatewayProtocol {
    /// Every protocol.
    pub const ALL: [Self; 3] = [Self::Sandbox, Self::Json, Self::Xml];

    /// The name in the API and the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sandbox => "sandbox",
            Self::Json => "json",
            Self::Xml => "xml",
        }
    }

    /// The protocol of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.as_str() == name)
    }
}

/// A gateway as it is kept in the store. Its secret is not: that comes from the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayRecord {
    /// Its name.
    pub name: GatewayName,
    /// What it speaks.
    pub protocol: GatewayProtocol,
    /// Where it is; empty for the sandbox.
    pub url: String,
    /// Whether it is asked for new transactions. What it was asked before is still found, voided and called back.
    pub enabled: bool,
    /// When it was added.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

/// For which transactions a gateway is asked. A criterion that is absent fits all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The gateway.
    pub gateway: GatewayName,
    /// The order of attempts: the lowest first.
    pub priority: u16,
    /// The payer's country.
    pub country: Option<Country>,
    /// What the transaction is for.
    pub kind: Option<TransactionKind>,
    /// How it is paid.
    pub method: Option<PaymentMethod>,
    /// In which currency.
    pub currency: Option<Currency>,
    /// The reasons of a decline with which the next gateway may be asked; with any other a decline is final.
    pub retry_declines: Vec<String>,
}

impl Route {
    /// The most routes.
    pub const MAX: usize = 1_000;

    /// Whether a transaction may take it.
    pub fn fits(&self, transaction: &Transaction) -> bool {
        self.country.is_none_or(|country| transaction.named.country == Some(country))
            && self.kind.is_none_or(|kind| transaction.kind == kind)
            && self.method.is_none_or(|method| transaction.payment_method == method)
            && self.currency.is_none_or(|currency| transaction.amount.currency() == currency)
    }

    /// How many criteria it has: of two routes with one priority, the more special one goes first.
    pub fn criteria(&self) -> usize {
        usize::from(self.country.is_some())
            + usize::from(self.kind.is_some())
            + usize::from(self.method.is_some())
            + usize::from(self.currency.is_some())
    }
}

/// The gateways and routes there are, in the order of attempts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RoutingTable {
    gateways: Vec<GatewayRecord>,
    routes: Vec<Route>,
}

impl RoutingTable {
    /// The table of those gateways and routes.
    pub fn new(gateways: Vec<GatewayRecord>, mut routes: Vec<Route>) -> Self {
        let order = |route: &Route| (route.priority, usize::MAX - route.criteria());
        routes.sort_by(|a, b| order(a).cmp(&order(b)).then_with(|| a.gateway.cmp(&b.gateway)));
        Self { gateways, routes }
    }

    /// Every gateway.
    pub fn gateways(&self) -> &[GatewayRecord] {
        &self.gateways
    }

    /// Every route, in the order of attempts.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// The routes of a transaction, in the order of attempts. A gateway comes once, with its first route.
    pub fn routes_of<'t>(&'t self, transaction: &Transaction) -> Vec<&'t Route> {
        let mut found: Vec<&Route> = Vec::new();
        for route in self.routes.iter().filter(|route| route.fits(transaction)) {
            if found.iter().all(|other| other.gateway != route.gateway) {
                found.push(route);
            }
        }
        found
    }
}

/// The state of a circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Requests pass.
    Closed,
    /// One request at a time tries whether the gateway is back.
    HalfOpen,
    /// The gateway failed too often: no requests.
    Open,
}

impl BreakerState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Closed, Self::HalfOpen, Self::Open];

    /// The name in the API, metrics and the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }

    /// The state of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

/// How one process finds a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayHealth {
    /// Which gateway.
    pub gateway: GatewayName,
    /// Which process: a random name, new with every start.
    pub instance: String,
    /// The state of that process's breaker.
    pub breaker: BreakerState,
    /// Failures since the last success.
    pub failures: u32,
    /// When it said so.
    pub reported_at: DateTime<Utc>,
}
