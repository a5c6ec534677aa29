//! RFC 3339 with milliseconds, UTC.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serializer;

pub(crate) fn serialize<S: Serializer>(time: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time.to_rfc3339_opts(SecondsFormat::Millis, true))
}
