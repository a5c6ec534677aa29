//! Ids of rows that statements make.

/// A fresh UUIDv7 for each row: the parameter is the [`id_prefix`] of one time, the rest is random.
macro_rules! fresh_id {
    ($prefix:literal) => {
        concat!("CAST(", $prefix, " || randomblob(7) AS BLOB)")
    };
}

pub(crate) use fresh_id;

/// Bytes 0 to 8 of a UUIDv7 (RFC 9562, section 5.7) of that time: 48 bits of milliseconds, version, variant. SQLite appends
/// 56 random bits.
pub(crate) fn id_prefix(now: i64) -> Vec<u8> {
    let [_, _, time @ ..] = now.max(0).to_be_bytes();
    [&time[..], &[0x70, 0x00, 0x80]].concat()
}
