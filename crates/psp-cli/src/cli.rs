use std::ffi::OsString;

use chrono::{DateTime, NaiveDate, Utc};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use psp_domain::{CallbackOutcome, CustomerId, EventKind, MessageId, QueueName};

use crate::settings::{MAX_CHUNK_SIZE, SettingArgs};

/// The version, and the commit that it was built from.
pub(crate) const VERSION: &str = concat!(env!("PSP_VERSION"), " (", env!("PSP_COMMIT"), ")");

const EXAMPLES: &str = "\
Examples:
  psp                                    run everything with the database psp.db
  psp --listen 127.0.0.1:8080            … on another address
  psp job settle-payables                settle what is due today
  psp job settle-payables --date 2026-12-31
  psp dlq list                           what needs a person
  psp events replay --from 2026-11-21T00:00:00Z --type transaction.approved
                                         how many deliveries failed; --execute makes them again
  psp gateways list                      who is asked for approval, and how they do
  psp vault rotate                       seal what waits under the new key
  psp config                             the settings in effect

Every setting is a flag, a variable of the environment, or a line of psp.toml; the first of them wins.
`psp --help` lists them all; docs/configuration.md explains them.";

/// A payment service provider in one process.
#[derive(Parser)]
#[command(name = "psp", version = VERSION, after_help = EXAMPLES, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) settings: SettingArgs,
}

impl Cli {
    /// Reads the arguments, and refuses those that do not go together.
    pub(crate) fn read(line: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Self, clap::Error> {
        let cli = Self::try_parse_from(line)?;
        match &cli.command {
            Some(Command::Events(Events::Replay(args))) if args.delivered && args.to == ReplayTarget::Queue => {
                Err(Self::command().error(ErrorKind::ArgumentConflict, "--delivered goes with --to webhook alone"))
            }
            _ => Ok(cli),
        }
    }
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run everything in one process: API, workers and scheduler (the default)
    Serve,
    /// Run the REST API
    Api,
    /// Run the queue consumers, and the relay where the queue is SQS
    Worker,
    /// Run the relay from the outbox to SQS, which workers run, too
    Relay,
    /// Run the scheduled jobs
    Scheduler,
    /// Create or update the database
    Migrate {
        /// Let this login of Postgres use the tables without owning them, and create it where it is missing
        #[arg(long, value_name = "NAME")]
        service_login: Option<String>,
    },
    /// Run a job once
    #[command(subcommand)]
    Job(Job),
    /// Look at dead letters, replay or discard them
    #[command(subcommand)]
    Dlq(Dlq),
    /// Look at callbacks of gateways by what became of them
    #[command(subcommand)]
    Callbacks(Callbacks),
    /// Say events again: to webhook endpoints, or to their queues
    #[command(subcommand)]
    Events(Events),
    /// List gateways, add them, and say for which transactions they are asked
    #[command(subcommand)]
    Gateways(Gateways),
    /// The keys of sealed cards
    #[command(subcommand)]
    Vault(Vault),
    /// The SQS queues of a local server
    #[command(subcommand)]
    Queues(Queues),
    /// Play an acquirer at `PSP_LISTEN` for tests and demos; requests are signed with `PSP_GATEWAY_SECRET`
    GatewaySimulator(Simulated),
    /// Print the settings in effect as TOML, with secrets hidden
    Config,
    /// Print the OpenAPI document as JSON
    Openapi,
    /// Print shell completions
    Completions {
        /// For which shell
        shell: Shell,
    },
    /// Ask the process at `PSP_ADMIN_LISTEN`, or else at `PSP_LISTEN`, whether it is ready; exit code 0 if so, 1 if not
    Healthcheck {
        /// Ask only whether it answers
        #[arg(long)]
        live: bool,
    },
}

impl Command {
    /// Whether it runs until it is told to stop.
    pub(crate) fn is_role(&self) -> bool {
        matches!(
            self,
            Self::Serve | Self::Api | Self::Worker | Self::Relay | Self::Scheduler | Self::GatewaySimulator(_)
        )
    }

