//! Decisions that come later, and the callbacks that tell them.

use std::time::Duration;

use http::Method;
use psp_domain::{AttemptReference, Money};
use psp_gateways::{GatewayUrl, Outgoing};
use serde_json::json;
use zeroize::Zeroizing;

use crate::ledger::{Decision, Known, Terms};
use crate::operations::gateway_reference;
use crate::{CallbackTotals, Simulator};

/// How often a callback is tried, and the wait after the first try; it doubles with each.
const TRIES: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// How long connecting may take, and a whole try.
pub(crate) const TIMEOUTS: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(10));
/// The most callbacks on their way at once.
pub(crate) const MAX_AT_ONCE: usize = 64;

/// What is to become of one pending answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) delay: Duration,
    pub(crate) is_duplicate: bool,
    pub(crate) has_wrong_amount: bool,
    pub(crate) is_forgotten: bool,
}

/// A decision that is due.
pub(crate) struct Due {
    reference: AttemptReference,
    url: Option<GatewayUrl>,
    plan: Plan,
}

impl Simulator {
    /// Leaves a decision to the server, which makes it in time.
    pub(crate) fn decide_later(&self, reference: AttemptReference, url: Option<GatewayUrl>, plan: Plan) {
        // The receiver lives as long as the simulator.
        let _ = self.due.send(Due { reference, url, plan });
    }

    /// Decides after the delay, and calls back.
    pub(crate) async fn decide(self, due: Due) {
        let Due { reference, url, plan } = due;
        tokio::time::sleep(plan.delay).await;
        let known = self.state().ledger.complete(reference);
        let (Some(url), Some(Known { terms: Some(Terms { amount, .. }), .. })) = (url, known) else { return };
        if plan.is_forgotten {
            self.state().callbacks.forgotten += 1;
            return;
        }
        if plan.has_wrong_amount {
            let wrong = Money::new(amount.minor() + 1, amount.currency());
            self.call_back(reference, &url, wrong, |totals| totals.wrong_amounts += 1).await;
            tokio::time::sleep(plan.delay).await;
        }
        self.call_back(reference, &url, amount, |_| ()).await;
        if plan.is_duplicate {
            self.call_back(reference, &url, amount, |totals| totals.duplicates += 1).await;
        }
    }

    /// Sends a callback until it is answered; what was voided meanwhile is not called back.
    async fn call_back(
        &self,
        reference: AttemptReference,
        url: &GatewayUrl,
        amount: Money,
        count: impl FnOnce(&mut CallbackTotals),
    ) {
        let mut wait = FIRST_WAIT;
        for _try in 0..TRIES {
            let known = self.state().ledger.find(reference);
            let status = match known.map(|known| known.decision) {
                Some(Decision::Approved) => "completed",
                Some(Decision::Declined(_)) => "rejected",
                Some(Decision::Pending | Decision::Voided) | None => return,
            };
            if self.send(reference, url, status, amount).await {
                let totals = &mut self.state().callbacks;
                totals.delivered += 1;
                count(totals);
                return;
            }
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
        tracing::warn!(%reference, "a callback was given up");
        self.state().callbacks.undelivered += 1;
    }

    /// Whether it was answered in a way that ends it.
    async fn send(&self, reference: AttemptReference, url: &GatewayUrl, status: &str, amount: Money) -> bool {
        let body = json!({
            "gateway_txn_id": gateway_reference(reference),
            "status": status,
            "amount": amount.to_major().to_string(),
            "currency": amount.currency().code(),
        });
        let outgoing = Outgoing {
            method: Method::POST,
            path: String::new(),
            content_type: Some("application/json"),
            action: None,
            body: Zeroizing::new(body.to_string().into_bytes()),
        };
        let Ok(_place) = self.places.acquire().await else { return false };
        let answer = self.client.call(url, outgoing).await;
        answer.is_ok_and(|answer| answer.status.is_success() || answer.status.is_client_error())
    }
}
