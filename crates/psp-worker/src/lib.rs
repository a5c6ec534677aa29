//! Queue consumers: authorization and settlement.
