//! Settings: flags, then the environment, then a TOML file, then defaults. All faults are told at once.

mod catalog;
mod parse;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use chrono::TimeDelta;
use psp_domain::usecases::AuthorizeOptions;
use psp_domain::{Currency, CustomerId, FeeRule, FeeRules, GatewayName, PaymentMethod, RefundFeePolicy, WebhookPolicy};
use psp_gateways::{BreakerOptions, GatewayUrl, SigningKey};
use psp_postgres::PgOptions;
use psp_sqlite::SqliteOptions;
use psp_sqs::SqsOptions;
use psp_vault::VaultKeys;
use psp_webhooks::Reach;
use secrecy::{ExposeSecret, SecretString};

pub(crate) use catalog::{CATALOG, SettingArgs};
use catalog::{FileSettings, Texts};
use parse::Parser;

/// The file that is read when there is one and no other is named.
const DEFAULT_FILE: &str = "psp.toml";
/// The longest name of a key that KMS takes.
const MAX_KMS_KEY_LEN: usize = 2_048;
/// The most payables of one settlement transaction.
pub(crate) const MAX_CHUNK_SIZE: u32 = 10_000;

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// A flag or the environment.
    Given,
    /// The TOML file.
    File,
    /// Neither.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Given => "flag or environment",
            Self::File => "file",
            Self::Default => "default",
        })
    }
}

/// How logs look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// Pretty on a terminal, JSON otherwise.
    Auto,
    Pretty,
    Json,
}

/// Which database, and how to open it.
#[derive(Debug, Clone)]
pub(crate) enum Database {
    /// SQLite, with its file.
    Sqlite(SqliteOptions, PathBuf),
    /// Postgres.
    Postgres(PgOptions),
}

impl fmt::Display for Database {
    /// For logs: without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(_, file) => write!(f, "{}", file.display()),
            Self::Postgres(options) => f.write_str(&options.address().unwrap_or_default()),
        }
    }
}

/// The settings in effect.
pub(crate) struct Settings {
    pub(crate) database: Database,
    /// Whether to log in to Postgres with tokens of the AWS identity.
    pub(crate) rds_iam: bool,
    /// SQS, where it is the queue.
    pub(crate) sqs: Option<SqsOptions>,
    pub(crate) listen: SocketAddr,
    pub(crate) admin_listen: Option<SocketAddr>,
    pub(crate) default_customer: CustomerId,
    pub(crate) default_currency: Currency,
    /// Whose payments, deposits and withdrawals are that name no customer.
    pub(crate) refuse_expired_cards: bool,
    pub(crate) card_keys: Option<SecretString>,
    /// The key in KMS, where the master key is there.
    pub(crate) card_kms_key: Option<String>,
    pub(crate) card_retention: TimeDelta,
    pub(crate) settlement_cron: String,
    pub(crate) purge_cron: String,
    pub(crate) shred_cron: String,
    pub(crate) settlement_chunk_size: u32,
    pub(crate) worker_concurrency: usize,
    /// Where the gateway is; the sandbox where absent.
    pub(crate) gateway_url: Option<GatewayUrl>,
    pub(crate) gateway_key: Option<SigningKey>,
    /// The secrets of the gateways of the database.
    pub(crate) gateway_secrets: BTreeMap<GatewayName, SigningKey>,
    pub(crate) gateway_timeout: Duration,
    pub(crate) breaker: BreakerOptions,
    /// Where gateways call back.
    pub(crate) public_url: Option<GatewayUrl>,
    pub(crate) authorize: AuthorizeOptions,
    pub(crate) sweep_interval: Duration,
    pub(crate) sandbox_slow: Duration,
    pub(crate) refund_fee: RefundFeePolicy,
    pub(crate) event_retention: TimeDelta,
    pub(crate) event_purge_cron: String,
    /// Where webhook endpoints may be; `None` where there are none.
    pub(crate) webhook_reach: Option<Reach>,
    pub(crate) webhook_timeout: Duration,
    pub(crate) webhook_policy: WebhookPolicy,
    pub(crate) webhook_concurrency: usize,
    pub(crate) webhook_endpoint_concurrency: u32,
    pub(crate) retry_base: Duration,
    pub(crate) retry_max: Duration,
    pub(crate) max_in_flight: usize,
    pub(crate) max_waiting_writes: usize,
    pub(crate) max_batch: usize,
    pub(crate) request_timeout: Duration,
    pub(crate) shutdown_grace: Duration,
    pub(crate) log: String,
    pub(crate) log_format: LogFormat,
    pub(crate) fees: FeeRules,
    fee_overrides: BTreeMap<PaymentMethod, FeeRule>,
    texts: Texts,
}

