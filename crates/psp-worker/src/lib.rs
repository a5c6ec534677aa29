//! Queue consumers: authorization of transactions, callbacks of gateways, refunds, orders and their payments, settlement of
//! chunks; and the [`relay`] from an outbox to a broker.
//!
//! [`consume`] takes messages in batches as large as there is room for, prepares each batch at once (one read for all of
//! its transactions), and runs every message on its own: a slow or poisonous one holds no other back. Acknowledgements are
//! gathered while the previous ones are written. A handler that runs long keeps its message by extending the lease.

mod callbacks;
mod consumer;
mod gated_queue;
mod orders_handler;
mod refunds_handler;
mod relay;
mod retry;
mod retrying_store;
mod settlement;
mod timeout_gateway;
mod transactions;

pub use callbacks::callbacks_handler;
pub use consumer::{ConsumerOptions, Disposition, Handler, Job, consume};
pub use gated_queue::GatedQueue;
pub use orders_handler::orders_handler;
pub use refunds_handler::refunds_handler;
pub use relay::{RelayOptions, relay};
pub use retry::RetryPolicy;
pub use retrying_store::RetryingStore;
pub use settlement::settlement_handler;
pub use timeout_gateway::TimeoutGateway;
pub use transactions::transactions_handler;
