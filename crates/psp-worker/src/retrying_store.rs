use std::sync::Arc;

use async_trait::async_trait;
use backon::Retryable;
use psp_domain::ports::{Store, StoreError};
use psp_domain::{ChangeSet, Verdict};

use crate::retry::in_place;
use crate::transactions::is_passing;

/// Writes again what a store failed to write, a few times in place: a handler must not ask a gateway again for what the
/// store did. The same change sets have one effect.
pub struct RetryingStore {
    inner: Arc<dyn Store>,
}

impl RetryingStore {
    /// The store, asked again.
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner }
    }
}

#[async_trait]
impl Store for RetryingStore {
    async fn apply_all(&self, changes: Vec<ChangeSet>) -> Result<Vec<Verdict>, StoreError> {
        (|| self.inner.apply_all(changes.clone())).retry(in_place()).when(is_passing).await
    }
}
