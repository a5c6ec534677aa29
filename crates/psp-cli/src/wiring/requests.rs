//! What requests are answered with.

use std::sync::Arc;

use psp_domain::ports::RequestFingerprint;
use psp_domain::usecases::{CancelOrder, CreateTransaction, PlaceOrder, TokenizeCard, WebhookEndpoints};
use psp_rest::{RestOptions, RestPorts};
use psp_vault::FingerprintKey;
use psp_webhooks::{RandomSecrets, Reach, UrlRules};

use super::Wiring;

impl Wiring {
    pub(crate) async fn rest(&self) -> anyhow::Result<(RestPorts, RestOptions)> {
        let vault = self.vault().await?;
        let create = CreateTransaction::new(
            Arc::clone(&self.batching) as _,
            Arc::clone(&self.store.keys),
            Arc::clone(&vault) as _,
            self.sources.clone(),
        );
        let sources = self.sources.clone();
        let ports = RestPorts {
            create: Arc::new(create),
            cancel: Arc::new(self.cancel(Arc::clone(&self.batching) as _)),
            refund: Arc::new(self.refund(Arc::clone(&self.batching) as _).await?),
            place_order: Arc::new(PlaceOrder::new(
                Arc::clone(&self.batching) as _,
                Arc::clone(&self.store.keys),
                sources.clone(),
            )),
            cancel_order: Arc::new(CancelOrder::new(
                Arc::clone(&self.batching) as _,
                Arc::clone(&self.store.orders),
                sources.clone(),
            )),
            orders: Arc::clone(&self.store.orders),
            refunds: Arc::clone(&self.store.refunds),
            events: Arc::clone(&self.store.events),
            deliveries: Arc::clone(&self.store.deliveries),
            endpoints: Arc::clone(&self.store.endpoints),
            keep_endpoints: Arc::new(self.webhook_endpoints().await?),
            tokenize: Arc::new(TokenizeCard::new(Arc::clone(&self.store.tokens), vault, sources)),
            callbacks: Arc::new(self.callbacks().await?),
            gateways: self.directory().await?,
            transactions: Arc::clone(&self.store.transactions),
            payables: Arc::clone(&self.store.payables),
            balances: Arc::clone(&self.store.balances),
            gateway_store: Arc::clone(&self.store.gateways),
            fingerprints: self.fingerprints().await?,
            health: self.health(),
        };
        let options = RestOptions {
            default_currency: self.settings.default_currency,
            default_gateway: self.built_in(),
            default_customer: self.settings.default_customer.clone(),
            webhooks: self.settings.webhook_reach.is_some(),
            refuse_expired_cards: self.settings.refuse_expired_cards,
            max_in_flight: self.settings.max_in_flight,
            request_timeout: self.settings.request_timeout,
            clock: Arc::clone(&self.sources.clock),
            ids: Arc::clone(&self.sources.ids),
        };
        Ok((ports, options))
    }

    async fn webhook_endpoints(&self) -> anyhow::Result<WebhookEndpoints> {
        // Turned off, they may be changed for when they are turned on again.
        let urls = UrlRules { reach: self.settings.webhook_reach.unwrap_or(Reach::Public) };
        Ok(WebhookEndpoints::new(
            Arc::clone(&self.store.endpoints),
            Arc::clone(&self.store.keys),
            self.vault().await?,
            Arc::new(urls),
            Arc::new(RandomSecrets::default()),
            self.sources.clone(),
        ))
    }

    /// The key of requests' fingerprints: that of the first local key, or else one for every process over this store.
    async fn fingerprints(&self) -> anyhow::Result<Arc<dyn RequestFingerprint>> {
        if self.settings.card_kms_key.is_none() {
            return Ok(Arc::new(FingerprintKey::derived(&self.settings.vault_keys()?)?));
        }
        let key = FingerprintKey::stored(self.vault().await?, Arc::clone(&self.store.vault_keys));
        // Not a reason to stay away: most requests do without, and each that needs it tries again.
        if let Err(error) = key.open().await {
            tracing::warn!(error = %format!("{:#}", anyhow::Error::from(error)), "the key of fingerprints does not open yet");
        }
        Ok(Arc::new(key))
    }
}
