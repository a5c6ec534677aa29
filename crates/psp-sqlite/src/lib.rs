//! Embedded store and queue on SQLite: the default.
