//! Chances by a seed, and processes that are killed and started again.

use std::fs::File;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use crate::support::Place;

/// The random choices of a run, by one seed.
#[derive(Clone)]
pub(crate) struct Dice(Arc<Mutex<fastrand::Rng>>);

impl Dice {
    pub(crate) fn new() -> Self {
        let given = std::env::var("PSP_CHAOS_SEED").ok().map(|seed| seed.parse().expect("PSP_CHAOS_SEED is a number"));
        let seed: u64 = given.unwrap_or_else(|| fastrand::u64(..1_000_000));
        eprintln!("PSP_CHAOS_SEED={seed}");
        Self(Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))))
    }

    pub(crate) fn below(&self, end: usize) -> usize {
        self.0.lock().unwrap().usize(..end)
    }

    /// True once in that many times.
    pub(crate) fn one_in(&self, times: usize) -> bool {
        self.below(times) == 0
    }
}

/// A process that is started again whenever it ends.
pub(crate) struct Kept {
    role: &'static str,
    pub(crate) address: String,
    child: Option<Child>,
}

impl Kept {
    pub(crate) fn new(role: &'static str) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        Self { role, address: listener.local_addr().unwrap().to_string(), child: None }
    }

    fn start(&mut self, place: &Place, number: usize) {
        let log = place.path().join(format!("{}-{number}.log", self.role));
        let log = File::options().create(true).append(true).open(log).unwrap();
        let mut command = place.command(&[self.role]);
        command.env("PSP_LISTEN", &self.address).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            child.wait().unwrap();
        }
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts every process that does not run.
pub(crate) fn start_ended(place: &Place, kept: &mut [Kept]) {
    for (number, process) in kept.iter_mut().enumerate() {
        if process.has_ended() {
            process.start(place, number);
        }
    }
}
