//! The domain of a payment service provider: money, cards, transactions, payables, fee rules, events, the ports to the
//! world and the use cases over them. Knows no runtime, database driver or web framework.
//!
//! Start here to embed it:
//!
//! 1. Decide with values: [`Transaction`] is a state machine whose transitions return a [`Transitioned`]; it becomes a
//!    [`ChangeSet`].
//! 2. Write with [`ports::Store`]: a change set is written whole or not at all.
//! 3. Or use the ready [`usecases`] over your own adapters.
//!
//! ```
//! use psp_domain::ports::{Clock, SystemClock, UuidV7Generator};
//! use psp_domain::{
//!     Card, Currency, FeeRules, GatewayReference, Installments, Money, Named, NewTransaction, PaymentMethod, Transaction,
//!     TransactionKind, TransactionStatus, Transition,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let request = NewTransaction {
//!     kind: TransactionKind::Payment,
//!     customer_id: "123".parse()?,
//!     description: "Lightsaber".into(),
//!     amount: Money::new(2500, Currency::BRL),
//!     payment_method: PaymentMethod::CreditCard,
//!     card: Some(Card {
//!         number: "4111111111111111".parse()?,
//!         holder_name: "Luke Skywalker".parse()?,
//!         expiry: "10/25".parse()?,
//!         verification_code: "123".parse()?,
//!     }),
//!     installments: Installments::ONE,
//!     named: Named::default(),
//!     order: None,
//! };
//! let (now, ids) = (SystemClock.now(), UuidV7Generator);
//! let (transaction, created) = Transaction::create(&request, now, &ids).map_err(|faults| faults[0])?;
//! assert_eq!(created.kind.as_str(), "transaction.created");
//!
//! let approval = GatewayReference { gateway: "sandbox".parse()?, reference: "ref-1".into() };
//! let Transition::Executed(next) = transaction.approve(approval, &FeeRules::default(), now, &ids)? else {
//!     unreachable!("a fresh transaction was not approved before");
//! };
//! assert_eq!(next.transaction.status, TransactionStatus::PendingPayment);
//! assert_eq!(next.payables[0].receivable.minor(), 2375);
//! # Ok(())
//! # }
//! ```

mod attempt;
pub mod batch;
mod callback;
mod card;
mod change_set;
mod event;
mod fees;
mod ids;
mod method;
mod money;
mod new_transaction;
mod order;
mod page;
mod payable;
pub mod ports;
mod refund;
mod routing;
mod transaction;
pub mod usecases;
mod webhook;

pub use attempt::{Attempt, AttemptState};
pub use callback::{Callback, CallbackOutcome, CallbackStatus};
pub use card::{Card, CardBrand, CardError, CardExpiry, CardHolderName, CardNumber, CardSummary, CardVerificationCode};
pub use change_set::{
    ChangeSet, CountSubject, Fingerprint, IdempotencyRecord, OrderWrite, SealedCard, StatusCount, StoredAnswer,
    TransactionWrite, Verdict,
};
pub use event::{Event, EventKind};
pub use fees::{FeeRule, FeeRules, FeeSplit, Installments, InvalidFeeRule};
pub use ids::{
    AttemptReference, CallbackId, CardToken, CorrelationId, CustomerId, EndpointId, IdempotencyKey, InvalidName,
    MessageId, OrderId, OrderName, PayableId, RefundId, SettlementRunId, TransactionId, UserId,
};
pub use method::{PaymentMethod, TransactionKind};
pub use money::{Currency, Money, MoneyError};
pub use new_transaction::{InvalidTransaction, KnownFields, NewTransaction};
pub use order::{
    IllegalOrderTransition, InvalidOrder, NewOrder, Order, OrderPaymentStatus, OrderStatus, OrderTransition,
    OrderTransitioned,
};
pub use page::{InvalidPage, Page, PageRequest, Position};
pub use payable::{Balance, Payable, PayableStatus};
pub use ports::QueueName;
pub use refund::{Refund, RefundFeePolicy, RefundRefused, RefundStatus, RefundTotals};
pub use routing::{
    BreakerState, Country, GatewayHealth, GatewayName, GatewayProtocol, GatewayRecord, InvalidCountry,
    InvalidGatewayName, Route, RoutingTable,
};
pub use transaction::{
    GatewayReference, IllegalTransition, Named, OrderLink, Transaction, TransactionStatus, Transition, Transitioned,
};
pub use webhook::{
    ConcludedDelivery, DeliveryAttempt, DeliveryStatus, DeliveryVerdict, DueDelivery, EndpointStatus, EventFilter,
    SealedSecret, WebhookDelivery, WebhookEndpoint, WebhookPolicy, WebhookSecret,
};
