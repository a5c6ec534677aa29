//! REST entrypoint on axum.
