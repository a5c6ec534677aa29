//! One contract suite per port.

pub mod events;
pub mod events_api;
pub mod gateway;
pub mod queue;
pub mod sealed_cards;
pub mod store;
pub mod vault;
pub mod webhooks;

use std::time::Duration;

/// How long a contract waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Makes a test of each named function of a suite, over what the factory makes.
#[doc(hidden)]
#[macro_export]
macro_rules! contract_tests {
    ($make:path, $suite:path, $($test:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                use $suite as suite;
                suite::$test($make().await).await;
            }
        )*
    };
}
