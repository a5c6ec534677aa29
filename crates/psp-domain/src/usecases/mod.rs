//! Use cases, one file each. They load, decide, and hand a [`crate::ChangeSet`] to the store. Reading needs no use case: an
//! entrypoint asks the reader ports.

mod authorize_transaction;
mod callbacks;
mod cancel_order;
mod cancel_transaction;
mod create_transaction;
mod once;
mod order_saga;
mod place_order;
mod refund_transaction;
mod sealed_answers;
mod settle_payables;
mod tokenize_card;
mod webhook_endpoints;

pub use authorize_transaction::{AuthorizeError, AuthorizeOptions, AuthorizeOutcome, AuthorizeTransaction};
pub use callbacks::{Applied, CallbackError, Callbacks, Notice, Received};
pub use cancel_order::{CancelOrder, CancelOrderOutcome};
pub use cancel_transaction::{CancelError, CancelOutcome, CancelTransaction};
pub use create_transaction::{CreateError, CreateOutcome, CreateTransaction, IdempotentRequest};
pub use order_saga::{OrderOutcome, OrderSaga, OrderSagaError};
pub use place_order::{PlaceOrder, PlaceOrderError};
pub use refund_transaction::{RefundError, RefundOptions, RefundOutcome, RefundRequestOutcome, RefundTransaction};
pub use settle_payables::{SettlePayables, SettlementRun, due_before};
pub use tokenize_card::{TokenizeCard, TokenizeError};
pub use webhook_endpoints::{Answer, EndpointError, EndpointPatch, InvalidEndpoint, NewEndpoint, WebhookEndpoints};

use std::sync::Arc;

use crate::ports::{Clock, IdGenerator, SystemClock, UuidV7Generator};

/// The sources of time and ids that use cases draw on.
#[derive(Clone)]
pub struct Sources {
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The ids.
    pub ids: Arc<dyn IdGenerator>,
}

impl Default for Sources {
    /// The machine's clock and UUIDv7.
    fn default() -> Self {
        Self { clock: Arc::new(SystemClock), ids: Arc::new(UuidV7Generator) }
    }
}
