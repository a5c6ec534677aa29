//! Who may be in hand: so many deliveries in all, so many of one customer, and so many of one endpoint, so that those that hang
//! leave room for the others.
//!
//! The store knows nothing of what is in hand, so a claim may bring more of a customer than may be, or several of an endpoint that
//! fails. What is too much waits beside the places, for a while.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use psp_domain::{CustomerId, EndpointId, WebhookEndpoint};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// How long a claim waits for more places than one: short beside any attempt over a network.
const MOMENT: Duration = Duration::from_millis(2);

pub(crate) struct Places {
    room: Arc<Semaphore>,
    /// So many free places are worth a claim: it costs much the same for one delivery as for many.
    worth: u32,
    per_customer: usize,
    per_endpoint: usize,
    taken: Mutex<HashMap<CustomerId, Customer>>,
    /// Told when an endpoint or a customer that had enough may have more.
    freed: Notify,
}

/// What is in hand of a customer, or waits.
struct Customer {
    room: Arc<Semaphore>,
    count: usize,
    /// Those of which something was in hand since nothing was of the customer.
    endpoints: HashMap<EndpointId, Endpoint>,
}

/// What is in hand of an endpoint, or waits.
struct Endpoint {
    /// For one: those that fail are attempted one after the other.
    room: Arc<Semaphore>,
    count: usize,
    is_failing: bool,
}

/// A delivery that was claimed: counted until it is dropped.
pub(crate) struct Claimed {
    places: Arc<Places>,
    customer: CustomerId,
    endpoint: EndpointId,
    /// Where it needs a place, in the order in which they are taken.
    rooms: Vec<Arc<Semaphore>>,
    permits: Vec<OwnedSemaphorePermit>,
}

impl Places {
    /// What part of all places one customer may have.
    const CUSTOMER_PART: usize = 8;
    /// How long what was claimed may wait for its place.
    pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

    /// A customer may have an eighth of the places, and always more than one of its endpoints can fill.
    pub(crate) fn new(in_all: usize, per_endpoint: u32) -> Self {
        let (in_all, per_endpoint) = (in_all.max(1), (per_endpoint as usize).max(1));
        let enough = per_endpoint + per_endpoint.div_ceil(2);
        Self {
            room: Arc::new(Semaphore::new(in_all)),
            worth: u32::try_from(in_all / 4).unwrap_or(u32::MAX).max(1),
            per_customer: (in_all / Self::CUSTOMER_PART).max(enough),
            per_endpoint,
            taken: Mutex::default(),
            freed: Notify::new(),
        }
    }

    /// The most that one claim brings of one endpoint: half of what it may have, so that it always has something in hand while
    /// more is fetched.
    pub(crate) fn share(&self) -> u32 {
        u32::try_from(self.per_endpoint.div_ceil(2)).unwrap_or(u32::MAX)
    }

    /// How many are free: at least one, and as many as are worth a claim where they come within a moment.
    pub(crate) async fn free(&self) -> u32 {
        // Closed by nobody.
        let _ = self.room.acquire().await;
        let _ = timeout(MOMENT, self.room.acquire_many(self.worth)).await;
        u32::try_from(self.room.available_permits()).unwrap_or(u32::MAX).max(1)
    }

    /// The endpoints that another share would be too much for, and all that are known of the customers that have enough.
    pub(crate) fn full(&self) -> Vec<EndpointId> {
        let taken = self.taken();
        let of_customer = |customer: &Customer| {
            let all = self.has_enough(customer);
            let full = customer.endpoints.iter().filter(|(_, endpoint)| all || self.is_full(endpoint));
            full.map(|(id, _)| *id).collect::<Vec<_>>()
        };
        taken.values().flat_map(of_customer).collect()
    }

    fn has_enough(&self, customer: &Customer) -> bool {
        customer.count >= self.per_customer
    }

    /// An endpoint that fails gets nothing more while something of it is in hand.
    fn is_full(&self, endpoint: &Endpoint) -> bool {
        endpoint.count > 0
            && (endpoint.is_failing || endpoint.count + self.per_endpoint.div_ceil(2) > self.per_endpoint)
    }

    /// Counts a delivery that was claimed; it has its place at once where there is one.
    pub(crate) fn count(self: &Arc<Self>, endpoint: &WebhookEndpoint) -> Claimed {
        let is_failing = endpoint.failing_since.is_some();
        let mut taken = self.taken();
        let customer =
            taken.entry(endpoint.customer_id.clone()).or_insert_with(|| Customer::with_room(self.per_customer));
        customer.count += 1;
        let own = customer.endpoint(endpoint.id);
        own.count += 1;
        own.is_failing = is_failing;
        let alone = is_failing.then(|| Arc::clone(&own.room));
        let rooms = alone.into_iter().chain([Arc::clone(&customer.room), Arc::clone(&self.room)]).collect();
        drop(taken);
        let (customer, endpoint) = (endpoint.customer_id.clone(), endpoint.id);
        let mut claimed = Claimed { places: Arc::clone(self), customer, endpoint, rooms, permits: Vec::new() };
        claimed.take_what_is_free();
        claimed
    }

