//! The gateways of the settings, and how the adapter of a gateway is made.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use psp_domain::ports::{Clock, Gateway};
use psp_domain::{GatewayName, GatewayProtocol, GatewayRecord};
use psp_gateways::{GatewayUrl, HttpGateway, HttpOptions, HttpProtocol, SandboxGateway, SigningKey};
use psp_worker::TimeoutGateway;

use crate::settings::Settings;

/// How long connecting to a gateway may take: short of its time-out, because who cannot be reached has charged nothing.
const MAX_CONNECT: Duration = Duration::from_secs(3);
/// The name of the gateway of the settings where it has an address.
const HTTP: &str = "http";
/// Its name where it has none.
const SANDBOX: &str = "sandbox";

/// The names that no gateway of the store may have, because the settings decide which of them is there.
pub(crate) const BUILT_IN: [&str; 2] = [HTTP, SANDBOX];

/// What adapters of gateways are made of.
pub(crate) struct GatewayFactory {
    secrets: BTreeMap<GatewayName, SigningKey>,
    callback_base: Option<GatewayUrl>,
    timeout: Duration,
    sandbox_slow: Duration,
    clock: Arc<dyn Clock>,
}

/// The gateway of the settings: it is there without any in the store.
pub(crate) fn built_in(settings: &Settings, now: DateTime<Utc>) -> GatewayRecord {
    let (name, protocol) = match settings.gateway_url {
        Some(_) => (HTTP, GatewayProtocol::Json),
        None => (SANDBOX, GatewayProtocol::Sandbox),
    };
    GatewayRecord {
        name: name.parse().expect("a name"),
        protocol,
        url: settings.gateway_url.as_ref().map(ToString::to_string).unwrap_or_default(),
        enabled: true,
        created_at: now,
        updated_at: now,
    }
}

impl GatewayFactory {
    pub(crate) fn new(settings: &Settings, clock: Arc<dyn Clock>) -> Self {
        let mut secrets = settings.gateway_secrets.clone();
        if let (Some(_), Some(key)) = (&settings.gateway_url, &settings.gateway_key) {
            secrets.insert(HTTP.parse().expect("a name"), key.clone());
        }
        Self {
            secrets,
            callback_base: settings.public_url.clone(),
            timeout: settings.gateway_timeout,
            sandbox_slow: settings.sandbox_slow,
            clock,
        }
    }

    /// The adapter of a gateway, whose calls end in time; or what is missing for it.
    pub(crate) fn make(&self, record: &GatewayRecord) -> Result<Arc<dyn Gateway>, String> {
        let protocol = match record.protocol {
            GatewayProtocol::Sandbox => {
                let sandbox = SandboxGateway::named(record.name.clone(), self.sandbox_slow);
                return Ok(Arc::new(TimeoutGateway::new(Arc::new(sandbox), self.timeout)));
            }
            GatewayProtocol::Json => HttpProtocol::Json,
            GatewayProtocol::Xml => HttpProtocol::Xml,
        };
        let key = self.secrets.get(&record.name).ok_or("PSP_GATEWAY_SECRETS has no secret for it")?;
        let options = HttpOptions {
            name: record.name.clone(),
            protocol,
            url: record.url.parse().map_err(|error| format!("its url {error}"))?,
            key: key.clone(),
            callback_base: self.callback_base.clone(),
            connect_timeout: MAX_CONNECT.min(self.timeout / 2),
            timeout: self.timeout,
        };
        let gateway = HttpGateway::new(options, Arc::clone(&self.clock)).map_err(|error| error.to_string())?;
        Ok(Arc::new(TimeoutGateway::new(Arc::new(gateway), self.timeout)))
    }
}
