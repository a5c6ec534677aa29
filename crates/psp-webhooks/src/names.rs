//! Questions of DNS: one for a name at a time, whoever asks, and so many in all. Names whose servers are silent keep their
//! threads for long after everybody has given up: the next questions for those have places of their own, so that they leave
//! the others' alone.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout};

use crate::client::Failure;
use crate::connect::Resolve;

pub(crate) struct Names {
    resolver: Arc<dyn Resolve>,
    kept: Duration,
    known: Mutex<HashMap<String, watch::Receiver<Stage>>>,
    room: Arc<Semaphore>,
    slow_room: Arc<Semaphore>,
}

/// How far a question is.
enum Stage {
    /// It waits for a place.
    Waiting,
    Asked(Instant),
    Answered(Answer),
}

struct Answer {
    /// `None` where there is no such name, or nobody who knows.
    found: Option<Vec<IpAddr>>,
    at: Instant,
    is_slow: bool,
}

impl Names {
    /// The most questions at once.
    const MAX_QUESTIONS: usize = 64;
    /// And of those for names whose last answer was slow.
    const MAX_SLOW_QUESTIONS: usize = 16;
    /// What is slow.
    const SLOW: Duration = Duration::from_secs(2);
    /// The most names that are remembered, or asked for.
    const MAX_NAMES: usize = 4_096;
    /// How long a name that has no addresses is not asked for again.
    const UNKNOWN_KEPT: Duration = Duration::from_secs(30);

    /// Addresses are used for that long before they are asked for again.
    pub(crate) fn new(resolver: Arc<dyn Resolve>, kept: Duration) -> Self {
        Self {
            resolver,
            kept,
            known: Mutex::default(),
            room: Arc::new(Semaphore::new(Self::MAX_QUESTIONS)),
            slow_room: Arc::new(Semaphore::new(Self::MAX_SLOW_QUESTIONS)),
        }
    }

    /// The addresses of a name, those to be tried first before the others; at least one.
    ///
    /// # Errors
    /// [`Failure::Dns`]; [`Failure::Timeout`] where the name's servers had half of that time or more, and otherwise
    /// [`Failure::Busy`], which is not the name's fault.
    pub(crate) async fn addresses(&self, host: &str, patience: Duration) -> Result<Vec<IpAddr>, Failure> {
        let mut stage = self.question(host).ok_or(Failure::Busy)?;
        // An error, when whoever asked is gone without an answer: then the stage says how far it came.
        let _ = timeout(patience, stage.wait_for(|stage| matches!(stage, Stage::Answered(_)))).await;
        match &*stage.borrow() {
            Stage::Answered(answer) => answer.found.clone().ok_or(Failure::Dns),
            Stage::Asked(since) if since.elapsed() >= patience / 2 => Err(Failure::Timeout),
            Stage::Asked(_) | Stage::Waiting => Err(Failure::Busy),
        }
    }

    /// The question for that name, or its answer while it is fresh. `None` when there are too many.
    fn question(&self, host: &str) -> Option<watch::Receiver<Stage>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.get(host);
        if let Some(stage) = before.filter(|stage| self.is_current(stage)) {
            return Some(stage.clone());
        }
        let was_slow =
            before.is_some_and(|stage| matches!(&*stage.borrow(), Stage::Answered(answer) if answer.is_slow));
        if known.len() >= Self::MAX_NAMES {
            known.retain(|_, stage| self.is_current(stage));
        }
        if known.len() >= Self::MAX_NAMES {
            return None;
        }
        let room = if was_slow { &self.slow_room } else { &self.room };
        let (tell, stage) = watch::channel(Stage::Waiting);
        known.insert(host.to_owned(), stage.clone());
        // It goes on when whoever wanted to know has given up: the next one has its answer.
        tokio::spawn(ask(Arc::clone(&self.resolver), Arc::clone(room), host.to_owned(), tell));
        Some(stage)
    }

    fn is_current(&self, stage: &watch::Receiver<Stage>) -> bool {
        match &*stage.borrow() {
            Stage::Answered(Answer { found: Some(_), at, .. }) => at.elapsed() < self.kept,
            Stage::Answered(Answer { found: None, at, .. }) => at.elapsed() < Self::UNKNOWN_KEPT,
            Stage::Waiting | Stage::Asked(_) => stage.has_changed().is_ok(),
        }
    }
}

