//! Pages of a list, newest first.

use uuid::Uuid;

/// Where a page starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// The n-th page, from 1: skips `(n − 1) × limit` rows, so it costs as much as it skips.
    Page(u32),
    /// After the row of this id: costs the same at any depth.
    After(Uuid),
}

/// Which part of a list is asked for.
///
/// ```
/// use psp_domain::{PageRequest, Position};
/// assert!(PageRequest::new(Position::Page(1), 100).is_ok());
/// assert!(PageRequest::new(Position::Page(0), 100).is_err());
/// assert!(PageRequest::new(Position::Page(1), 201).is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRequest {
    position: Position,
    limit: u32,
}

/// Why a page request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPage {
    /// The limit is out of range.
    #[error("limit must be from 1 to {}", PageRequest::MAX_LIMIT)]
    Limit,
    /// There is no such page.
    #[error("page must be from 1 to {}; deeper, follow the cursor of the Link header", PageRequest::MAX_PAGE)]
    Page,
}

impl PageRequest {
    /// The number of rows when none is asked for.
    pub const DEFAULT_LIMIT: u32 = 100;
    /// The most rows of one page.
    pub const MAX_LIMIT: u32 = 200;
    /// The deepest numbered page.
    pub const MAX_PAGE: u32 = 1_000;

    /// A page of at most `limit` rows.
    ///
    /// # Errors
    /// When the limit is not 1 to [`Self::MAX_LIMIT`] or the page is not 1 to [`Self::MAX_PAGE`].
    pub fn new(position: Position, limit: u32) -> Result<Self, InvalidPage> {
        if !(1..=Self::MAX_LIMIT).contains(&limit) {
            return Err(InvalidPage::Limit);
        }
        if matches!(position, Position::Page(n) if !(1..=Self::MAX_PAGE).contains(&n)) {
            return Err(InvalidPage::Page);
        }
        Ok(Self { position, limit })
    }

    /// The most rows.
    pub const fn limit(self) -> u32 {
        self.limit
    }

    /// The id after which the page starts, if it is given by one.
    pub const fn after(self) -> Option<Uuid> {
        match self.position {
            Position::Page(_) => None,
            Position::After(id) => Some(id),
        }
    }

    /// How many rows are skipped.
    pub const fn offset(self) -> u32 {
        match self.position {
            Position::Page(n) => (n - 1) * self.limit,
            Position::After(_) => 0,
        }
    }
}

impl Default for PageRequest {
    fn default() -> Self {
        Self { position: Position::Page(1), limit: Self::DEFAULT_LIMIT }
    }
}

/// Rows of a list, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// The id to go on after, where more rows may follow.
    pub next: Option<Uuid>,
}

impl<T> Page<T> {
    /// The page of `rows`, read with one row more than `limit` to learn whether more follow.
    pub fn from_rows(mut rows: Vec<T>, request: PageRequest, id: impl Fn(&T) -> Uuid) -> Self {
        let limit = request.limit as usize;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = if more { rows.last().map(id) } else { None };
        Self { items: rows, next }
    }

    /// The same, of rows that were found on a walk. Where it ended before the list did, `walked_to` is the last row that was
    /// examined: the page may be shorter than `limit`, even empty, and goes on there.
    pub fn from_walk(rows: Vec<T>, request: PageRequest, walked_to: Option<Uuid>, id: impl Fn(&T) -> Uuid) -> Self {
        let page = Self::from_rows(rows, request, id);
        Self { next: page.next.or(walked_to), ..page }
    }
}
