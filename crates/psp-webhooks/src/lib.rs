//! Delivers events to the webhook endpoints of customers, signed as [Standard Webhooks](https://www.standardwebhooks.com) has it.
//!
//! [`Deliverer`] claims what is due from a [`DeliveryStore`](psp_domain::ports::DeliveryStore), sends it with a [`WebhookClient`],
//! and writes what came of it. Endpoints are strangers: their addresses are judged where they are connected to ([`Reach`]), and
//! everything that they could make last or grow has a limit. `docs/webhooks.md` says what a receiver may rely on.

mod client;
mod conclude;
mod connect;
mod deliver;
mod guard;
mod idle;
mod metrics;
mod names;
mod places;
mod retry_after;
mod secret;
mod secrets;
mod url;

pub use client::{ClientOptions, WebhookClient};
pub use connect::{Resolve, SystemResolver, native_tls};
pub use deliver::{Deliverer, DeliveryOptions, DeliveryPorts};
pub use guard::Reach;
pub use secret::{ID_HEADER, InvalidSecret, RandomSecrets, SIGNATURE_HEADER, SigningSecret, TIMESTAMP_HEADER};
pub use url::{InvalidUrl, UrlRules};
