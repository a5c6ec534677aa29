use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// When the leases of this process end, by their receipts.
#[derive(Default)]
pub(crate) struct Leases(Mutex<HashMap<String, Instant>>);

impl Leases {
    /// Forgotten leases are swept out when there are that many more.
    const SWEEP: usize = 4_096;

    /// A lease begins, or is prolonged.
    pub(crate) fn begin(&self, receipt: &str, length: Duration) {
        let (mut leases, now) = (self.lock(), Instant::now());
        if leases.len() >= Self::SWEEP && leases.len().is_multiple_of(Self::SWEEP) {
            leases.retain(|_, end| *end > now);
        }
        leases.insert(receipt.to_owned(), now + length);
    }

    /// Whether the lease still holds.
    pub(crate) fn holds(&self, receipt: &str) -> bool {
        self.lock().get(receipt).is_some_and(|end| *end > Instant::now())
    }

    /// Ends a lease; whether it still held.
    pub(crate) fn end(&self, receipt: &str) -> bool {
        self.lock().remove(receipt).is_some_and(|end| end > Instant::now())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
