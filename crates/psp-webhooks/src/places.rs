//! Who may be in hand: so many deliveries in all, and so many of one endpoint, so that those that hang leave room for the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use psp_domain::{EndpointId, WebhookEndpoint};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// How long a claim waits for more places than one: short beside any attempt over a network.
const MOMENT: Duration = Duration::from_millis(2);

pub(crate) struct Places {
    room: Arc<Semaphore>,
    /// So many free places are worth a claim: it costs much the same for one delivery as for many.
    worth: u32,
    per_endpoint: u32,
    taken: Mutex<HashMap<EndpointId, Taken>>,
    /// Told when an endpoint that had enough in hand may have more.
    freed: Notify,
}

#[derive(Clone, Copy, Default)]
struct Taken {
    count: u32,
    is_failing: bool,
}

/// The place of one delivery: free again when it is dropped.
pub(crate) struct Place {
    places: Arc<Places>,
    endpoint: EndpointId,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    pub(crate) fn new(in_all: usize, per_endpoint: u32) -> Self {
        Self {
            room: Arc::new(Semaphore::new(in_all.max(1))),
            worth: u32::try_from(in_all / 4).unwrap_or(u32::MAX).max(1),
            per_endpoint: per_endpoint.max(1),
            taken: Mutex::default(),
            freed: Notify::new(),
        }
    }

    /// The most that one claim brings of one endpoint: half of what it may have, so that it always has something in hand while
    /// more is fetched.
    pub(crate) fn share(&self) -> u32 {
        self.per_endpoint.div_ceil(2)
    }

    /// How many are free: at least one, and as many as are worth a claim where they come within a moment.
    pub(crate) async fn free(&self) -> u32 {
        // Closed by nobody.
        let _ = self.room.acquire().await;
        let _ = timeout(MOMENT, self.room.acquire_many(self.worth)).await;
        u32::try_from(self.room.available_permits()).unwrap_or(u32::MAX).max(1)
    }

    /// The endpoints that another share would be too much for.
    pub(crate) fn full(&self) -> Vec<EndpointId> {
        let taken = self.taken();
        taken.iter().filter(|(_, taken)| self.is_full(**taken)).map(|(id, _)| *id).collect()
    }

    /// An endpoint that fails gets nothing more while something of it is in hand: what hangs fills no more than a share.
    fn is_full(&self, taken: Taken) -> bool {
        taken.count > 0 && (taken.is_failing || taken.count + self.share() > self.per_endpoint)
    }

    /// A place for a delivery that was claimed.
    pub(crate) async fn take(self: &Arc<Self>, endpoint: &WebhookEndpoint) -> Option<Place> {
        let permit = Arc::clone(&self.room).acquire_owned().await.ok()?;
        let mut taken = self.taken();
        let own = taken.entry(endpoint.id).or_default();
        own.count += 1;
        own.is_failing = endpoint.failing_since.is_some();
        Some(Place { places: Arc::clone(self), endpoint: endpoint.id, _permit: permit })
    }

    /// Waits until an endpoint that had enough may have more.
    pub(crate) async fn freed(&self) {
        self.freed.notified().await;
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<EndpointId, Taken>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        let Some(own) = taken.get_mut(&self.endpoint) else { return };
        let was_full = self.places.is_full(*own);
        own.count = own.count.saturating_sub(1);
        if was_full && !self.places.is_full(*own) {
            self.places.freed.notify_one();
        }
        if own.count == 0 {
            taken.remove(&self.endpoint);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;
    use psp_domain::{EndpointStatus, SealedSecret};

    fn endpoint(number: u128, is_failing: bool) -> WebhookEndpoint {
        let at = DateTime::UNIX_EPOCH;
        WebhookEndpoint {
            id: EndpointId(uuid::Uuid::from_u128(number)),
            customer_id: "123".parse().unwrap(),
            url: String::new(),
            events: Vec::new(),
            description: String::new(),
            status: EndpointStatus::Enabled,
            disabled_reason: None,
            secret: SealedSecret(Vec::new()),
            previous_secret: None,
            failing_since: is_failing.then_some(at),
            version: 1,
            sequence: 0,
            created_at: at,
            updated_at: at,
        }
    }

    #[tokio::test]
    async fn no_endpoint_has_more_than_its_share_in_hand_and_one_that_fails_has_half_of_it() {
        for limit in 1..=11 {
            let places = Arc::new(Places::new(100, limit));
            for failing in [false, true] {
                let (one, mut held) = (endpoint(1, failing), Vec::new());
                while !places.full().contains(&one.id) {
                    for _ in 0..places.share() {
                        held.push(places.take(&one).await.unwrap());
                    }
                }
                let most = if failing { places.share() } else { limit };
                assert!(held.len() <= most as usize, "{} of {limit}", held.len());
                assert!(!places.full().contains(&endpoint(2, failing).id));
                drop(held);
                assert!(places.full().is_empty() && places.taken().is_empty());
                places.freed().await;
            }
        }
    }

    #[tokio::test]
    async fn places_are_free_again_when_they_are_left() {
        let places = Arc::new(Places::new(2, 10));
        let one = places.take(&endpoint(1, false)).await;
        assert_eq!(places.free().await, 1);
        let two = places.take(&endpoint(2, false)).await;
        assert_eq!(places.room.available_permits(), 0);
        drop((one, two));
        assert_eq!(places.free().await, 2);
    }
}
