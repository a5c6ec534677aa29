//! The outbox table as a queue: `FOR UPDATE SKIP LOCKED`, so that receivers never wait for each other.
//!
//! A row's `lease` names the latest delivery and moves on when that has ended, so a receipt is a primary key and a number.
//! No statement under a lease asks for `visible_at`: the planner would be tempted to read the index of what is pending.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use psp_domain::ports::{Delivery, Message, Queue, QueueDepth, QueueError, StoreError};
use psp_domain::{EventKind, MessageId, QueueName};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use crate::classify::{broken, damaged, repeat};
use crate::connection::PgStore;

#[async_trait]
impl Queue for PgStore {
    async fn send(&self, messages: Vec<Message>) -> Result<(), QueueError> {
        let ids: Vec<_> = messages.iter().map(|m| m.id.0).collect();
        let kinds: Vec<_> = messages.iter().map(|m| m.kind.clone()).collect();
        let aggregates: Vec<_> = messages.iter().map(|m| m.aggregate_id).collect();
        let bodies: Vec<_> = messages.iter().map(|m| m.body.clone()).collect();
        let queues: Vec<_> = messages.iter().map(|m| m.queue.to_string()).collect();
        let now = self.now();
        let sent = repeat(|| {
            let query = sqlx::query!(
                "INSERT INTO outbox (id, kind, aggregate_id, body, queue, sent_at, visible_at) \
                 SELECT id, kind, aggregate_id, body, queue, $6, $6 \
                 FROM UNNEST($1::uuid[], $2::text[], $3::uuid[], $4::text[], $5::text[]) \
                 AS m (id, kind, aggregate_id, body, queue) ON CONFLICT (id) DO NOTHING",
                &ids,
                &kinds,
                &aggregates,
                &bodies,
                &queues,
                now
            );
            query.execute(&self.writes)
        });
        sent.await.map_err(broken)?;
        self.wake.wake(messages.iter().map(|message| message.queue));
        Ok(())
    }

    async fn receive(&self, queue: QueueName, max: usize, wait: Duration) -> Result<Vec<Delivery>, QueueError> {
        self.wait_for(queue, wait, || async move { self.claim_counting(queue, max).await }).await
    }

    async fn ack(&self, deliveries: &[Delivery]) -> Result<(), QueueError> {
        self.finish(deliveries).await.map_err(broken)
    }

    async fn retry(&self, delivery: &Delivery, after: Duration, reason: &str) -> Result<(), QueueError> {
        let Some((id, lease)) = receipt(delivery) else { return Ok(()) };
        let at = self.now() + after;
        let done = repeat(|| {
            let query = sqlx::query!(
                "UPDATE outbox SET visible_at = $3, reason = $4, lease = lease + 1 WHERE id = $1 AND lease = $2",
                id,
                lease,
                at,
                reason
            );
            query.execute(&self.leases)
        });
        done.await.map_err(broken)?;
        Ok(())
    }

    async fn extend(&self, delivery: &Delivery) -> Result<bool, QueueError> {
        let Some((id, lease)) = receipt(delivery) else { return Ok(false) };
        let at = self.now() + self.options.visibility_timeout;
        let done = repeat(|| {
            let query = sqlx::query!("UPDATE outbox SET visible_at = $3 WHERE id = $1 AND lease = $2", id, lease, at);
            query.execute(&self.leases)
        });
        Ok(done.await.map_err(broken)?.rows_affected() == 1)
    }

    async fn dead_letter(&self, delivery: &Delivery, reason: &str) -> Result<(), QueueError> {
        let Some((id, lease)) = receipt(delivery) else { return Ok(()) };
        let now = self.now();
        let done = repeat(|| {
            let query = sqlx::query!(
                "UPDATE outbox SET visible_at = NULL, dead_at = $3, reason = $4, lease = lease + 1 \
                 WHERE id = $1 AND lease = $2",
                id,
                lease,
                now,
                reason
            );
            query.execute(&self.writes)
        });
        done.await.map_err(broken)?;
        Ok(())
    }

    fn visibility_timeout(&self) -> Duration {
        self.options.visibility_timeout
    }

    async fn depths(&self) -> Result<Vec<QueueDepth>, QueueError> {
        let names: Vec<_> = QueueName::ALL.map(|queue| queue.to_string()).into();
        let rows = repeat(|| {
            let query = sqlx::query!(
                r#"SELECT
                    (SELECT count(*) FROM outbox WHERE queue = q.name AND visible_at IS NOT NULL) AS "pending!",
                    (SELECT count(*) FROM outbox WHERE queue = q.name AND dead_at IS NOT NULL) AS "dead!",
                    (SELECT min(sent_at) FROM outbox WHERE queue = q.name AND visible_at IS NOT NULL) AS oldest
                FROM UNNEST($1::text[]) WITH ORDINALITY AS q (name, place) ORDER BY place"#,
                &names
            );
            query.fetch_all(&self.reads)
        });
        let rows = rows.await.map_err(broken)?;
        let depths = QueueName::ALL.into_iter().zip(rows).map(|(queue, row)| QueueDepth {
            queue,
            pending: row.pending.unsigned_abs(),
            dead: row.dead.unsigned_abs(),
            oldest: row.oldest,
        });
        Ok(depths.collect())
    }
}