async fn ask(resolver: Arc<dyn Resolve>, room: Arc<Semaphore>, host: String, tell: watch::Sender<Stage>) {
    let Ok(_place) = room.acquire_owned().await else { return };
    let asked = Instant::now();
    tell.send_replace(Stage::Asked(asked));
    let found = resolver.resolve(&host).await;
    if let Err(error) = &found {
        tracing::debug!(error = error as &dyn std::error::Error, "a name has no addresses");
    }
    let found = found.ok().filter(|found| !found.is_empty());
    let is_slow = asked.elapsed() >= Names::SLOW;
    tell.send_replace(Stage::Answered(Answer { found, at: Instant::now(), is_slow }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;

    const PATIENCE: Duration = Duration::from_secs(4);
    const KEPT: Duration = Duration::from_secs(5);

    /// Answers after a second, but keeps `silent…` waiting half a minute; `shop…` has an address.
    #[derive(Default)]
    struct Servers(Mutex<HashMap<String, usize>>);

    impl Servers {
        fn asked(&self, host: &str) -> usize {
            self.0.lock().unwrap().get(host).copied().unwrap_or_default()
        }
    }

    #[async_trait]
    impl Resolve for Servers {
        async fn resolve(&self, host: &str) -> std::io::Result<Vec<IpAddr>> {
            *self.0.lock().unwrap().entry(host.to_owned()).or_default() += 1;
            tokio::time::sleep(Duration::from_secs(if host.starts_with("silent") { 30 } else { 1 })).await;
            if host.starts_with("shop") {
                Ok(vec!["8.8.8.8".parse().unwrap()])
            } else {
                Err(std::io::Error::other("no"))
            }
        }
    }

    fn names() -> (Arc<Servers>, Arc<Names>) {
        let servers = Arc::new(Servers::default());
        (Arc::clone(&servers), Arc::new(Names::new(servers, KEPT)))
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_asked_for_once_whoever_wants_it_and_again_when_its_answer_is_old() {
        let (servers, names) = names();
        for (host, kept) in [("shop.example", KEPT), ("none.example", Names::UNKNOWN_KEPT)] {
            for asked in 1..=2 {
                let all = futures::future::join_all((0..100).map(|_| names.addresses(host, PATIENCE))).await;
                assert!(all.iter().all(|found| found == &all[0]));
                tokio::time::sleep(kept.saturating_sub(Duration::from_millis(10))).await;
                assert_eq!((&names.addresses(host, PATIENCE).await, servers.asked(host)), (&all[0], asked));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        assert_eq!(names.addresses("none.example", PATIENCE).await, Err(Failure::Dns));
    }

    #[tokio::test(start_paused = true)]
    async fn names_whose_servers_are_silent_take_the_others_places_once_and_never_count_as_their_failure() {
        let (servers, names) = names();
        let silent: Vec<_> = (0..Names::MAX_QUESTIONS).map(|number| format!("silent{number}.example")).collect();
        let ask_all = || futures::future::join_all(silent.iter().map(|host| names.addresses(host, PATIENCE)));
        let first = ask_all().await;
        assert!(first.iter().all(|found| found == &Err(Failure::Timeout)));
        assert_eq!(names.addresses("shop.example", PATIENCE).await, Err(Failure::Busy));
        // Their questions end, and so that of the other one, which nobody waited for.
        tokio::time::sleep(Duration::from_secs(30) + Names::UNKNOWN_KEPT).await;
        assert_eq!(servers.asked("shop.example"), 1);
        let again = tokio::spawn({
            let (names, silent) = (Arc::clone(&names), silent.clone());
            async move { futures::future::join_all(silent.iter().map(|host| names.addresses(host, PATIENCE))).await }
        });
        tokio::task::yield_now().await;
        assert!(names.addresses("shop.example", PATIENCE).await.is_ok());
        let asked_in_time = again.await.unwrap().into_iter().filter(|found| found == &Err(Failure::Timeout)).count();
        assert_eq!(asked_in_time, Names::MAX_SLOW_QUESTIONS);
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_so_many_names_and_no_more() {
        let (_, names) = names();
        let hosts = |count: usize| (0..count).map(|number| format!("shop{number}.example")).collect::<Vec<_>>();
        let all = hosts(Names::MAX_NAMES);
        let waiting: Vec<_> = all.iter().filter_map(|host| names.question(host)).collect();
        assert_eq!(waiting.len(), Names::MAX_NAMES);
        assert_eq!(names.addresses("shop.example", PATIENCE).await, Err(Failure::Busy));
        tokio::time::sleep(Duration::from_mins(2)).await;
        assert!(names.addresses("shop.example", PATIENCE).await.is_ok());
        assert_eq!(names.known.lock().unwrap().len(), 1);
    }
}
