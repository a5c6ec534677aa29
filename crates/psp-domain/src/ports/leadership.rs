use async_trait::async_trait;

use super::StoreError;

/// One of several processes leads. Work under it must be safe all the same: a leader that was cut off may not know yet.
#[async_trait]
pub trait Leadership: Send + Sync {
    /// Whether this process leads now; takes the lead where nobody has it.
    async fn lead(&self) -> Result<bool, StoreError>;

    /// Leaves the lead to others at once.
    async fn resign(&self);
}