/// Everything that is wrong with the configuration, on one line.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub(crate) struct WrongSettings(Vec<String>);

impl Settings {
    /// Reads flags, environment and file, for a process that seals or opens cards, or for one that does not.
    pub(crate) fn load(args: &SettingArgs, has_cards: bool) -> Result<Self, WrongSettings> {
        let file = read_file(args.config.as_deref()).map_err(|fault| WrongSettings(vec![fault]))?;
        let fee_overrides = file.fees.clone().unwrap_or_default();
        Self::from_texts(&Texts::merge(args, &file), fee_overrides, has_cards)
    }

    fn from_texts(
        texts: &Texts,
        fee_overrides: BTreeMap<PaymentMethod, FeeRule>,
        has_cards: bool,
    ) -> Result<Self, WrongSettings> {
        let mut p = Parser::new(texts);
        let database = p.database();
        let sqs = p.sqs(&database);
        p.one_of("PSP_AUTH", &["header"]);
        let (card_keys, card_kms_key) = (p.card_keys(), p.card_kms_key());
        if has_cards && card_keys.is_none() && card_kms_key.is_none() && matches!(database, Database::Postgres(_)) {
            p.fault(
                "PSP_CARD_KEYS",
                &"or PSP_CARD_KMS_KEY is required with postgres: every process must seal and open with the same keys",
            );
        }
        let fees = p.fees(&fee_overrides);
        let (gateway_url, gateway_key) = p.gateway();
        let settings = Self {
            listen: p.address("PSP_LISTEN"),
            admin_listen: p.optional_address("PSP_ADMIN_LISTEN"),
            default_customer: p.parsed("PSP_DEFAULT_CUSTOMER", "default".parse().expect("a name")),
            default_currency: p.parsed("PSP_DEFAULT_CURRENCY", Currency::BRL),
            refuse_expired_cards: p.flag("PSP_REFUSE_EXPIRED_CARDS"),
            settlement_cron: p.cron("PSP_SETTLEMENT_CRON"),
            purge_cron: p.cron("PSP_PURGE_CRON"),
            shred_cron: p.cron("PSP_SHRED_CRON"),
            card_retention: TimeDelta::hours(p.number("PSP_CARD_RETENTION_HOURS", 1..=8_760).into()),
            settlement_chunk_size: p.number("PSP_SETTLEMENT_CHUNK_SIZE", 1..=MAX_CHUNK_SIZE),
            worker_concurrency: p.size("PSP_WORKER_CONCURRENCY", 1..=4_096),
            gateway_url,
            gateway_key,
            gateway_secrets: p.gateway_secrets(),
            breaker: BreakerOptions {
                failures: p.number("PSP_BREAKER_FAILURES", 1..=1_000),
                open: p.millis("PSP_BREAKER_OPEN_MS", 10..=3_600_000),
            },
            gateway_timeout: p.millis("PSP_GATEWAY_TIMEOUT_MS", 1..=120_000),
            public_url: p.public_url(),
            authorize: AuthorizeOptions {
                budget: p.delta("PSP_AUTHORIZATION_BUDGET_MS", 1_000..=86_400_000),
                pending_budget: p.delta("PSP_PENDING_BUDGET_MS", 1_000..=2_592_000_000),
                check_after: p.delta("PSP_CHECK_AFTER_MS", 100..=3_600_000),
            },
            sweep_interval: p.millis("PSP_SWEEP_INTERVAL_MS", 100..=3_600_000),
            sandbox_slow: p.millis("PSP_SANDBOX_SLOW_MS", 0..=120_000),
            refund_fee: match p.one_of("PSP_REFUND_FEE", &["kept", "returned"]) {
                "returned" => RefundFeePolicy::Returned,
                _ => RefundFeePolicy::Kept,
            },
            event_retention: TimeDelta::days(p.number("PSP_EVENT_RETENTION_DAYS", 7..=3_650).into()),
            event_purge_cron: p.cron("PSP_EVENT_PURGE_CRON"),
            webhook_reach: match p.one_of("PSP_WEBHOOK_REACH", &["public", "loopback", "none"]) {
                "none" => None,
                "loopback" => Some(Reach::Loopback),
                _ => Some(Reach::Public),
            },
            webhook_timeout: p.millis("PSP_WEBHOOK_TIMEOUT_MS", 100..=60_000),
            webhook_policy: WebhookPolicy {
                pauses: p.pauses("PSP_WEBHOOK_PAUSES_S"),
                disable_after: TimeDelta::hours(p.number("PSP_WEBHOOK_DISABLE_AFTER_HOURS", 1..=8_760).into()),
                ..WebhookPolicy::default()
            },
            webhook_concurrency: p.size("PSP_WEBHOOK_CONCURRENCY", 1..=4_096),
            webhook_endpoint_concurrency: p.number("PSP_WEBHOOK_ENDPOINT_CONCURRENCY", 1..=1_024),
            retry_base: p.millis("PSP_RETRY_BASE_MS", 1..=3_600_000),
            retry_max: p.millis("PSP_RETRY_MAX_MS", 1..=43_200_000),
            max_in_flight: p.size("PSP_MAX_IN_FLIGHT", 1..=100_000),
            max_waiting_writes: p.size("PSP_MAX_WAITING_WRITES", 1..=100_000),
            max_batch: p.size("PSP_MAX_BATCH", 1..=1_024),
            request_timeout: p.millis("PSP_REQUEST_TIMEOUT_MS", 100..=600_000),
            shutdown_grace: p.millis("PSP_SHUTDOWN_GRACE_MS", 100..=600_000),
            log: p.log_filter(),
            log_format: match p.one_of("PSP_LOG_FORMAT", &["auto", "pretty", "json"]) {
                "json" => LogFormat::Json,
                "pretty" => LogFormat::Pretty,
                _ => LogFormat::Auto,
            },
            rds_iam: p.one_of("PSP_DATABASE_AUTH", &["password", "rds_iam"]) == "rds_iam",
            database,
            sqs,
            card_keys,
            card_kms_key,
            fees,
            fee_overrides,
            texts: texts.clone(),
        };
        if settings.retry_max < settings.retry_base {
            p.fault("PSP_RETRY_MAX_MS", &"must be at least PSP_RETRY_BASE_MS");
        }
        if settings.rds_iam && !texts.get("DATABASE_URL").contains("sslmode=verify-full") {
            p.fault("PSP_DATABASE_AUTH", &"rds_iam needs sslmode=verify-full in DATABASE_URL: a token is a password");
        }
        let faults = p.into_faults();
        if faults.is_empty() { Ok(settings) } else { Err(WrongSettings(faults)) }
    }

