use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::StoreError;
use crate::{GatewayHealth, GatewayName, GatewayRecord, Route, RoutingTable};

/// Keeps gateways and routes, and how processes find them.
#[async_trait]
pub trait GatewayStore: Send + Sync {
    /// Every gateway and route. Few rows: read whole every few seconds.
    async fn routing(&self) -> Result<RoutingTable, StoreError>;

    /// Adds a gateway, or gives the one of that name another protocol and address. Says whether it is new.
    async fn put_gateway(&self, gateway: &GatewayRecord) -> Result<bool, StoreError>;

    /// Enables or disables a gateway. `false` when there is none of that name.
    async fn enable(&self, name: &GatewayName, enabled: bool, now: DateTime<Utc>) -> Result<bool, StoreError>;

    /// Adds a route, or gives the one with the same gateway and criteria another priority and other reasons.
    async fn put_route(&self, route: &Route) -> Result<(), StoreError>;

    /// Removes the route with that gateway and those criteria. `false` when there is none.
    async fn remove_route(&self, route: &Route) -> Result<bool, StoreError>;

    /// Keeps what a process says of its breakers, in place of what it said before.
    async fn report(&self, health: &[GatewayHealth]) -> Result<(), StoreError>;

    /// What processes said at `since` or later; what was said long before may be deleted.
    async fn health(&self, since: DateTime<Utc>) -> Result<Vec<GatewayHealth>, StoreError>;
}
