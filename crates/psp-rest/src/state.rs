use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use psp_domain::ports::{
    BalanceReader, Clock, DeliveryStore, EndpointStore, EventStore, GatewayDirectory, GatewayStore, Health,
    IdGenerator, OrderReader, PayableReader, RefundStore, RequestFingerprint, TransactionReader,
};
use psp_domain::usecases::{
    Callbacks, CancelOrder, CancelTransaction, CreateTransaction, PlaceOrder, RefundTransaction, TokenizeCard,
    WebhookEndpoints,
};
use psp_domain::{Currency, CustomerId, GatewayRecord};

use crate::health::Checks;
use crate::idempotency::{InFlight, KeysInFlight};
use crate::middleware::RequestMetrics;

/// What the routes need of the world.
#[derive(Clone)]
pub struct RestPorts {
    /// `POST /transactions`, payments, deposits and withdrawals.
    pub create: Arc<CreateTransaction>,
    /// `POST /api/v1/payments/{id}/cancel`.
    pub cancel: Arc<CancelTransaction>,
    /// `POST /card_tokens`, and payments with them.
    pub tokenize: Arc<TokenizeCard>,
    /// `POST /callback/{transaction_id}`.
    pub callbacks: Arc<Callbacks>,
    /// Tells which gateways a request may name.
    pub gateways: Arc<dyn GatewayDirectory>,
    /// `GET /transactions`, payments, deposits and withdrawals.
    pub transactions: Arc<dyn TransactionReader>,
    /// `GET /payables`.
    pub payables: Arc<dyn PayableReader>,
    /// `GET /balance`.
    pub balances: Arc<dyn BalanceReader>,
    /// `GET /gateways`.
    pub gateway_store: Arc<dyn GatewayStore>,
    /// `POST /transactions/{id}/refund`.
    pub refund: Arc<RefundTransaction>,
    /// `POST /api/orders`.
    pub place_order: Arc<PlaceOrder>,
    /// `PATCH /api/orders/{id}/cancel`.
    pub cancel_order: Arc<CancelOrder>,
    /// `GET /api/orders` and `GET /api/payments`.
    pub orders: Arc<dyn OrderReader>,
    /// `GET /transactions/{id}/refunds`.
    pub refunds: Arc<dyn RefundStore>,
    /// `GET /events`, and what replays them.
    pub events: Arc<dyn EventStore>,
    /// `GET /events/{id}/deliveries`, and what makes them anew.
    pub deliveries: Arc<dyn DeliveryStore>,
    /// `GET /webhook_endpoints`.
    pub endpoints: Arc<dyn EndpointStore>,
    /// Everything else of `/webhook_endpoints`.
    pub keep_endpoints: Arc<WebhookEndpoints>,
    /// Tells whether an idempotency key comes back with the same request.
    pub fingerprints: Arc<dyn RequestFingerprint>,
    /// What readiness asks, by name.
    pub health: Vec<(&'static str, Arc<dyn Health>)>,
}

/// How the routes behave.
#[derive(Clone)]
pub struct RestOptions {
    /// The currency of a transaction that names none.
    pub default_currency: Currency,
    /// The built-in gateway, as `GET /gateways` shows it.
    pub default_gateway: GatewayRecord,
    /// Whose payments, deposits and withdrawals are that name no customer.
    pub default_customer: CustomerId,
    /// Whether webhooks are delivered; otherwise there are no new endpoints, and nothing is delivered anew.
    pub webhooks: bool,
    /// Whether a card whose expiry has passed is refused (422); otherwise that is the issuer's to judge.
    pub refuse_expired_cards: bool,
    /// The most requests at once; one more is answered 503.
    pub max_in_flight: usize,
    /// How long a request may take; then it is answered 503.
    pub request_timeout: Duration,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Request ids.
    pub ids: Arc<dyn IdGenerator>,
}

/// Shared by all requests.
pub(crate) struct App {
    pub(crate) ports: RestPorts,
    pub(crate) health: Checks,
    pub(crate) options: RestOptions,
    pub(crate) prometheus: Option<PrometheusHandle>,
    pub(crate) keys_in_flight: KeysInFlight,
    /// Customers who have what happened delivered anew just now.
    pub(crate) recoveries: InFlight<CustomerId>,
    pub(crate) requests_in_flight: AtomicUsize,
    pub(crate) metrics: RequestMetrics,
}

impl App {
    pub(crate) fn new(mut ports: RestPorts, options: RestOptions, prometheus: Option<PrometheusHandle>) -> Self {
        let health = Checks::new(std::mem::take(&mut ports.health));
        Self {
            ports,
            health,
            options,
            prometheus,
            keys_in_flight: KeysInFlight::default(),
            recoveries: InFlight::default(),
            requests_in_flight: AtomicUsize::new(0),
            metrics: RequestMetrics::new(),
        }
    }
}
