use psp_domain::EventFilter;
use psp_domain::ports::{Replay, ReplayTo, Replayed};

use super::answer;
use crate::cli::{ReplayArgs, ReplayTarget};
use crate::wiring::Wiring;

/// How many events are replayed with one write.
const BATCH: u32 = 1_000;

/// Replays events, or counts what would be replayed.
pub(crate) async fn replay(wiring: Wiring, args: ReplayArgs) -> anyhow::Result<()> {
    let outcome = replay_all(&wiring, &args).await;
    wiring.close().await;
    let replayed = outcome?;
    if args.json {
        let is_dry_run = !args.execute;
        return answer(serde_json::json!({
            "events": replayed.events, "replayed": replayed.replayed, "dry_run": is_dry_run,
        }));
    }
    let what = if args.to == ReplayTarget::Webhook { "deliveries" } else { "messages" };
    let done = if args.execute { "start anew" } else { "would start anew; --execute does it" };
    answer(format_args!("{} events, of which {} {what} {done}", replayed.events, replayed.replayed))
}

async fn replay_all(wiring: &Wiring, args: &ReplayArgs) -> anyhow::Result<Replayed> {
    let now = wiring.sources.clock.now();
    let filter = EventFilter {
        customer_id: args.customer.clone(),
        kinds: args.kinds.clone(),
        aggregate_id: None,
        from: Some(args.from),
        // What comes to be meanwhile is delivered anyway.
        to: Some(args.until.unwrap_or(now)),
    };
    let to = match args.to {
        ReplayTarget::Webhook => ReplayTo::Webhooks { delivered: args.delivered, endpoint_id: None },
        ReplayTarget::Queue => ReplayTo::Queues,
    };
    let replay = Replay { to, is_dry_run: !args.execute, now };
    let (mut sum, mut after) = (Replayed::default(), None);
    loop {
        let batch = wiring.store.events.replay_events(&filter, replay, after, BATCH).await?;
        sum.events += batch.events;
        sum.replayed += batch.replayed;
        after = batch.last;
        if after.is_none() {
            return Ok(sum);
        }
    }
}
