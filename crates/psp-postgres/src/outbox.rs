use std::time::Duration;

use async_trait::async_trait;
use psp_domain::QueueName;
use psp_domain::ports::{Delivery, Outbox, QueueError, StoreError};

use crate::classify::{broken, repeat};
use crate::connection::PgStore;
use crate::queue::{Claimed, receipts};

#[async_trait]
impl Outbox for PgStore {
    async fn claim(&self, queue: QueueName, max: usize, wait: Duration) -> Result<Vec<Delivery>, QueueError> {
        self.wait_for(queue, wait, || async move { self.claim_unsent(queue, max).await }).await
    }

    async fn mark_sent(&self, deliveries: &[Delivery]) -> Result<(), QueueError> {
        self.finish(deliveries).await.map_err(broken)?;
        // The next events of the same aggregates can be claimed now, also those of other queues: relays of this process look. One
        // that finds nothing has cost a look-up in an index.
        if !deliveries.is_empty() {
            for queue in QueueName::ALL {
                self.wake.wake_here(queue);
            }
        }
        Ok(())
    }

    async fn put_back(&self, deliveries: &[Delivery], after: Duration, reason: &str) -> Result<(), QueueError> {
        let (ids, leases) = receipts(deliveries);
        let at = self.now() + after;
        let done = repeat(|| {
            let query = sqlx::query!(
                "UPDATE outbox AS o SET visible_at = $3, reason = $4, lease = o.lease + 1 \
                 FROM UNNEST($1::uuid[], $2::bigint[]) AS p (id, lease) \
                 WHERE o.id = ANY ($1) AND o.id = p.id AND o.lease = p.lease",
                &ids,
                &leases,
                at,
                reason
            );
            query.execute(&self.leases)
        });
        done.await.map_err(broken)?;
        Ok(())
    }
}

impl PgStore {
    /// Claims messages for a relay: no counting, because a broker that is down makes no message poison. Earlier events are
    /// looked up by their aggregate; asking for `visible_at IS NOT NULL` would tempt the planner to read all that is pending.
    async fn claim_unsent(&self, queue: QueueName, max: usize) -> Result<Vec<Delivery>, StoreError> {
        let now = self.now();
        let until = now + self.options.visibility_timeout;
        let rows = repeat(|| {
            let query = sqlx::query_as!(
                Claimed,
                "UPDATE outbox SET visible_at = $4, lease = lease + 1 \
                 WHERE id = ANY (ARRAY (SELECT id FROM outbox AS o WHERE queue = $1 AND visible_at <= $2 \
                 AND 0 = (SELECT count(*) FROM outbox AS earlier WHERE earlier.aggregate_id = o.aggregate_id \
                 AND earlier.sequence < o.sequence AND coalesce(earlier.visible_at, 'infinity') <> 'infinity') \
                 ORDER BY visible_at, id LIMIT $3 FOR UPDATE SKIP LOCKED)) \
                 RETURNING id, kind, aggregate_id, body, receive_count, lease",
                queue.as_str(),
                now,
                i64::try_from(max).unwrap_or(i64::MAX),
                until
            );
            query.fetch_all(&self.leases)
        });
        let mut deliveries = rows.await?.into_iter().map(|row| row.delivery(queue)).collect::<Result<Vec<_>, _>>()?;
        deliveries.sort_unstable_by_key(|delivery| delivery.message.id);
        Ok(deliveries)
    }
}