impl PgStore {
    /// Asks until something comes or the wait is over: woken by commits, and again every poll interval.
    pub(crate) async fn wait_for<F>(
        &self,
        queue: QueueName,
        wait: Duration,
        claim: impl Fn() -> F,
    ) -> Result<Vec<Delivery>, QueueError>
    where
        F: Future<Output = Result<Vec<Delivery>, StoreError>>,
    {
        let deadline = Instant::now() + wait;
        loop {
            let woken = self.wake.receiver(queue).notified();
            let deliveries = claim().await.map_err(broken)?;
            let now = Instant::now();
            if !deliveries.is_empty() || now >= deadline {
                return Ok(deliveries);
            }
            let look_again = deadline.min(now + self.options.poll_interval);
            let _ = timeout_at(look_again, woken).await;
        }
    }

    /// Claims messages for handlers; buries those that came too often.
    async fn claim_counting(&self, queue: QueueName, max: usize) -> Result<Vec<Delivery>, StoreError> {
        let now = self.now();
        let until = now + self.options.visibility_timeout;
        let rows = repeat(|| {
            let query = sqlx::query_as!(
                Claimed,
                "UPDATE outbox SET visible_at = $4, receive_count = receive_count + 1, lease = lease + 1 \
                 WHERE id = ANY (ARRAY (SELECT id FROM outbox WHERE queue = $1 AND visible_at <= $2 \
                 ORDER BY visible_at, id LIMIT $3 FOR UPDATE SKIP LOCKED)) \
                 RETURNING id, kind, aggregate_id, body, receive_count, lease",
                queue.as_str(),
                now,
                i64::try_from(max).unwrap_or(i64::MAX),
                until
            );
            query.fetch_all(&self.leases)
        });
        let deliveries = rows.await?.into_iter().map(|row| row.delivery(queue)).collect::<Result<Vec<_>, _>>()?;
        let (mut live, poison): (Vec<_>, Vec<_>) =
            deliveries.into_iter().partition(|delivery| delivery.receive_count <= QueueName::MAX_RECEIVES);
        if !poison.is_empty() {
            self.bury(&poison, now).await?;
        }
        live.sort_unstable_by_key(|delivery| delivery.message.id);
        Ok(live)
    }

    /// Makes dead letters of messages that came back too often; the count is that of the deliveries that were made.
    async fn bury(&self, poison: &[Delivery], now: DateTime<Utc>) -> Result<(), StoreError> {
        let (ids, leases) = receipts(poison);
        let buried = repeat(|| {
            let query = sqlx::query!(
                "UPDATE outbox AS o SET visible_at = NULL, dead_at = $3, receive_count = o.receive_count - 1, \
                 lease = o.lease + 1, reason = coalesce(o.reason, 'received too often without an answer') \
                 FROM UNNEST($1::uuid[], $2::bigint[]) AS p (id, lease) \
                 WHERE o.id = ANY ($1) AND o.id = p.id AND o.lease = p.lease",
                &ids,
                &leases,
                now
            );
            query.execute(&self.writes)
        });
        buried.await?;
        Ok(())
    }

    /// Ends messages under their leases: an event stays, a command goes.
    pub(crate) async fn finish(&self, deliveries: &[Delivery]) -> Result<(), StoreError> {
        if deliveries.is_empty() {
            return Ok(());
        }
        let is_event = |delivery: &Delivery| EventKind::from_name(&delivery.message.kind).is_some();
        let (events, commands): (Vec<_>, Vec<_>) = deliveries.iter().cloned().partition(is_event);
        let ((events, event_leases), (commands, command_leases)) = (receipts(&events), receipts(&commands));
        let done = repeat(|| {
            let query = sqlx::query!(
                "WITH events AS (UPDATE outbox AS o SET visible_at = NULL, lease = o.lease + 1 \
                 FROM UNNEST($1::uuid[], $2::bigint[]) AS d (id, lease) \
                 WHERE o.id = ANY ($1) AND o.id = d.id AND o.lease = d.lease) \
                 DELETE FROM outbox AS o USING UNNEST($3::uuid[], $4::bigint[]) AS d (id, lease) \
                 WHERE o.id = ANY ($3) AND o.id = d.id AND o.lease = d.lease",
                &events,
                &event_leases,
                &commands,
                &command_leases
            );
            query.execute(&self.leases)
        });
        done.await?;
        Ok(())
    }
}

/// A claimed row.
pub(crate) struct Claimed {
    pub(crate) id: Uuid,
    pub(crate) kind: String,
    pub(crate) aggregate_id: Uuid,
    pub(crate) body: String,
    pub(crate) receive_count: i32,
    pub(crate) lease: i64,
}

impl Claimed {
    pub(crate) fn delivery(self, queue: QueueName) -> Result<Delivery, StoreError> {
        Ok(Delivery {
            message: Message {
                id: MessageId(self.id),
                queue,
                kind: self.kind,
                aggregate_id: self.aggregate_id,
                body: self.body,
            },
            receipt: self.lease.to_string(),
            receive_count: u32::try_from(self.receive_count).map_err(|_| damaged("receive_count"))?,
        })
    }
}

fn receipt(delivery: &Delivery) -> Option<(Uuid, i64)> {
    delivery.receipt.parse().ok().map(|lease| (delivery.message.id.0, lease))
}

pub(crate) fn receipts(deliveries: &[Delivery]) -> (Vec<Uuid>, Vec<i64>) {
    deliveries.iter().filter_map(receipt).unzip()
}
