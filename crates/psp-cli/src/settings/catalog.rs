//! Every setting, once: its flag, variable, key in the file, default and meaning.

use std::collections::{BTreeMap, HashMap};

use psp_domain::{FeeRule, PaymentMethod};
use serde::Deserialize;

use super::Source;

/// One setting.
pub(crate) struct Setting {
    /// The variable of the environment.
    pub(crate) env: &'static str,
    /// The key in the file; the flag is the same with hyphens.
    pub(crate) key: &'static str,
    pub(crate) default: &'static str,
    pub(crate) meaning: &'static str,
    /// Never shown.
    pub(crate) secret: bool,
}

/// What `--help` says of a setting: its meaning, and its default where there is one.
macro_rules! help {
    ($meaning:literal, "") => {
        $meaning
    };
    ($meaning:literal, $default:literal) => {
        concat!($meaning, " [default: ", $default, "]")
    };
}

macro_rules! settings {
    // The default is a token, not a literal, so that `help!` can tell the empty one.
    ($($key:ident, $env:literal, $default:tt, $secret:literal, $meaning:literal;)*) => {
        /// The settings as flags and variables.
        #[derive(clap::Args, Default)]
        #[command(next_help_heading = "Settings")]
        pub(crate) struct SettingArgs {
            /// The TOML file to read; psp.toml where there is one
            #[arg(long, env = "PSP_CONFIG", global = true, value_name = "FILE")]
            pub(crate) config: Option<String>,
            $(
                #[arg(long, env = $env, global = true, hide_short_help = true, hide_env_values = true, value_name = "VALUE",
                      allow_hyphen_values = true, help = help!($meaning, $default))]
                $key: Option<String>,
            )*
        }

        /// The settings as a file.
        #[derive(Deserialize, Default)]
        #[serde(deny_unknown_fields)]
        pub(super) struct FileSettings {
            /// Fee rules that replace the default ones, by payment method.
            pub(super) fees: Option<BTreeMap<PaymentMethod, FeeRule>>,
            $($key: Option<String>,)*
        }

        /// Every setting.
        pub(crate) const CATALOG: &[Setting] = &[
            $(Setting { env: $env, key: stringify!($key), default: $default, meaning: $meaning, secret: $secret },)*
        ];

        impl Texts {
            /// The texts of all settings: from flags and environment, then the file, then the defaults.
            pub(super) fn merge(args: &SettingArgs, file: &FileSettings) -> Self {
                let mut texts = HashMap::new();
                $(texts.insert($env, match (&args.$key, &file.$key) {
                    (Some(text), _) => (text.clone(), Source::Given),
                    (None, Some(text)) => (text.clone(), Source::File),
                    (None, None) => ($default.to_owned(), Source::Default),
                });)*
                Self(texts)
            }
        }
    };
}

