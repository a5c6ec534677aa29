use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::StoreError;
use crate::{CustomerId, EndpointId, Event, EventFilter, MessageId, Page, PageRequest};

/// Reads, replays and forgets events; they are written by change sets.
#[async_trait]
pub trait EventStore: Send + Sync {
    /// One event of a customer. `None` for another customer's.
    async fn find_event(&self, customer: &CustomerId, id: MessageId) -> Result<Option<Event>, StoreError>;

    /// A page of events, newest first. Asked for one customer's, it walks an index of them; it examines at most
    /// [`EventFilter::MAX_EXAMINED`], so that a page may be short, even empty, and have a next one.
    async fn list_events(&self, filter: &EventFilter, page: PageRequest) -> Result<Page<Event>, StoreError>;

    /// Replays up to `limit` events of a filter, oldest first, after the one named: one database transaction. It examines at most
    /// [`EventFilter::MAX_EXAMINED`].
    async fn replay_events(
        &self,
        filter: &EventFilter,
        replay: Replay,
        after: Option<MessageId>,
        limit: u32,
    ) -> Result<Replayed, StoreError>;

    /// Deletes up to `limit` events from before that time, oldest first, with their deliveries; says how many. Those that are
    /// messages still, dead letters, or deliveries to enabled endpoints that are pending are kept.
    async fn purge_events(&self, before: DateTime<Utc>, limit: u32) -> Result<u64, StoreError>;
}

/// Where events are replayed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayTo {
    /// To the enabled endpoints of their customers that ask for them: a delivery that failed starts anew, and one that never was
    /// comes to be. With `delivered`, those that were delivered start anew, too.
    Webhooks {
        /// Also what was delivered.
        delivered: bool,
        /// To this endpoint alone; to all of them where none is named.
        endpoint_id: Option<EndpointId>,
    },
    /// To their queues, those that have one: handlers are idempotent. Pending ones and dead letters stay as they are.
    Queues,
}

/// How events are replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replay {
    /// Where to.
    pub to: ReplayTo,
    /// Only counted: nothing is written.
    pub is_dry_run: bool,
    /// Now.
    pub now: DateTime<Utc>,
}

/// What a replay did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Replayed {
    /// Events that were looked at.
    pub events: u64,
    /// Deliveries or messages that start anew, or would.
    pub replayed: u64,
    /// The last event that was examined, to go on after; `None` where no more follow.
    pub last: Option<MessageId>,
}
