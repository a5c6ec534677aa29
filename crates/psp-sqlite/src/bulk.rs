//! Multi-row statements. A trip to SQLite's thread costs more than a row, so rows travel together: the statement's text
//! exists in a few sizes (powers of two), which stay prepared; unused places are NULL and filtered out.

use std::fmt::Write;

use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments, AssertSqlSafe, Encode, Sqlite, SqliteConnection, Type};

/// A statement over a table of values. `{values}` in the text stands for `SELECT * FROM (VALUES …)` without its unused
/// rows; its columns are `column1`, `column2`, …, and `column1` is never NULL.
pub(crate) struct Bulk {
    text: &'static str,
    columns: usize,
}

/// The bound values of one statement, row after row.
pub(crate) struct Values(SqliteArguments, Result<(), sqlx::Error>);

impl Values {
    /// Binds the next column of the current row.
    pub(crate) fn push<'v, T: Encode<'v, Sqlite> + Type<Sqlite>>(&mut self, value: T) -> &mut Self {
        if self.1.is_ok() {
            self.1 = self.0.add(value).map_err(sqlx::Error::Encode);
        }
        self
    }
}

impl Bulk {
    /// The most rows of one statement; more rows take several.
    const MAX_ROWS: usize = 128;

    pub(crate) const fn new(text: &'static str, columns: usize) -> Self {
        Self { text, columns }
    }

    /// Runs the statement over the rows, which `bind` turns into columns. Returns the number of rows changed.
    pub(crate) async fn execute<T>(
        &self,
        connection: &mut SqliteConnection,
        rows: impl ExactSizeIterator<Item = T>,
        mut bind: impl FnMut(&mut Values, T),
    ) -> Result<u64, sqlx::Error> {
        let (mut rows, mut changed) = (rows, 0);
        while let Some((statement, values)) = self.next(&mut rows, &mut bind)? {
            changed += sqlx::query_with(statement, values).execute(&mut *connection).await?.rows_affected();
        }
        Ok(changed)
    }

    /// Runs statements whose last one asks a question; returns whether it was answered yes.
    pub(crate) async fn execute_and_ask<T>(
        &self,
        connection: &mut SqliteConnection,
        rows: impl ExactSizeIterator<Item = T>,
        mut bind: impl FnMut(&mut Values, T),
    ) -> Result<bool, sqlx::Error> {
        let (mut rows, mut answer) = (rows, false);
        while let Some((statement, values)) = self.next(&mut rows, &mut bind)? {
            answer |= sqlx::query_scalar_with::<_, bool, _>(statement, values).fetch_one(&mut *connection).await?;
        }
        Ok(answer)
    }

    /// The next statement with its values; `None` after the last row.
    fn next<T>(
        &self,
        rows: &mut impl ExactSizeIterator<Item = T>,
        mut bind: impl FnMut(&mut Values, T),
    ) -> Result<Option<(AssertSqlSafe<String>, SqliteArguments)>, sqlx::Error> {
        let count = rows.len().min(Self::MAX_ROWS);
        if count == 0 {
            return Ok(None);
        }
        let mut values = Values(SqliteArguments::default(), Ok(()));
        values.0.reserve(count * self.columns, 0);
        for row in rows.by_ref().take(count) {
            bind(&mut values, row);
        }
        values.1?;
        debug_assert_eq!(values.0.len(), count * self.columns, "{}", self.text);
        Ok(Some((AssertSqlSafe(self.sql(count.next_power_of_two())), values.0)))
    }

    /// The statement's text for that many rows.
    pub(crate) fn sql(&self, rows: usize) -> String {
        let mut values = String::with_capacity(64 + rows * (self.columns * 2 + 2));
        values.push_str("SELECT * FROM (VALUES ");
        for row in 0..rows {
            values.push_str(if row == 0 { "(?" } else { ",(?" });
            (1..self.columns).for_each(|_| values.push_str(",?"));
            values.push(')');
        }
        let _ = write!(values, ") WHERE column1 IS NOT NULL");
        self.text.replace("{values}", &values)
    }
}
