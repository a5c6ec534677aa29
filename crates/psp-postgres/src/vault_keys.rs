use async_trait::async_trait;
use psp_domain::ports::{StoreError, VaultKeyStore};

use crate::classify::{damaged, repeat};
use crate::connection::PgStore;

#[async_trait]
impl VaultKeyStore for PgStore {
    async fn find(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        repeat(|| {
            let query = sqlx::query_scalar!("SELECT wrapped FROM vault_keys WHERE name = $1", name);
            query.fetch_optional(&self.reads)
        })
        .await
    }

    async fn load_or_insert(&self, name: &str, sealed: &[u8]) -> Result<Vec<u8>, StoreError> {
        let now = self.now();
        let inserted = repeat(|| {
            let query = sqlx::query!(
                "INSERT INTO vault_keys (name, wrapped, created_at, updated_at) VALUES ($1, $2, $3, $3) \
                 ON CONFLICT (name) DO NOTHING",
                name,
                sealed,
                now
            );
            query.execute(&self.writes)
        });
        inserted.await?;
        self.find(name).await?.ok_or_else(|| damaged("vault_keys"))
    }

    async fn replace(&self, name: &str, old: &[u8], new: &[u8]) -> Result<bool, StoreError> {
        let now = self.now();
        // Done twice, when an answer was lost, it finds the new key in place.
        let replaced = repeat(|| {
            let query = sqlx::query!(
                "UPDATE vault_keys SET wrapped = $3, updated_at = $4 WHERE name = $1 AND wrapped IN ($2, $3)",
                name,
                old,
                new,
                now
            );
            query.execute(&self.writes)
        });
        Ok(replaced.await?.rows_affected() == 1)
    }
}
