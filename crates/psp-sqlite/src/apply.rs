//! Writing change sets.
//!
//! The usual way writes a whole batch with one statement per table and checks the counts. When a count is off or a
//! constraint speaks (a race was lost, a change set came twice), everything is rolled back and the batch is written one
//! change set at a time, each in a savepoint, to give every one its own verdict.

use async_trait::async_trait;
use psp_domain::ports::{Store, StoreError};
use psp_domain::{ChangeSet, OrderWrite, TransactionWrite, Verdict, batch};
use sqlx::{Connection, SqliteConnection};

use crate::connection::{Durability, SqliteStore, commit, millis, unavailable};
use crate::{attempts, balances, card_tokens, counts, idempotency, orders, payables, queue, refunds, transactions};

#[async_trait]
impl Store for SqliteStore {
    async fn apply_all(&self, changes: Vec<ChangeSet>) -> Result<Vec<Verdict>, StoreError> {
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let (mut writer, mut deliveries) = (self.writer().await?, 0);
        let verdicts = match self.apply_together(&mut writer, &changes, &mut deliveries).await? {
            Some(verdicts) => verdicts,
            None => self.apply_apart(&mut writer, &changes, &mut deliveries).await?,
        };
        drop(writer);
        self.wake(batch::queues(&changes, &verdicts));
        self.wake_deliverers(deliveries);
        Ok(verdicts)
    }
}

impl SqliteStore {
    /// Writes the batch whole, or rolls back and returns `None` when it holds a change set that cannot be applied.
    async fn apply_together(
        &self,
        writer: &mut crate::connection::Writer<'_>,
        changes: &[ChangeSet],
        deliveries: &mut u64,
    ) -> Result<Option<Vec<Verdict>>, StoreError> {
        let now = millis(self.now());
        let mut database = writer.begin(Durability::Full).await?;
        let verdicts = screen(&mut database, changes, now).await.map_err(unavailable)?;
        let fresh = changes.iter().zip(&verdicts).filter(|(_, verdict)| **verdict == Verdict::Applied);
        for round in batch::rounds(fresh.map(|(change, _)| change)) {
            match write(&mut database, &round, now, deliveries).await {
                Ok(true) => {}
                Ok(false) => return rolled_back(database).await,
                Err(error) if is_constraint(&error) => return rolled_back(database).await,
                Err(error) => return Err(unavailable(error)),
            }
        }
        commit(database).await?;
        Ok(Some(verdicts))
    }

    async fn apply_apart(
        &self,
        writer: &mut crate::connection::Writer<'_>,
        changes: &[ChangeSet],
        deliveries: &mut u64,
    ) -> Result<Vec<Verdict>, StoreError> {
        let now = millis(self.now());
        let mut database = writer.begin(Durability::Full).await?;
        let mut verdicts = Vec::with_capacity(changes.len());
        for change in changes {
            let mut savepoint = database.begin().await.map_err(unavailable)?;
            let written = write(&mut savepoint, &[change], now, deliveries).await;
            let verdict = match written {
                Ok(true) => {
                    savepoint.commit().await.map_err(unavailable)?;
                    Verdict::Applied
                }
                Err(error) if !is_constraint(&error) => return Err(unavailable(error)),
                Ok(false) | Err(_) => {
                    savepoint.rollback().await.map_err(unavailable)?;
                    refusal(&mut database, change).await.map_err(unavailable)?
                }
            };
            verdicts.push(verdict);
        }
        commit(database).await?;
        Ok(verdicts)
    }
}

/// The refusal of every change set whose idempotency key is taken, `Applied` for the others: keys come back often enough
/// that they must not send a whole batch the slow way.
async fn screen(
    connection: &mut SqliteConnection,
    changes: &[ChangeSet],
    now: i64,
) -> Result<Vec<Verdict>, sqlx::Error> {
    let mut verdicts = vec![Verdict::Applied; changes.len()];
    let records: Vec<_> = changes.iter().filter_map(|change| change.idempotency.as_ref()).collect();
    let taken = idempotency::taken(connection, &records, now).await?;
    if taken.is_empty() {
        return Ok(verdicts);
    }
    for (change, verdict) in changes.iter().zip(&mut verdicts) {
        let Some(record) = &change.idempotency else { continue };
        if taken.contains(&(record.customer_id.to_string(), record.key.to_string())) {
            *verdict = refusal(connection, change).await?;
        }
    }
    Ok(verdicts)
}

async fn rolled_back(database: sqlx::SqliteTransaction<'_>) -> Result<Option<Vec<Verdict>>, StoreError> {
    database.rollback().await.map_err(unavailable)?;
    Ok(None)
}

