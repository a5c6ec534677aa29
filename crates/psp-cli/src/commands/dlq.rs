use anyhow::bail;
use comfy_table::Table;
use comfy_table::presets;
use psp_domain::ports::{DeadLetter, DeadLetters};
use psp_domain::{MessageId, QueueName};

use super::answer;
use crate::cli::{Chosen, Dlq};
use crate::wiring::Wiring;

/// How many dead letters are read at once.
const PAGE: u32 = 500;

/// Runs a command on dead letters.
pub(crate) async fn run(wiring: Wiring, dlq: Dlq) -> anyhow::Result<()> {
    let letters = wiring.dead_letters().await?;
    let letters = &*letters;
    let outcome = match dlq {
        Dlq::List { only, limit, json } => list(letters, only, limit, json).await,
        Dlq::Show { id } => show(letters, id).await,
        Dlq::Replay(chosen) => each(letters, chosen, "replayed", Action::Replay).await,
        Dlq::Discard(chosen) => each(letters, chosen, "discarded", Action::Discard).await,
    };
    wiring.close().await;
    outcome
}

#[derive(Clone, Copy)]
enum Action {
    Replay,
    Discard,
}

async fn list(letters: &dyn DeadLetters, queue: Option<QueueName>, limit: u32, json: bool) -> anyhow::Result<()> {
    let found = letters.list(queue, None, limit).await?;
    if json {
        return answer(found.iter().map(describe).collect::<serde_json::Value>());
    }
    if found.is_empty() {
        return answer("there are no dead letters");
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["id", "queue", "kind", "about", "received", "since", "reason"]);
    for letter in &found {
        table.add_row([
            letter.message.id.to_string(),
            letter.message.queue.to_string(),
            letter.message.kind.clone(),
            letter.message.aggregate_id.to_string(),
            letter.receive_count.to_string(),
            letter.dead_at.format("%F %T").to_string(),
            letter.reason.clone(),
        ]);
    }
    answer(table)
}

async fn show(letters: &dyn DeadLetters, id: MessageId) -> anyhow::Result<()> {
    let Some(letter) = letters.find(id).await? else { bail!("there is no dead letter {id}") };
    answer(serde_json::to_string_pretty(&describe(&letter))?)
}

fn describe(letter: &DeadLetter) -> serde_json::Value {
    serde_json::json!({
        "id": letter.message.id,
        "queue": letter.message.queue,
        "kind": letter.message.kind,
        "aggregate_id": letter.message.aggregate_id,
        "body": letter.message.body,
        "reason": letter.reason,
        "receive_count": letter.receive_count,
        "sent_at": letter.sent_at,
        "dead_at": letter.dead_at,
    })
}

async fn each(letters: &dyn DeadLetters, chosen: Chosen, done: &str, action: Action) -> anyhow::Result<()> {
    let ids = match chosen.all {
        Some(queue) => all(letters, queue).await?,
        None => chosen.ids,
    };
    let mut missing = Vec::new();
    let mut count = 0;
    for id in ids {
        let found = match action {
            Action::Replay => letters.replay(id).await?,
            Action::Discard => letters.discard(id).await?,
        };
        if found { count += 1 } else { missing.push(id.to_string()) }
    }
    answer(format_args!("{count} {done}"))?;
    if missing.is_empty() { Ok(()) } else { bail!("there is no dead letter {}", missing.join(", ")) }
}

/// The ids as of now: what dies again while they are replayed is not replayed twice.
async fn all(letters: &dyn DeadLetters, queue: QueueName) -> anyhow::Result<Vec<MessageId>> {
    let mut ids = Vec::new();
    loop {
        let page = letters.list(Some(queue), ids.last().copied(), PAGE).await?;
        ids.extend(page.iter().map(|letter| letter.message.id));
        if page.len() < PAGE as usize {
            return Ok(ids);
        }
    }
}