    /// Every setting with its value (`None`: unset) and source, secrets hidden, in the order of the catalog.
    pub(crate) fn effective(&self) -> impl Iterator<Item = (&'static catalog::Setting, Option<String>, Source)> {
        CATALOG.iter().map(|setting| {
            let (text, source) = self.texts.find(setting.env);
            let shown = (!text.is_empty()).then(|| match (setting.secret, &self.database) {
                (true, _) => "***".to_owned(),
                // The address may hold a password.
                (false, Database::Postgres(_)) if setting.env == "DATABASE_URL" => self.database.to_string(),
                _ => text.to_owned(),
            });
            (setting, shown, source)
        })
    }

    /// The fee rules that the file replaces.
    pub(crate) fn fee_overrides(&self) -> &BTreeMap<PaymentMethod, FeeRule> {
        &self.fee_overrides
    }

    /// The vault's keys: configured, or from the file beside the database.
    pub(crate) fn vault_keys(&self) -> anyhow::Result<VaultKeys> {
        use anyhow::Context;
        if let Some(keys) = &self.card_keys {
            return VaultKeys::parse(keys).context("PSP_CARD_KEYS");
        }
        let Database::Sqlite(_, file) = &self.database else { anyhow::bail!("PSP_CARD_KEYS is not set") };
        let mut path = file.clone().into_os_string();
        path.push(".key");
        let path = PathBuf::from(path);
        VaultKeys::load_or_create_file(&path).with_context(|| format!("the key file {}", path.display()))
    }
}