settings! {
    database_url, "DATABASE_URL", "sqlite://psp.db", false, "The database: `sqlite://` and a path, created by roles and `psp migrate` when missing; or `postgres://user@host/name`, with `sslmode` and `sslrootcert` as libpq has them";
    database_password, "PSP_DATABASE_PASSWORD", "", true, "Secret. The password for Postgres, where it does not stand in the address";
    database_auth, "PSP_DATABASE_AUTH", "password", false, "How to log in to Postgres: `password`, or `rds_iam` for tokens of the AWS identity";
    database_connections, "PSP_DATABASE_CONNECTIONS", "12", false, "Connections of this process to Postgres, 4 to 200; two more for listening and leading";
    database_statement_timeout_ms, "PSP_DATABASE_STATEMENT_TIMEOUT_MS", "15000", false, "How long a statement on Postgres may take, 100 ms to 10 min";
    database_lock_timeout_ms, "PSP_DATABASE_LOCK_TIMEOUT_MS", "5000", false, "How long a statement on Postgres may wait for a lock, 10 ms to 10 min";
    queue, "PSP_QUEUE", "database", false, "The queue: `database` (the outbox table is the queue) or `sqs` (a relay moves the outbox of Postgres to it)";
    sqs_prefix, "PSP_SQS_PREFIX", "psp-", false, "What the names of the SQS queues start with; region, credentials and endpoint come from the `AWS_*` variables";
    listen, "PSP_LISTEN", "127.0.0.1:3000", false, "The address of the API; port 0 takes a free one";
    admin_listen, "PSP_ADMIN_LISTEN", "", false, "An address for health and metrics of `psp worker`, `psp relay` and `psp scheduler`; none where absent";
    auth, "PSP_AUTH", "header", false, "Who a customer is: `header` trusts `x-customer-id`, for use behind an authenticating gateway";
    default_customer, "PSP_DEFAULT_CUSTOMER", "default", false, "Whose payments, deposits and withdrawals are that name no customer: 1 to 128 visible ASCII characters";
    default_currency, "PSP_DEFAULT_CURRENCY", "BRL", false, "ISO 4217: the currency of requests that name none";
    refuse_expired_cards, "PSP_REFUSE_EXPIRED_CARDS", "false", false, "`true` answers 422 to an expiry in the past; otherwise the issuer judges";
    card_keys, "PSP_CARD_KEYS", "", true, "Secret. 32-byte keys in base64, separated by commas: the first seals cards, all open; for `serve`, `api`, `worker` and `vault` only; where absent, `PSP_CARD_KMS_KEY`, or a key file made beside the SQLite database";
    card_kms_key, "PSP_CARD_KMS_KEY", "", false, "The key in AWS KMS that wraps the data keys of sealed cards, instead of `PSP_CARD_KEYS`: its id, ARN or alias; region and credentials come from the `AWS_*` variables";
    card_retention_hours, "PSP_CARD_RETENTION_HOURS", "168", false, "How long a sealed card is kept whose authorization does not end, in hours, 1 to 8760; it is erased at once when it ends";
    settlement_cron, "PSP_SETTLEMENT_CRON", "5 0 * * *", false, "When due payables are settled: cron, 5 or 6 fields, UTC";
    purge_cron, "PSP_PURGE_CRON", "35 * * * *", false, "When expired idempotency keys are deleted: cron, 5 or 6 fields, UTC";
    shred_cron, "PSP_SHRED_CRON", "50 * * * *", false, "When sealed cards are erased that are older than `PSP_CARD_RETENTION_HOURS`: cron, 5 or 6 fields, UTC";
    settlement_chunk_size, "PSP_SETTLEMENT_CHUNK_SIZE", "2500", false, "Payables of one settlement transaction, 1 to 10000";
    worker_concurrency, "PSP_WORKER_CONCURRENCY", "128", false, "Messages in hand per queue, 1 to 4096";
    visibility_timeout_ms, "PSP_VISIBILITY_TIMEOUT_MS", "30000", false, "How long a message stays with a worker before it comes again, 100 ms to 12 h; extended while the worker lives";
    gateway_url, "PSP_GATEWAY_URL", "", false, "Where the gateway is: `https://` and a host, or `http://` on this machine; where absent, the sandbox";
    gateway_secret, "PSP_GATEWAY_SECRET", "", true, "Secret. What requests to the gateway are signed with, 32 characters or more; required with `PSP_GATEWAY_URL` and by `psp gateway-simulator`";
    gateway_secrets, "PSP_GATEWAY_SECRETS", "", true, "Secret. What requests to the gateways of the database are signed with: `name=secret`, separated by commas, each its own, 32 characters or more";
    gateway_timeout_ms, "PSP_GATEWAY_TIMEOUT_MS", "10000", false, "How long a gateway may take, 1 ms to 2 min";
    breaker_failures, "PSP_BREAKER_FAILURES", "5", false, "How many failures in a row open a gateway's circuit breaker, 1 to 1000";
    breaker_open_ms, "PSP_BREAKER_OPEN_MS", "30000", false, "How long an open breaker keeps its gateway from being asked before one request tries whether it is back, 10 ms to 1 h";
    public_url, "PSP_PUBLIC_URL", "", false, "Where gateways reach this API: `https://` and a host without a path, or `http://` on this machine; they call back `/callback/{transaction_id}` there; where absent, they are asked instead";
    authorization_budget_ms, "PSP_AUTHORIZATION_BUDGET_MS", "900000", false, "How old a transaction may be that no gateway answers for before it fails, 1 s to 24 h";
    pending_budget_ms, "PSP_PENDING_BUDGET_MS", "259200000", false, "How long a gateway may leave undecided what it has taken before it is told to give it back, 1 s to 30 days";
    check_after_ms, "PSP_CHECK_AFTER_MS", "60000", false, "How long after asking a gateway it is asked what became of it, 100 ms to 1 h";
    sweep_interval_ms, "PSP_SWEEP_INTERVAL_MS", "60000", false, "How often workers ask gateways for what they have not answered, 100 ms to 1 h";
    sandbox_slow_ms, "PSP_SANDBOX_SLOW_MS", "5000", false, "How long the sandbox takes for its slow card, 0 to 2 min";
    refund_fee, "PSP_REFUND_FEE", "kept", false, "Who bears the fee of what is refunded: `kept` (the fee stays with the PSP) or `returned`";
    event_retention_days, "PSP_EVENT_RETENTION_DAYS", "90", false, "How long events and their deliveries are kept, in days, 7 to 3650";
    event_purge_cron, "PSP_EVENT_PURGE_CRON", "20 3 * * *", false, "When events are deleted that are older than `PSP_EVENT_RETENTION_DAYS`: cron, 5 or 6 fields, UTC";
    webhook_reach, "PSP_WEBHOOK_REACH", "public", false, "Where webhook endpoints may be: `public` (https at port 443 of public addresses), `loopback` (also on this machine, there at any port and without TLS: for tests), or `none` (webhooks are turned off: nothing is delivered, no endpoint is added, and what happens waits to be delivered when they are turned on again)";
    webhook_timeout_ms, "PSP_WEBHOOK_TIMEOUT_MS", "15000", false, "How long a webhook endpoint may take, 100 ms to 1 min";
    webhook_pauses_s, "PSP_WEBHOOK_PAUSES_S", "5,300,1800,7200,18000,36000,36000", false, "The pauses between the attempts of a delivery, in seconds: 1 to 20 of 1 s to 7 days; each up to a fifth longer at random";
    webhook_disable_after_hours, "PSP_WEBHOOK_DISABLE_AFTER_HOURS", "120", false, "How long a webhook endpoint may fail before it is disabled, in hours, 1 to 8760";
    webhook_concurrency, "PSP_WEBHOOK_CONCURRENCY", "256", false, "Deliveries in hand, 1 to 4096; of one customer an eighth, or half as many again as of one endpoint where that is more";
    webhook_endpoint_concurrency, "PSP_WEBHOOK_ENDPOINT_CONCURRENCY", "10", false, "Deliveries in hand for one endpoint, 1 to 1024";
    retry_base_ms, "PSP_RETRY_BASE_MS", "1000", false, "The delay after a first failed attempt, 1 ms to 1 h; doubles with each";
    retry_max_ms, "PSP_RETRY_MAX_MS", "300000", false, "The longest delay between attempts, 1 ms to 12 h, not below the first";
    max_in_flight, "PSP_MAX_IN_FLIGHT", "1024", false, "Requests at once, 1 to 100000; more are answered 503";
    max_waiting_writes, "PSP_MAX_WAITING_WRITES", "4096", false, "Writes that wait for a commit, 1 to 100000; more are answered 503";
    max_batch, "PSP_MAX_BATCH", "256", false, "Writes of one commit, 1 to 1024";
    request_timeout_ms, "PSP_REQUEST_TIMEOUT_MS", "30000", false, "How long a request may take, 100 ms to 10 min";
    shutdown_grace_ms, "PSP_SHUTDOWN_GRACE_MS", "25000", false, "How long stopping may take, 100 ms to 10 min";
    log, "PSP_LOG", "info", false, "What is logged: a tracing filter such as `info,psp_worker=debug`";
    log_format, "PSP_LOG_FORMAT", "auto", false, "`pretty`, `json`, or `auto`: pretty on a terminal, JSON otherwise";
}

/// The text and source of every setting, by its variable.
#[derive(Clone)]
pub(super) struct Texts(HashMap<&'static str, (String, Source)>);

impl Texts {
    pub(super) fn find(&self, env: &str) -> (&str, Source) {
        self.0.get(env).map_or(("", Source::Default), |(text, source)| (text, *source))
    }

    pub(super) fn get(&self, env: &str) -> &str {
        self.find(env).0
    }

    /// The defaults, with some of them replaced.
    #[cfg(test)]
    pub(super) fn given(given: &[(&'static str, &str)]) -> Self {
        let mut texts = Self::merge(&SettingArgs::default(), &FileSettings::default());
        texts.0.extend(given.iter().map(|(env, text)| (*env, ((*text).to_owned(), Source::Given))));
        texts
    }
}
