//! Gateways that approve or decline payments.