    /// Whether it seals or opens cards: nothing else needs their keys.
    pub(crate) fn has_cards(&self) -> bool {
        matches!(self, Self::Serve | Self::Api | Self::Worker | Self::Vault(_))
    }
}

/// How the simulator behaves at first; `PATCH /admin/behaviour` changes it.
#[derive(Args)]
pub(crate) struct Simulated {
    /// How long every answer takes
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub(crate) latency_ms: u64,
    /// The part of the requests that is refused with 503, 0 to 1
    #[arg(long, value_name = "RATE", default_value_t = 0.0)]
    pub(crate) error_rate: f64,
    /// The part of the requests that is taken and not answered, 0 to 1
    #[arg(long, value_name = "RATE", default_value_t = 0.0)]
    pub(crate) lost_rate: f64,
    /// The part of the authorizations that is answered pending and decided later, 0 to 1
    #[arg(long, value_name = "RATE", default_value_t = 0.0)]
    pub(crate) pending_rate: f64,
    /// How long after a pending answer it is decided and called back
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub(crate) callback_delay_ms: u64,
    /// The part of the callbacks that is sent twice, 0 to 1
    #[arg(long, value_name = "RATE", default_value_t = 0.0)]
    pub(crate) duplicate_rate: f64,
    /// The part of the callbacks that names a wrong amount first, 0 to 1
    #[arg(long, value_name = "RATE", default_value_t = 0.0)]
    pub(crate) wrong_amount_rate: f64,
    /// The part of the callbacks that is never sent, 0 to 1
    #[arg(long, value_name = "RATE", default_value_t = 0.0)]
    pub(crate) forget_rate: f64,
    /// Refuse everything
    #[arg(long)]
    pub(crate) outage: bool,
    /// What chances come from
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
}

/// Words are read by the command itself, which tells every fault at once.
#[derive(Subcommand)]
pub(crate) enum Gateways {
    /// List gateways with their routes and circuit breakers
    List {
        /// Print JSON, as GET /gateways does
        #[arg(long)]
        json: bool,
    },
    /// Add a gateway, or give the one of that name another protocol and address
    Add {
        /// Its name: a-z, 0-9, _ and -
        name: String,
        /// What it speaks: json, xml or sandbox
        #[arg(long)]
        protocol: String,
        /// Where it is: https:// and a host, or http:// on this machine; not for a sandbox
        #[arg(long)]
        url: Option<String>,
    },
    /// Let a gateway be asked for new transactions
    Enable {
        /// Its name
        name: String,
    },
    /// Let a gateway not be asked for new transactions; what it was asked before still ends there
    Disable {
        /// Its name
        name: String,
    },
    /// Have a gateway asked for transactions, or give the route with these criteria another priority
    Route {
        /// The gateway
        name: String,
        /// The order of attempts, 0 to 65535: the lowest first
        #[arg(long, value_name = "N", default_value = "100")]
        priority: String,
        #[command(flatten)]
        criteria: Criteria,
        /// The reasons of a decline with which the next gateway is asked; with any other a decline is final
        #[arg(long, value_name = "REASON,…", value_delimiter = ',')]
        retry_declines: Vec<String>,
    },
    /// Remove the route with these criteria
    Unroute {
        /// The gateway
        name: String,
        #[command(flatten)]
        criteria: Criteria,
    },
}

/// For which transactions: all, where there is none.
#[derive(Args)]
pub(crate) struct Criteria {
    /// The payer's country: ISO 3166-1 alpha-2
    #[arg(long, value_name = "CC")]
    pub(crate) country: Option<String>,
    /// What for: payment, deposit or withdrawal
    #[arg(long)]
    pub(crate) kind: Option<String>,
    /// How it is paid: by `credit_card`, `pix` and so on
    #[arg(long)]
    pub(crate) method: Option<String>,
    /// ISO 4217
    #[arg(long, value_name = "CUR")]
    pub(crate) currency: Option<String>,
}

#[derive(Subcommand)]
pub(crate) enum Vault {
    /// Seal everything anew that is not under the current master key; safe beside running processes, and to be repeated
    Rotate {
        /// Print the summary as JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
pub(crate) enum Queues {
    /// Create them where they are missing
    Create,
}

#[derive(Subcommand)]
pub(crate) enum Job {
    /// Settle the payables due on or before a date
    SettlePayables {
        /// The date, UTC; today where absent
        #[arg(long, value_name = "YYYY-MM-DD")]
        date: Option<NaiveDate>,
        /// Payables of one database transaction; `PSP_SETTLEMENT_CHUNK_SIZE` where absent
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_CHUNK_SIZE)))]
        chunk_size: Option<u32>,
        /// Print the summary as JSON
        #[arg(long)]
        json: bool,
    },
    /// Have gateways asked for what they have not answered in time, and workers for transactions whose message was lost
    SweepAttempts,
    /// Delete expired idempotency keys
    PurgeIdempotencyKeys,
    /// Erase sealed cards that are older than `PSP_CARD_RETENTION_HOURS`
    ShredCards,
    /// Delete events that are older than `PSP_EVENT_RETENTION_DAYS`, with their deliveries
    PurgeEvents,
}