    /// Waits until an endpoint or a customer that had enough may have more.
    pub(crate) async fn freed(&self) {
        self.freed.notified().await;
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<CustomerId, Customer>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Customer {
    fn with_room(per_customer: usize) -> Self {
        Self { room: Arc::new(Semaphore::new(per_customer)), count: 0, endpoints: HashMap::new() }
    }

    fn endpoint(&mut self, id: EndpointId) -> &mut Endpoint {
        // Endpoints come and go.
        if self.endpoints.len() > WebhookEndpoint::MAX_PER_CUSTOMER as usize {
            self.endpoints.retain(|_, endpoint| endpoint.count > 0);
        }
        let new = || Endpoint { room: Arc::new(Semaphore::new(1)), count: 0, is_failing: false };
        self.endpoints.entry(id).or_insert_with(new)
    }
}

impl Claimed {
    fn take_what_is_free(&mut self) {
        while let Some(room) = self.rooms.get(self.permits.len())
            && let Ok(permit) = Arc::clone(room).try_acquire_owned()
        {
            self.permits.push(permit);
        }
    }

    /// Waits for its place. `None` when there was none in time.
    pub(crate) async fn placed(mut self) -> Option<Self> {
        timeout(Places::PATIENCE, self.take_all()).await.ok()??;
        Some(self)
    }

    async fn take_all(&mut self) -> Option<()> {
        while let Some(room) = self.rooms.get(self.permits.len()) {
            self.permits.push(Arc::clone(room).acquire_owned().await.ok()?);
        }
        Some(())
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        let (places, mut taken) = (&self.places, self.places.taken());
        let Some(customer) = taken.get_mut(&self.customer) else { return };
        let had_enough = places.has_enough(customer);
        customer.count = customer.count.saturating_sub(1);
        let mut is_freed = had_enough && !places.has_enough(customer);
        if let Some(own) = customer.endpoints.get_mut(&self.endpoint) {
            let was_full = places.is_full(own);
            own.count = own.count.saturating_sub(1);
            is_freed |= was_full && !places.is_full(own);
        }
        if is_freed {
            places.freed.notify_one();
        }
        if customer.count == 0 {
            taken.remove(&self.customer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;
    use psp_domain::{EndpointStatus, SealedSecret};

    fn endpoint(customer: &str, number: u128, is_failing: bool) -> WebhookEndpoint {
        let at = DateTime::UNIX_EPOCH;
        WebhookEndpoint {
            id: EndpointId(uuid::Uuid::from_u128(number)),
            customer_id: customer.parse().unwrap(),
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
    async fn no_endpoint_has_more_than_its_share_in_hand_and_one_that_fails_gets_no_second_share() {
        for limit in 1..=11 {
            let places = Arc::new(Places::new(100, limit));
            for failing in [false, true] {
                let (one, mut held) = (endpoint("123", 1, failing), Vec::new());
                while !places.full().contains(&one.id) {
                    held.extend((0..places.share()).map(|_| places.count(&one)));
                }
                let most = if failing { places.share() } else { limit };
                assert!(held.len() <= most as usize, "{} of {limit}", held.len());
                assert!(!places.full().contains(&endpoint("123", 2, failing).id));
                drop(held);
                assert!(places.full().is_empty() && places.taken().is_empty());
                places.freed().await;
            }
        }
    }

    #[tokio::test]
    async fn a_customer_that_has_enough_leaves_the_rest_to_others_and_its_next_takes_a_place_that_it_leaves() {
        let places = Arc::new(Places::new(160, 10));
        let mut claimed: Vec<_> = (0..100).map(|n| places.count(&endpoint("123", n / 5, false))).collect();
        assert_eq!(places.full().len(), 20, "all of its endpoints");
        assert_eq!(places.free().await, 140, "an eighth of them is its");
        let last = tokio::spawn(claimed.split_off(20).swap_remove(0).placed());
        tokio::task::yield_now().await;
        assert!(!last.is_finished());
        let other = places.count(&endpoint("456", 1_000, false));
        assert!(other.placed().await.is_some());
        drop(claimed.pop());
        let last = last.await.unwrap();
        assert!(last.is_some());
        drop((claimed, last));
        places.freed().await;
    }

    #[tokio::test(start_paused = true)]
    async fn of_an_endpoint_that_fails_one_is_attempted_at_a_time_and_none_waits_for_ever() {
        let places = Arc::new(Places::new(100, 10));
        let failing = endpoint("123", 1, true);
        let [first, second, third] = [(); 3].map(|()| places.count(&failing));
        assert_eq!(places.free().await, 99);
        let first = first.placed().await.unwrap();
        let second = tokio::spawn(second.placed());
        tokio::task::yield_now().await;
        drop(first);
        let _second = second.await.unwrap().unwrap();
        assert!(third.placed().await.is_none());
    }

    #[tokio::test]
    async fn places_are_free_again_when_they_are_left() {
        let places = Arc::new(Places::new(2, 10));
        let one = places.count(&endpoint("123", 1, false));
        assert_eq!(places.free().await, 1);
        let two = places.count(&endpoint("123", 2, false));
        assert_eq!(places.room.available_permits(), 0);
        drop((one, two));
        assert_eq!(places.free().await, 2);
    }
}