/// Writes one round. `false` when a row that must be free is taken, a row has another version than expected, or what a
/// transaction waits for was paid meanwhile; the caller rolls back. Adds to `deliveries` those that its events made.
async fn write(
    connection: &mut SqliteConnection,
    round: &[&ChangeSet],
    now: i64,
    deliveries: &mut u64,
) -> Result<bool, sqlx::Error> {
    let tokens: Vec<_> = round.iter().filter_map(|change| change.spends).collect();
    if !card_tokens::spend(connection, &tokens).await? {
        return Ok(false);
    }
    let keys: Vec<_> = round.iter().filter_map(|change| change.idempotency.as_ref()).collect();
    idempotency::insert(connection, &keys, now).await?;
    let (mut inserts, mut updates) = (Vec::with_capacity(round.len()), Vec::with_capacity(round.len()));
    for change in round {
        match &change.transaction {
            Some(TransactionWrite::Insert(transaction, card)) => inserts.push((&**transaction, card.as_ref())),
            Some(write @ TransactionWrite::Update { expected_version, .. }) => updates.push((write, *expected_version)),
            None => {}
        }
    }
    transactions::insert(connection, &inserts).await?;
    if !transactions::update(connection, &updates).await? {
        return Ok(false);
    }
    if !write_rest(connection, round).await? {
        return Ok(false);
    }
    let changed_attempts: Vec<_> = round.iter().flat_map(|change| &change.attempts).collect();
    attempts::write(connection, &changed_attempts).await?;
    let new_payables: Vec<_> = round.iter().flat_map(|change| &change.payables).collect();
    payables::insert(connection, &new_payables).await?;
    balances::add(connection, &new_payables).await?;
    let refunded = round.iter().filter(|change| !change.refunds.is_empty());
    let refunded: Vec<_> =
        refunded.filter_map(|change| change.transaction.as_ref().map(TransactionWrite::transaction)).collect();
    if transactions::are_settled(connection, &refunded).await? {
        return Ok(false);
    }
    let events: Vec<_> = round.iter().flat_map(|change| &change.events).collect();
    *deliveries += queue::insert_events(connection, &events).await?;
    Ok(true)
}

/// Writes what few change sets have, in statements of its own: most rounds run none of them. `false` when an order has another
/// version than expected.
async fn write_rest(connection: &mut SqliteConnection, round: &[&ChangeSet]) -> Result<bool, sqlx::Error> {
    let changed_orders: Vec<_> = round.iter().filter_map(|change| change.order.as_ref()).collect();
    if !orders::write(connection, &changed_orders).await? {
        return Ok(false);
    }
    let (mut links, mut refunded) = (Vec::new(), Vec::new());
    for change in round {
        match &change.transaction {
            Some(TransactionWrite::Insert(t, _)) => links.extend(t.order.as_ref().map(|order| (t.id, order))),
            Some(TransactionWrite::Update { transaction, .. }) if !change.refunds.is_empty() => {
                refunded.push(&**transaction);
            }
            Some(TransactionWrite::Update { .. }) | None => {}
        }
    }
    transactions::link(connection, &links).await?;
    transactions::update_refunds(connection, &refunded).await?;
    let changed_refunds: Vec<_> = round.iter().flat_map(|change| &change.refunds).collect();
    refunds::write(connection, &changed_refunds).await?;
    let added: Vec<_> = round.iter().flat_map(|change| &change.counts).collect();
    counts::add(connection, &added).await?;
    Ok(true)
}

/// Why a change set that was rolled back could not be applied.
async fn refusal(connection: &mut SqliteConnection, change: &ChangeSet) -> Result<Verdict, sqlx::Error> {
    let is_there = match (change.events.first(), change.attempts.last()) {
        (Some(event), _) => queue::event_exists(connection, event.id).await?,
        (None, Some(attempt)) => attempts::is_there(connection, attempt).await?,
        (None, None) => false,
    };
    if is_there {
        return Ok(Verdict::AlreadyApplied);
    }
    if let Some(TransactionWrite::Update { transaction, expected_version }) = &change.transaction
        && transactions::version(connection, transaction.id).await? != Some(*expected_version)
    {
        return Ok(Verdict::StaleVersion);
    }
    if let Some(OrderWrite::Update { order, expected_version }) = &change.order
        && orders::version(connection, order.id).await? != Some(*expected_version)
    {
        return Ok(Verdict::StaleVersion);
    }
    Ok(Verdict::Duplicate)
}

fn is_constraint(error: &sqlx::Error) -> bool {
    // SQLITE_CONSTRAINT is 19; extended codes keep it in their low byte.
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.and_then(|code| code.parse::<u32>().ok()).is_some_and(|code| code & 0xff == 19)
}
