use async_trait::async_trait;
use psp_domain::ports::{StoreError, VaultKeyStore};

use crate::connection::{Durability, SqliteStore, commit, millis, unavailable};

const FIND: &str = "SELECT wrapped FROM vault_keys WHERE name = ?";

#[async_trait]
impl VaultKeyStore for SqliteStore {
    async fn find(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        sqlx::query_scalar(FIND).bind(name).fetch_optional(&self.readers).await.map_err(unavailable)
    }

    async fn load_or_insert(&self, name: &str, sealed: &[u8]) -> Result<Vec<u8>, StoreError> {
        let mut writer = self.writer().await?;
        let mut database = writer.begin(Durability::Full).await?;
        let sql = "INSERT INTO vault_keys (name, wrapped, created_at, updated_at) VALUES (?1, ?2, ?3, ?3) \
                   ON CONFLICT (name) DO NOTHING";
        let query = sqlx::query(sql).bind(name).bind(sealed).bind(millis(self.now()));
        query.execute(&mut *database).await.map_err(unavailable)?;
        let stored = sqlx::query_scalar(FIND).bind(name).fetch_one(&mut *database).await.map_err(unavailable)?;
        commit(database).await?;
        Ok(stored)
    }

    async fn replace(&self, name: &str, old: &[u8], new: &[u8]) -> Result<bool, StoreError> {
        let mut writer = self.writer().await?;
        let mut database = writer.begin(Durability::Full).await?;
        let sql = "UPDATE vault_keys SET wrapped = ?3, updated_at = ?4 WHERE name = ?1 AND wrapped = ?2";
        let query = sqlx::query(sql).bind(name).bind(old).bind(new).bind(millis(self.now()));
        let replaced = query.execute(&mut *database).await.map_err(unavailable)?.rows_affected();
        commit(database).await?;
        Ok(replaced == 1)
    }
}
