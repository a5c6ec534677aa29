//! Ids of rows that statements make.

use chrono::{DateTime, Utc};

/// The first 15 characters of a UUIDv7 (RFC 9562, section 5.7) of that time: 48 bits of milliseconds and the version.
/// Postgres appends the rest of a random UUID, whose variant stands in the same place.
pub(crate) fn id_prefix(now: DateTime<Utc>) -> String {
    let time = format!("{:012x}", now.timestamp_millis().max(0));
    format!("{}-{}-7", &time[..8], &time[8..])
}