#[derive(Subcommand)]
pub(crate) enum Callbacks {
    /// List callbacks with an outcome, newest first
    List {
        /// What became of them: applied, noted, `too_late`, `wrong_amount` or foreign
        #[arg(long, value_parser = callback_outcome)]
        outcome: CallbackOutcome,
        /// The most rows
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

fn callback_outcome(name: &str) -> Result<CallbackOutcome, String> {
    CallbackOutcome::from_name(name).ok_or_else(|| {
        let names = CallbackOutcome::ALL.map(CallbackOutcome::as_str).join(", ");
        format!("must be one of {names}")
    })
}

#[derive(Subcommand)]
pub(crate) enum Events {
    /// Count what would be replayed; with --execute, replay it. Safe to repeat
    Replay(ReplayArgs),
}

/// Which events are replayed, and where to.
#[derive(Args)]
pub(crate) struct ReplayArgs {
    /// Events from this time on, RFC 3339, such as 2026-11-21T00:00:00Z
    #[arg(long, value_name = "TIME")]
    pub(crate) from: DateTime<Utc>,
    /// Events before this time; all until now where absent
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<DateTime<Utc>>,
    /// Of these kinds, such as transaction.approved
    #[arg(long = "type", value_name = "KIND,…", value_delimiter = ',', required = true, value_parser = event_kind)]
    pub(crate) kinds: Vec<EventKind>,
    /// Of this customer only
    #[arg(long, value_name = "ID")]
    pub(crate) customer: Option<CustomerId>,
    /// Where to: the customers' webhook endpoints, also those that were added after the events, or the events' own queues
    #[arg(long, value_enum, default_value = "webhook")]
    pub(crate) to: ReplayTarget,
    /// To webhooks: also what was delivered before
    #[arg(long)]
    pub(crate) delivered: bool,
    /// Write it; without, nothing is written
    #[arg(long)]
    pub(crate) execute: bool,
    /// Print the summary as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Where events are replayed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReplayTarget {
    /// What failed to be delivered is delivered, and what never was to be, too: events from before an endpoint was there
    Webhook,
    /// Handlers see the events again
    Queue,
}

fn event_kind(name: &str) -> Result<EventKind, String> {
    EventKind::from_name(name).ok_or_else(|| {
        let names = EventKind::ALL.map(EventKind::as_str).join(", ");
        format!("must be one of {names}")
    })
}

#[derive(Subcommand)]
pub(crate) enum Dlq {
    /// List dead letters, oldest first
    List {
        /// Of this queue only: transactions, payables-settlement, gateway-callbacks, refunds or orders
        #[arg(long, value_name = "QUEUE", value_parser = queue)]
        only: Option<QueueName>,
        /// The most rows
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one dead letter as JSON
    Show {
        /// Its id
        id: MessageId,
    },
    /// Put dead letters back on their queues, by their ids or all of one queue
    Replay(Chosen),
    /// Give dead letters up, by their ids or all of one queue
    Discard(Chosen),
}

/// Which dead letters.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Chosen {
    /// Their ids
    #[arg(value_name = "ID")]
    pub(crate) ids: Vec<MessageId>,
    /// All of this queue
    #[arg(long, value_name = "QUEUE", value_parser = queue)]
    pub(crate) all: Option<QueueName>,
}

fn queue(name: &str) -> Result<QueueName, String> {
    let names = QueueName::ALL.map(QueueName::as_str).join(" or ");
    QueueName::from_name(name).ok_or_else(|| format!("must be {names}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::read(line.split(' '))
    }

    #[test]
    fn only_deliveries_are_replayed_though_they_were_made() {
        let replay = "psp events replay --from 2026-11-21T00:00:00Z --type order.paid";
        for right in ["--delivered", "--to webhook --delivered", "--to queue"] {
            assert!(parse(&format!("{replay} {right}")).is_ok(), "{right}");
        }
        let error = parse(&format!("{replay} --to queue --delivered")).err().unwrap();
        assert_eq!((error.kind(), error.exit_code()), (ErrorKind::ArgumentConflict, 2), "{error}");
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_introduces_the_program_and_shows_every_default() {
        let help = Cli::command().render_long_help().to_string();
        // Long lines are broken.
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(help.starts_with("A payment service provider"), "{help}");
        for setting in crate::settings::CATALOG.iter().filter(|setting| !setting.default.is_empty()) {
            assert!(help.contains(&format!("[default: {}]", setting.default)), "{}", setting.env);
        }
    }

    #[test]
    fn dead_letters_are_chosen_by_ids_or_by_queue_but_not_by_both_or_neither() {
        const ID: &str = "01a1fc23-adfc-74b8-ab63-7bfa62344961";
        for right in [format!("psp dlq replay {ID} {ID}"), "psp dlq discard --all transactions".into()] {
            assert!(parse(&right).is_ok(), "{right}");
        }
        let both = format!("psp dlq replay {ID} --all transactions");
        for wrong in [&both, "psp dlq replay", "psp dlq replay 17", "psp dlq discard --all mail"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn chunks_are_bounded() {
        assert!(parse("psp job settle-payables --chunk-size 10000 --date 2026-12-31").is_ok());
        for wrong in ["--chunk-size 0", "--chunk-size 10001", "--date 2026-02-30"] {
            assert!(parse(&format!("psp job settle-payables {wrong}")).is_err(), "{wrong}");
        }
    }
}
