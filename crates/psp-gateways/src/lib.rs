//! Gateways: the sandbox.

mod sandbox;

pub use sandbox::{Behaviour, SandboxGateway, TEST_CARDS, TestCard};
