//! The schema: its migrations, and the login of services that use it without owning it.

use std::collections::HashSet;

use sqlx::migrate::Migrator;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::{OpenError, PgOptions, PgStore};

/// The migrations of this program. Those of a later one are no fault: a release that is rolled back finds the newer schema.
fn migrations() -> Migrator {
    let mut migrations = sqlx::migrate!("../../migrations/postgres");
    migrations.set_ignore_missing(true);
    migrations
}

impl PgStore {
    /// Creates and migrates the schema; returns the migrations that it applied. Where it is up to date, reading is all that
    /// it does.
    ///
    /// # Errors
    /// [`OpenError`], with the driver's error as its source.
    pub async fn migrate(options: &PgOptions) -> Result<Vec<String>, OpenError> {
        // A migration may take as long as it needs, but must not wait for a lock that others queue up behind.
        let connect = options.connect().await.map_err(OpenError::Open)?.options([("statement_timeout", "0")]);
        let mut connection = PgConnection::connect_with(&connect).await.map_err(OpenError::Open)?;
        let applied = applied(&mut connection).await;
        let migrations = migrations();
        let is_applied = |checksum: &[u8], version| applied.contains(&(version, checksum.to_vec()));
        let fresh: Vec<_> = migrations.iter().filter(|m| !is_applied(&m.checksum, m.version)).collect();
        if !fresh.is_empty() {
            migrations.run(&mut connection).await.map_err(OpenError::Migrate)?;
        }
        connection.close().await.map_err(OpenError::Open)?;
        Ok(fresh.iter().map(|m| format!("{:04}_{}", m.version, m.description.replace(' ', "_"))).collect())
    }

    /// Lets a login read and write the tables, and no more: not change the schema. Creates the login where it is missing,
    /// without a password; on RDS it logs in with IAM tokens.
    ///
    /// # Errors
    /// [`OpenError::Open`], with the driver's error as its source.
    pub async fn grant(options: &PgOptions, login: &str) -> Result<(), OpenError> {
        let connect = options.connect().await.map_err(OpenError::Open)?;
        let mut connection = PgConnection::connect_with(&connect).await.map_err(OpenError::Open)?;
        let statements: Vec<String> =
            sqlx::query_scalar(GRANTS).bind(login).fetch_all(&mut connection).await.map_err(OpenError::Open)?;
        for statement in statements {
            // Postgres itself has quoted the name.
            sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await.map_err(OpenError::Open)?;
        }
        connection.close().await.map_err(OpenError::Open)
    }
}

/// The statements that make a login fit, in order. Named statements cannot take a role as a parameter.
const GRANTS: &str = "\
    SELECT format('CREATE ROLE %I LOGIN', $1) WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = $1) \
    UNION ALL SELECT format('GRANT rds_iam TO %I', $1) WHERE EXISTS (SELECT FROM pg_roles WHERE rolname = 'rds_iam') \
    UNION ALL SELECT format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), $1) \
    UNION ALL SELECT format('GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA %I TO %I', current_schema(), $1) \
    UNION ALL SELECT format('REVOKE INSERT, UPDATE, DELETE ON _sqlx_migrations FROM %I', $1)";

/// Versions and checksums. The table does not exist before the first migration.
async fn applied(connection: &mut PgConnection) -> HashSet<(i64, Vec<u8>)> {
    let rows =
        sqlx::query_as("SELECT version, checksum FROM _sqlx_migrations WHERE success").fetch_all(connection).await;
    rows.unwrap_or_default().into_iter().collect()
}
