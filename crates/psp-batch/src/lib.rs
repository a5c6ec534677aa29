//! Group commit: a decorator over the store port.