fn read_file(path: Option<&str>) -> Result<FileSettings, String> {
    let (path, required) = path.map_or((DEFAULT_FILE, false), |path| (path, true));
    let source = config::File::new(path, config::FileFormat::Toml).required(required);
    let read = config::Config::builder().add_source(source).build();
    let read = read.and_then(config::Config::try_deserialize);
    read.map_err(|error| format!("{path}: {}", on_one_line(&error.to_string())))
}

/// The text without the lines that quote the file: those may hold a secret.
fn on_one_line(error: &str) -> String {
    let quotes = |line: &&str| line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ').starts_with('|');
    let lines: Vec<_> = error.lines().filter(|line| !quotes(line)).map(str::trim).collect();
    lines.join(": ")
}

impl Parser<'_> {
    fn card_keys(&mut self) -> Option<SecretString> {
        let text = self.text("PSP_CARD_KEYS");
        if text.is_empty() && self.source("PSP_CARD_KEYS") != Source::Default {
            // A secret that was not filled in must not quietly become a key file.
            self.fault("PSP_CARD_KEYS", &"must not be empty; leave it out to use a key file");
        }
        let keys = (!text.is_empty()).then(|| SecretString::from(text))?;
        if let Err(error) = VaultKeys::parse(&keys) {
            self.fault("PSP_CARD_KEYS", &error);
        }
        Some(SecretString::from(keys.expose_secret()))
    }

    fn card_kms_key(&mut self) -> Option<String> {
        let text = self.text("PSP_CARD_KMS_KEY");
        if text.is_empty() && self.source("PSP_CARD_KMS_KEY") != Source::Default {
            self.fault("PSP_CARD_KMS_KEY", &"must not be empty; leave it out to use PSP_CARD_KEYS or a key file");
        }
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_/:".contains(&b)) || text.len() > MAX_KMS_KEY_LEN {
            self.fault("PSP_CARD_KMS_KEY", &"must be the id, the ARN or the alias of a key in KMS");
        }
        if !text.is_empty() && !self.text("PSP_CARD_KEYS").is_empty() {
            self.fault("PSP_CARD_KMS_KEY", &"and PSP_CARD_KEYS exclude each other");
        }
        (!text.is_empty()).then(|| text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(given: &[(&'static str, &str)]) -> Result<Settings, String> {
        Settings::from_texts(&Texts::given(given), BTreeMap::new(), true).map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_are_valid() {
        let settings = settings(&[]).unwrap();
        assert_eq!(settings.listen.to_string(), "127.0.0.1:3000");
        assert!(matches!(&settings.database, Database::Sqlite(_, file) if file.as_os_str() == "psp.db"));
    }

    #[test]
    fn one_line_names_every_wrong_setting() {
        let error = settings(&[
            ("DATABASE_URL", "mysql://localhost/psp"),
            ("PSP_LISTEN", "nowhere"),
            ("PSP_MAX_BATCH", "0"),
            ("PSP_SETTLEMENT_CRON", "daily"),
            ("PSP_DEFAULT_CURRENCY", "XXX"),
            ("PSP_CARD_KEYS", "c2hvcnQ="),
            ("PSP_QUEUE", "kafka"),
        ])
        .map(drop)
        .unwrap_err();
        assert!(!error.contains('\n') && !error.contains("c2hvcnQ="), "{error}");
        for name in ["DATABASE_URL", "PSP_LISTEN", "PSP_MAX_BATCH", "PSP_SETTLEMENT_CRON", "PSP_DEFAULT_CURRENCY"] {
            assert!(error.contains(name), "{name}: {error}");
        }
        assert!(error.contains("PSP_CARD_KEYS") && error.contains("PSP_QUEUE"), "{error}");
    }

    #[test]
    fn passwords_of_the_database_are_never_shown() {
        let key = ("PSP_CARD_KEYS", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
        let url = ("DATABASE_URL", "postgres://psp:hunter2@db.example:5433/psp?sslmode=verify-full");
        let given = settings(&[key, url, ("PSP_DATABASE_PASSWORD", "hunter3"), ("PSP_QUEUE", "sqs")]).unwrap();
        let mut shown: String = given.effective().filter_map(|(_, value, _)| value).collect();
        shown.extend([given.database.to_string(), format!("{:?} {:?}", given.database, given.sqs)]);
        assert!(!shown.contains("hunter"), "{shown}");
        assert!(shown.contains("postgres://db.example:5433/psp"), "{shown}");
        let error = settings(&[key, ("DATABASE_URL", "postgres://psp:hunter2@[/psp")]).map(drop).unwrap_err();
        assert!(error.contains("DATABASE_URL") && !error.contains("hunter"), "{error}");
    }

    #[test]
    fn what_needs_postgres_or_a_key_says_so() {
        let error = settings(&[("DATABASE_URL", "postgres://psp@localhost/psp")]).map(drop).unwrap_err();
        assert!(error.starts_with("PSP_CARD_KEYS or PSP_CARD_KMS_KEY is required"), "{error}");
        let iam = ("PSP_DATABASE_AUTH", "rds_iam");
        let error = settings(&[iam, ("DATABASE_URL", "postgres://psp@localhost/psp")]).map(drop).unwrap_err();
        assert!(error.contains("sslmode=verify-full"), "{error}");
        let error = settings(&[("PSP_QUEUE", "sqs"), ("PSP_SQS_PREFIX", "a b")]).map(drop).unwrap_err();
        assert!(error.contains("PSP_QUEUE sqs needs") && error.contains("PSP_SQS_PREFIX must be"), "{error}");
    }

    #[test]
    fn an_empty_secret_is_no_absent_secret() {
        let error = settings(&[("PSP_CARD_KEYS", "")]).map(drop).unwrap_err();
        assert!(error.contains("PSP_CARD_KEYS must not be empty"), "{error}");
    }

    #[test]
    fn the_master_key_is_local_or_in_kms() {
        let (key, alias) = ("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "alias/psp-cards");
        let postgres = ("DATABASE_URL", "postgres://psp@localhost/psp");
        let kms = settings(&[postgres, ("PSP_CARD_KMS_KEY", alias)]).unwrap();
        assert!(kms.card_kms_key.as_deref() == Some(alias) && kms.card_keys.is_none());
        let error = settings(&[("PSP_CARD_KEYS", key), ("PSP_CARD_KMS_KEY", alias)]).map(drop).unwrap_err();
        assert_eq!(error, "PSP_CARD_KMS_KEY and PSP_CARD_KEYS exclude each other");
        for (wrong, told) in [("", "must not be empty"), ("alias/a b", "must be the id, the ARN or the alias")] {
            let error = settings(&[("PSP_CARD_KMS_KEY", wrong)]).map(drop).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn secrets_are_hidden() {
        let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        let settings = settings(&[("PSP_CARD_KEYS", key)]).unwrap();
        let shown: Vec<_> = settings.effective().filter_map(|(_, value, _)| value).collect();
        assert!(shown.iter().all(|value| !value.contains(key)) && shown.contains(&"***".to_owned()));
    }

    #[test]
    fn a_gateway_needs_a_safe_address_and_a_secret_that_is_never_shown() {
        let (secret, url) = ("a secret that nobody may read in a log", "http://127.0.0.1:4000/v1");
        let given = settings(&[("PSP_GATEWAY_URL", url), ("PSP_GATEWAY_SECRET", secret)]).unwrap();
        let shown: Vec<_> = given.effective().filter_map(|(_, value, _)| value).collect();
        assert!(shown.iter().all(|value| !value.contains("nobody")) && shown.contains(&url.to_owned()));
        assert!(given.gateway_url.is_some() && !format!("{:?}", given.gateway_key).contains("nobody"));
        let error = settings(&[("PSP_GATEWAY_URL", url)]).map(drop).unwrap_err();
        assert_eq!(error, "PSP_GATEWAY_SECRET is required with PSP_GATEWAY_URL");
        let wrong = [("PSP_GATEWAY_URL", "http://me:hunter2@acquirer.example"), ("PSP_GATEWAY_SECRET", "hunter2")];
        let error = settings(&wrong).map(drop).unwrap_err();
        assert!(error.contains("PSP_GATEWAY_URL must be https") && !error.contains("hunter2"), "{error}");
        assert!(error.contains("PSP_GATEWAY_SECRET must have 32 characters"), "{error}");
    }

    /// Reads a file of that text.
    fn load(text: &str) -> Result<Settings, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("psp.toml");
        std::fs::write(&path, text).unwrap();
        let file = read_file(path.to_str())?;
        let overrides = file.fees.clone().unwrap_or_default();
        Settings::from_texts(&Texts::merge(&SettingArgs::default(), &file), overrides, true)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_file_that_is_no_toml_is_told_on_one_line_without_its_contents() {
        let error = load("listen = \"127.0.0.1:1\"\ncard_keys = AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n");
        let error = error.map(drop).unwrap_err();
        assert!(!error.contains('\n') && !error.contains("AAEC"), "{error}");
        assert!(error.contains("psp.toml") && error.contains("line 2"), "{error}");
        let error = load("card_keys = [\"AAEC\"]").map(drop).unwrap_err();
        assert!(!error.contains("AAEC") && error.contains("card_keys"), "{error}");
    }

    #[test]
    fn unknown_keys_of_a_file_are_refused() {
        for (text, key) in [("lisen = \"x\"", "lisen"), ("[fees.credit_card]\npercnt = \"5\"", "percnt")] {
            let error = load(text).map(drop).unwrap_err();
            assert!(error.contains(key), "{error}");
        }
    }

    #[test]
    fn fee_rules_of_a_file_replace_those_of_their_method_only() {
        let rule = "[fees.credit_card]\npercent = \"2.5\"\ndays = 14\ninitial_status = \"waiting_funds\"\n";
        let fees = load(rule).unwrap().fees;
        assert_eq!(fees.rule(PaymentMethod::CreditCard).days, 14);
        assert_eq!(fees.rule(PaymentMethod::CreditCard).percent.to_string(), "2.5");
        assert_eq!(fees.rule(PaymentMethod::DebitCard), FeeRules::default().rule(PaymentMethod::DebitCard));
        let error = load(&rule.replace("2.5", "101")).map(drop).unwrap_err();
        assert!(error.contains("credit_card") && error.contains("percent"), "{error}");
    }

    #[test]
    fn delays_between_attempts_do_not_shrink() {
        let error = settings(&[("PSP_RETRY_BASE_MS", "100"), ("PSP_RETRY_MAX_MS", "99")]).map(drop).unwrap_err();
        assert_eq!(error, "PSP_RETRY_MAX_MS must be at least PSP_RETRY_BASE_MS");
    }

    #[test]
    fn the_page_of_settings_says_what_the_code_says() {
        let page = include_str!("../../../../docs/configuration.md");
        for setting in CATALOG {
            let default = if setting.default.is_empty() { String::new() } else { format!("`{}`", setting.default) };
            let row = format!("| `{}` | {default} | {} |", setting.env, setting.meaning);
            assert!(page.contains(&row), "docs/configuration.md must have the line\n{row}");
        }
    }
}
