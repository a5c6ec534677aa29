//! What holds at the end, whatever happened.

use std::collections::{BTreeMap, HashMap};

use psp_domain::ports::{OrderReader, RefundStore};
use psp_domain::{
    CountSubject, EventKind, OrderPaymentStatus, OrderStatus, PageRequest, RefundStatus, StatusCount, Transaction,
};
use psp_testkit::fixtures;

use crate::support::{TOTAL, World};

impl World {
    /// How order and payment ended, after all that must hold was looked at.
    pub(crate) async fn end(&self) -> (OrderStatus, Option<OrderPaymentStatus>) {
        let order = self.memory.load_order(self.order).await.unwrap().unwrap();
        let payments = self.payments().await;
        assert!(payments.len() <= 1, "an order has one payment at most");
        let payment = payments.into_iter().next();
        assert_eq!(payment.as_ref().map(|payment| payment.id), order.payment_id);
        self.check_money(payment.as_ref()).await;
        self.check_counts().await;
        self.check_sequences();
        (order.status, payment.map(|payment| OrderPaymentStatus::from(payment.status)))
    }

    /// The same, and that the two ended alike.
    pub(crate) async fn allowed_end(&self) -> (OrderStatus, Option<OrderPaymentStatus>) {
        use OrderPaymentStatus::{Approved, Cancelled, Declined, Failed, Refunded};
        let end = self.end().await;
        let is_allowed = match end {
            (OrderStatus::Paid, payment) => payment == Some(Approved),
            (OrderStatus::Failed, payment) => payment == Some(Failed),
            (OrderStatus::Cancelled, payment) => {
                matches!(payment, None | Some(Cancelled | Declined | Failed | Refunded))
            }
            (OrderStatus::PendingPayment, _) => false,
        };
        assert!(is_allowed, "{end:?}");
        assert!(self.dead.is_empty(), "{:?}", self.dead);
        end
    }

    async fn check_money(&self, payment: Option<&Transaction>) {
        let charged = self.gateway.charged();
        let is_approved = payment.is_some_and(|payment| payment.status.is_approved());
        assert_eq!(charged.len(), usize::from(is_approved), "charged, and not known here, or the other way round");
        let given: i64 = self.gateway.given_back().iter().map(|refund| refund.amount.minor()).sum();
        let Some(payment) = payment else { return assert_eq!(given, 0) };
        assert_eq!(payment.amount.minor(), TOTAL);
        assert_eq!(given, payment.refunds.done.minor(), "given back, and not known here, or the other way round");
        assert_eq!(payment.refunds.pending.minor(), 0);
        let refunds = self.memory.refunds(&payment.customer_id, payment.id).await.unwrap();
        let succeeded = refunds.iter().filter(|refund| refund.status == RefundStatus::Succeeded);
        assert_eq!(succeeded.count(), self.gateway.given_back().len(), "each once");
        if payment.status == psp_domain::TransactionStatus::Refunded {
            assert_eq!(given, TOTAL);
        }
    }

    /// Counts by status are what a recount gives.
    async fn check_counts(&self) {
        let customer = fixtures::customer("123");
        let page = PageRequest::default();
        let orders = self.memory.list_orders(&customer, page).await.unwrap().items;
        assert_eq!(orders.len(), 1, "one order for one key");
        let orders = orders.iter().map(|order| (order.status.as_str(), order.total.minor()));
        let payments = self.payments().await;
        let payments = payments.iter().map(|p| (OrderPaymentStatus::from(p.status).as_str(), p.amount.minor()));
        let counted = async |subject| recounted(self.memory.counts(&customer, subject).await.unwrap());
        assert_eq!(counted(CountSubject::Order).await, recount(orders));
        assert_eq!(counted(CountSubject::Payment).await, recount(payments));
    }

    fn check_sequences(&self) {
        let mut last: HashMap<_, i64> = HashMap::new();
        for event in self.memory.events() {
            let number = last.entry(event.aggregate_id).or_default();
            *number += 1;
            assert_eq!(event.sequence, *number, "{:?}", event.kind);
        }
        let said = |kind: EventKind| self.memory.events().iter().filter(|event| event.kind == kind).count();
        for once in [EventKind::OrderCreated, EventKind::OrderPaid, EventKind::OrderCancelled, EventKind::OrderFailed] {
            assert!(said(once) <= 1, "{once:?} was said twice");
        }
        assert_eq!(said(EventKind::PaymentApproved), said(EventKind::TransactionApproved));
    }
}

type Counts = BTreeMap<String, (i64, i64)>;

fn recounted(counts: Vec<StatusCount>) -> Counts {
    counts.into_iter().map(|count| (count.status, (count.count, count.amount))).collect()
}

fn recount<'s>(all: impl Iterator<Item = (&'s str, i64)>) -> Counts {
    let mut counts = Counts::new();
    for (status, amount) in all {
        let sum = counts.entry(status.to_owned()).or_default();
        *sum = (sum.0 + 1, sum.1 + amount);
    }
    counts
}
