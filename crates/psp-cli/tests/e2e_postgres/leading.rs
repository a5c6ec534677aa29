//! Of several schedulers one leads.

use std::time::Instant;

use crate::support::{PATIENCE, Place, Process, pause};

/// Whether a scheduler says that it leads; `None` before its first tick.
async fn leads(scheduler: &Process) -> Option<bool> {
    let metrics = scheduler.get("", "/metrics").await.text;
    let line = metrics.lines().find_map(|line| line.strip_prefix("psp_scheduler_leads "))?;
    Some(line == "1")
}

/// Waits until exactly that many of these lead, and everybody knows.
async fn await_leaders(schedulers: &[Process], wanted: usize) -> Vec<usize> {
    let begun = Instant::now();
    loop {
        let mut known = Vec::new();
        for scheduler in schedulers {
            known.extend(leads(scheduler).await);
        }
        let leaders: Vec<_> = (0..known.len()).filter(|n| known[*n]).collect();
        if known.len() == schedulers.len() && leaders.len() == wanted {
            return leaders;
        }
        assert!(leaders.len() <= wanted, "{} lead", leaders.len());
        assert!(begun.elapsed() < PATIENCE, "{known:?}");
        pause().await;
    }
}

#[tokio::test]
async fn one_of_three_schedulers_leads_and_another_takes_over_when_it_is_killed() {
    let place = Place::new(&[("PSP_SETTLEMENT_CRON", "* * * * * *"), ("PSP_ADMIN_LISTEN", "127.0.0.1:0")]);
    let mut schedulers = Vec::new();
    for _ in 0..3 {
        schedulers.push(place.start(&["scheduler"]).await);
    }
    for left in [3, 2, 1] {
        assert_eq!(schedulers.len(), left);
        let leader = await_leaders(&schedulers, 1).await[0];
        schedulers.remove(leader).kill();
    }
}
