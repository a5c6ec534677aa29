use async_trait::async_trait;
use chrono::{DateTime, Utc};
use psp_domain::ports::{EventStore, Replay, ReplayTo, Replayed, StoreError};
use psp_domain::{CustomerId, DeliveryStatus, EndpointId, Event, EventFilter, MessageId, Page, PageRequest};
use uuid::Uuid;

use super::Memory;
use super::memory_queue::Stored;
use super::memory_store::{State, page};
use super::memory_webhooks::is_enabled;

fn is_meant(filter: &EventFilter, event: &Event) -> bool {
    filter.customer_id.as_ref().is_none_or(|customer| *customer == event.customer_id)
        && (filter.kinds.is_empty() || filter.kinds.contains(&event.kind))
        && filter.aggregate_id.is_none_or(|id| id == event.aggregate_id)
        && filter.from.is_none_or(|from| event.occurred_at >= from)
        && filter.to.is_none_or(|to| event.occurred_at < to)
}

impl State {
    /// The events of a filter, oldest first.
    fn meant(&self, filter: &EventFilter) -> Vec<Event> {
        let mut meant: Vec<_> = self.events.iter().filter(|event| is_meant(filter, event)).cloned().collect();
        meant.sort_unstable_by_key(|event| event.id);
        meant
    }

    /// Those of them among the first that are examined, and the last of these where more follow.
    fn walk(&self, filter: &EventFilter, begin: impl Fn(Uuid) -> bool, is_back: bool) -> (Vec<Event>, Option<Uuid>) {
        let own = EventFilter { customer_id: filter.customer_id.clone(), ..EventFilter::default() };
        let mut walked = self.meant(&own);
        if is_back {
            walked.reverse();
        }
        walked.retain(|event| begin(event.id.0));
        let most = if filter.is_selective() { EventFilter::MAX_EXAMINED as usize } else { usize::MAX };
        let walked_to = most.checked_sub(1).and_then(|last| walked.get(last)).map(|event| event.id.0);
        walked.truncate(most);
        walked.retain(|event| is_meant(filter, event));
        (walked, walked_to)
    }

    /// To how many endpoints an event is replayed.
    fn replay_to_webhooks(
        &mut self,
        event: &Event,
        delivered: bool,
        endpoint_id: Option<EndpointId>,
        replay: Replay,
    ) -> u64 {
        let mut to = self.endpoints_for(event);
        to.retain(|id| endpoint_id.is_none_or(|asked| asked == *id));
        to.retain(|id| match self.deliveries.get(&(event.id, *id)).map(|delivery| delivery.status) {
            None | Some(DeliveryStatus::Failed) => true,
            Some(DeliveryStatus::Delivered) => delivered,
            Some(DeliveryStatus::Pending) => false,
        });
        for id in to.iter().filter(|_| !replay.is_dry_run) {
            self.deliver_again(event.id, *id, replay.now);
        }
        to.len() as u64
    }

    /// Whether an event is a message again.
    fn replay_to_queue(&mut self, event: &Event, replay: Replay) -> bool {
        let queue = event.kind.queue().filter(|_| self.messages.get(&event.id.0).is_none_or(Stored::is_done));
        if let Some(queue) = queue.filter(|_| !replay.is_dry_run) {
            self.messages.insert(event.id.0, Stored::of_event(event, queue, replay.now));
        }
        queue.is_some()
    }

    /// Whether something is still to be done with an event.
    fn is_needed(&self, event: &Event) -> bool {
        let pending = |(_, endpoint)| {
            let delivery = &self.deliveries[&(event.id, endpoint)];
            delivery.status == DeliveryStatus::Pending && self.endpoints.get(&endpoint.0).is_some_and(is_enabled)
        };
        let own = self.deliveries.keys().filter(|(id, _)| *id == event.id);
        self.messages.get(&event.id.0).is_some_and(|message| !message.is_done()) || own.copied().any(pending)
    }
}

#[async_trait]
impl EventStore for Memory {
    async fn find_event(&self, customer: &CustomerId, id: MessageId) -> Result<Option<Event>, StoreError> {
        Ok(self.state().events.iter().find(|e| e.id == id && e.customer_id == *customer).cloned())
    }

    async fn list_events(&self, filter: &EventFilter, request: PageRequest) -> Result<Page<Event>, StoreError> {
        let begin = |id| request.after().is_none_or(|after| id < after);
        let (events, walked_to) = self.state().walk(filter, begin, true);
        let found = page(events.into_iter(), request, |event| event.id.0);
        Ok(Page { next: found.next.or(walked_to), ..found })
    }

    async fn replay_events(
        &self,
        filter: &EventFilter,
        replay: Replay,
        after: Option<MessageId>,
        limit: u32,
    ) -> Result<Replayed, StoreError> {
        let mut state = self.state();
        let (mut meant, walked_to) = state.walk(filter, |id| after.is_none_or(|after| id > after.0), false);
        let more = meant.len() > limit as usize;
        meant.truncate(limit as usize);
        let mut replayed = Replayed { events: meant.len() as u64, ..Replayed::default() };
        for event in &meant {
            replayed.replayed += match replay.to {
                ReplayTo::Webhooks { delivered, endpoint_id } => {
                    state.replay_to_webhooks(event, delivered, endpoint_id, replay)
                }
                ReplayTo::Queues => u64::from(state.replay_to_queue(event, replay)),
            };
        }
        drop(state);
        self.wake();
        let last = meant.last().map(|event| event.id).filter(|_| more);
        replayed.last = last.or(walked_to.map(MessageId));
        Ok(replayed)
    }

    async fn purge_events(&self, before: DateTime<Utc>, limit: u32) -> Result<u64, StoreError> {
        let mut state = self.state();
        let mut old = state.meant(&EventFilter { to: Some(before), ..EventFilter::default() });
        old.retain(|event| !state.is_needed(event));
        old.truncate(limit as usize);
        for event in &old {
            state.forget_event(event.id);
        }
        Ok(old.len() as u64)
    }
}
