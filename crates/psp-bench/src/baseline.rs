use std::path::Path;
use std::time::{Duration, Instant};

use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Connection, SqliteConnection};
use uuid::Uuid;

static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations/sqlite");

/// Inserts a transaction and its outbox row, one commit each pair, into the product's tables and indexes, in a fresh file.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
#[expect(clippy::disallowed_methods, reason = "the ids that the product would make")]
pub(crate) async fn inserts_per_second(dir: &Path, duration: Duration) -> anyhow::Result<f64> {
    let dir = tempfile::tempdir_in(dir)?;
    let options = SqliteConnectOptions::new()
        .filename(dir.path().join("baseline.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("cache_size", "-8192")
        .pragma("wal_autocheckpoint", "4096");
    let mut connection = SqliteConnection::connect_with(&options).await?;
    MIGRATIONS.run(&mut connection).await?;
    let (begun, mut pairs) = (Instant::now(), 0_u64);
    while begun.elapsed() < duration {
        let (id, now) = (Uuid::now_v7(), 1_795_000_000_000_i64);
        let mut database = connection.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query(
            "INSERT INTO transactions (id, customer_id, description, amount, currency, payment_method, card_holder_name, \
             card_expiry, card_last_four, card_brand, installments, status, version, created_at, updated_at, sealed_card) \
             VALUES (?, '123', 'Lightsaber 00000001', 2500, 'BRL', 'credit_card', 'Luke Skywalker', 202510, '1111', 'visa', 1, \
             'processing', 1, ?, ?, zeroblob(129))",
        )
        .bind(id)
        .bind(now)
        .bind(now)
        .execute(&mut *database)
        .await?;
        sqlx::query(
            "INSERT INTO outbox (id, kind, aggregate_id, sequence, customer_id, body, sent_at, queue, visible_at) VALUES \
             (?, 'transaction.created', ?, 1, '123', '{\"status\":\"processing\",\"amount\":2500,\"currency\":\"BRL\"}', \
             ?, 'transactions', ?)",
        )
        .bind(Uuid::now_v7())
        .bind(id)
        .bind(now)
        .bind(now)
        .execute(&mut *database)
        .await?;
        database.commit().await?;
        pairs += 1;
    }
    let rate = pairs as f64 / begun.elapsed().as_secs_f64();
    connection.close().await?;
    Ok(rate)
}
