use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use chrono::TimeDelta;
use psp_domain::{FeeRule, FeeRules, GatewayName, PaymentMethod};
use psp_gateways::{GatewayUrl, InvalidUrl, SigningKey};
use psp_jobs::CronJob;
use psp_postgres::PgOptions;
use psp_sqlite::SqliteOptions;
use psp_sqs::SqsOptions;

use super::catalog::Texts;
use super::{Database, Source};

/// Turns texts into values and gathers what is wrong with them. A wrong value becomes a harmless one, so that the rest is
/// looked at, too.
pub(super) struct Parser<'t> {
    texts: &'t Texts,
    faults: Vec<String>,
}

impl<'t> Parser<'t> {
    pub(super) fn new(texts: &'t Texts) -> Self {
        Self { texts, faults: Vec::new() }
    }

    pub(super) fn into_faults(self) -> Vec<String> {
        self.faults
    }

    pub(super) fn fault(&mut self, env: &str, fault: &impl Display) {
        self.faults.push(format!("{env} {fault}"));
    }

    pub(super) fn text(&self, env: &str) -> &'t str {
        self.texts.get(env)
    }

    pub(super) fn source(&self, env: &str) -> Source {
        self.texts.find(env).1
    }

    pub(super) fn parsed<T: FromStr<Err: Display>>(&mut self, env: &str, otherwise: T) -> T {
        match self.text(env).parse() {
            Ok(value) => value,
            Err(error) => {
                self.fault(env, &error);
                otherwise
            }
        }
    }

    pub(super) fn number(&mut self, env: &str, range: RangeInclusive<u32>) -> u32 {
        let number = self.text(env).parse().ok().filter(|number| range.contains(number));
        number.unwrap_or_else(|| {
            self.fault(env, &format!("must be an integer from {} to {}", range.start(), range.end()));
            *range.start()
        })
    }

    pub(super) fn size(&mut self, env: &str, range: RangeInclusive<u32>) -> usize {
        self.number(env, range) as usize
    }

    pub(super) fn millis(&mut self, env: &str, range: RangeInclusive<u32>) -> Duration {
        Duration::from_millis(self.number(env, range).into())
    }

    pub(super) fn delta(&mut self, env: &str, range: RangeInclusive<u32>) -> TimeDelta {
        TimeDelta::milliseconds(self.number(env, range).into())
    }

    /// Pauses in seconds, separated by commas.
    pub(super) fn pauses(&mut self, env: &str) -> Vec<Duration> {
        const MAX: u64 = 7 * 24 * 3_600;
        let seconds = self.text(env).split(',').map(|pause| pause.trim().parse::<u64>().ok());
        let pauses = seconds.map(|s| s.filter(|s| (1..=MAX).contains(s)).map(Duration::from_secs));
        let pauses = pauses.collect::<Option<Vec<_>>>().filter(|pauses| pauses.len() <= 20);
        pauses.unwrap_or_else(|| {
            self.fault(env, &"must be 1 to 20 numbers of seconds from 1 to 604800, separated by commas");
            Vec::new()
        })
    }

    pub(super) fn flag(&mut self, env: &str) -> bool {
        self.one_of(env, &["true", "false"]) == "true"
    }

    pub(super) fn one_of(&mut self, env: &str, words: &[&'static str]) -> &'static str {
        let word = words.iter().find(|word| **word == self.text(env)).copied();
        word.unwrap_or_else(|| {
            self.fault(env, &format!("must be {}", words.join(" or ")));
            words.first().copied().unwrap_or_default()
        })
    }

    pub(super) fn address(&mut self, env: &str) -> SocketAddr {
        self.text(env).parse().unwrap_or_else(|_| {
            self.fault(env, &"must be an address and a port, such as 127.0.0.1:3000");
            SocketAddr::from(([127, 0, 0, 1], 0))
        })
    }

    pub(super) fn optional_address(&mut self, env: &str) -> Option<SocketAddr> {
        (!self.text(env).is_empty()).then(|| self.address(env))
    }

    pub(super) fn cron(&mut self, env: &str) -> String {
        let expression = self.text(env).to_owned();
        if let Err(error) = CronJob::new("check", &expression, || async { Ok(()) }) {
            self.fault(env, &error);
        }
        expression
    }

    pub(super) fn log_filter(&mut self) -> String {
        let filter = self.text("PSP_LOG").to_owned();
        if filter.parse::<tracing_subscriber::EnvFilter>().is_err() {
            self.fault("PSP_LOG", &"must be a tracing filter, such as info,psp_worker=debug");
        }
        filter
    }

    pub(super) fn database(&mut self) -> Database {
        let (url, visibility) = (self.text("DATABASE_URL"), self.millis("PSP_VISIBILITY_TIMEOUT_MS", 100..=43_200_000));
        let is_postgres = url.starts_with("postgres:") || url.starts_with("postgresql:");
        let postgres = self.postgres(PgOptions { visibility_timeout: visibility, ..PgOptions::new(url) });
        if is_postgres {
            if postgres.check().is_err() {
                self.fault("DATABASE_URL", &"must have the form postgres://user@host:port/database");
            }
            return Database::Postgres(postgres);
        }
        let sqlite = SqliteOptions { visibility_timeout: visibility, ..SqliteOptions::new(url) };
        let file = if url.starts_with("sqlite:") { sqlite.file().ok() } else { None };
        let file = file.unwrap_or_else(|| {
            self.fault(
                "DATABASE_URL",
                &"must be sqlite:// and the path of a file, or postgres:// with user, host and database",
            );
            PathBuf::new()
        });
        Database::Sqlite(sqlite, file)
    }

    fn postgres(&mut self, options: PgOptions) -> PgOptions {
        let password = self.text("PSP_DATABASE_PASSWORD");
        PgOptions {
            password: (!password.is_empty()).then(|| password.into()),
            connections: self.number("PSP_DATABASE_CONNECTIONS", 4..=200),
            statement_timeout: self.millis("PSP_DATABASE_STATEMENT_TIMEOUT_MS", 100..=600_000),
            lock_timeout: self.millis("PSP_DATABASE_LOCK_TIMEOUT_MS", 10..=600_000),
            ..options
        }
    }

    /// The options of SQS, where it is the queue.
    pub(super) fn sqs(&mut self, database: &Database) -> Option<SqsOptions> {
        let prefix = self.text("PSP_SQS_PREFIX").to_owned();
        if prefix.len() > 40 || !prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
            self.fault("PSP_SQS_PREFIX", &"must be at most 40 letters, digits, hyphens and underscores");
        }
        if self.one_of("PSP_QUEUE", &["database", "sqs"]) != "sqs" {
            return None;
        }
        let Database::Postgres(postgres) = database else {
            self.fault("PSP_QUEUE", &"sqs needs a DATABASE_URL of postgres://");
            return None;
        };
        if postgres.visibility_timeout < Duration::from_secs(1) {
            self.fault("PSP_VISIBILITY_TIMEOUT_MS", &"must be at least 1000 with sqs");
        }
        Some(SqsOptions { visibility_timeout: postgres.visibility_timeout, ..SqsOptions::new(prefix) })
    }

    /// Where the gateway is, and what signs.
    pub(super) fn gateway(&mut self) -> (Option<GatewayUrl>, Option<SigningKey>) {
        let (url, secret) = (self.text("PSP_GATEWAY_URL"), self.text("PSP_GATEWAY_SECRET"));
        if !url.is_empty() && secret.is_empty() {
            self.fault("PSP_GATEWAY_SECRET", &"is required with PSP_GATEWAY_URL");
        }
        let key = (!secret.is_empty()).then(|| SigningKey::new(secret.into()));
        let key = key.and_then(|key| key.map_err(|error| self.fault("PSP_GATEWAY_SECRET", &error)).ok());
        (self.url("PSP_GATEWAY_URL"), key)
    }

    /// `name=secret`, separated by commas. Faults name entries by their place, because what stands there may be a secret.
    /// No two gateways may have the same: each could sign callbacks of the other.
    pub(super) fn gateway_secrets(&mut self) -> BTreeMap<GatewayName, SigningKey> {
        let (env, mut secrets) = ("PSP_GATEWAY_SECRETS", BTreeMap::new());
        let has_built_in = !self.text("PSP_GATEWAY_URL").is_empty();
        let built_in = has_built_in.then(|| ("PSP_GATEWAY_SECRET".to_owned(), self.text("PSP_GATEWAY_SECRET")));
        let mut places: Vec<_> = built_in.into_iter().collect();
        let entries = self.text(env).split(',').map(str::trim).filter(|entry| !entry.is_empty());
        for (place, entry) in (1..).zip(entries) {
            let named = entry.split_once('=').and_then(|(name, secret)| Some((name.parse().ok()?, secret)));
            let Some((name, secret)): Option<(GatewayName, &str)> = named else {
                self.fault(env, &format!("entry {place} must be the name of a gateway, = and its secret"));
                continue;
            };
            if secrets.contains_key(&name) {
                self.fault(env, &format!("entry {place} is the second of one gateway"));
            } else if let Some((other, _)) = places.iter().find(|(_, known)| *known == secret) {
                self.fault(env, &format!("entry {place} has the same secret as {other}: every gateway needs its own"));
            }
            places.push((format!("entry {place}"), secret));
            match SigningKey::new(secret.into()) {
                Ok(key) => drop(secrets.insert(name, key)),
                Err(error) => self.fault(env, &format!("entry {place}: the secret {error}")),
            }
        }
        secrets
    }

    /// Callbacks are signed with the path that gateways are told, and verified with the one that arrives here.
    pub(super) fn public_url(&mut self) -> Option<GatewayUrl> {
        let url = self.url("PSP_PUBLIC_URL");
        if url.as_ref().is_some_and(GatewayUrl::has_path) {
            self.fault("PSP_PUBLIC_URL", &"must have no path: callbacks would be signed under another than arrives");
        }
        url
    }

    fn url(&mut self, env: &str) -> Option<GatewayUrl> {
        let text = self.text(env);
        let url = (!text.is_empty()).then(|| text.parse());
        url.and_then(|url: Result<_, InvalidUrl>| url.map_err(|error| self.fault(env, &error)).ok())
    }

    pub(super) fn fees(&mut self, overrides: &BTreeMap<PaymentMethod, FeeRule>) -> FeeRules {
        FeeRules::with(overrides.clone()).unwrap_or_else(|error| {
            self.faults.push(error.to_string());
            FeeRules::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "the first secret that is long enough";
    const OTHER: &str = "the second secret that is long enough";

    /// The faults of these settings, which never show a secret.
    fn faults(given: &[(&'static str, &str)]) -> Vec<String> {
        let texts = Texts::given(given);
        let mut parser = Parser::new(&texts);
        parser.gateway();
        parser.gateway_secrets();
        parser.public_url();
        let faults = parser.into_faults();
        assert!(!faults.concat().contains("that is long enough"), "{faults:?}");
        faults
    }

    #[test]
    fn every_gateway_has_a_secret_of_its_own() {
        let own = format!("acme={ONE},globex={OTHER}");
        assert_eq!(faults(&[("PSP_GATEWAY_SECRETS", &own)]), [""; 0]);
        let shared = format!("acme={ONE}, globex={OTHER}, initech={ONE}");
        assert_eq!(
            faults(&[("PSP_GATEWAY_SECRETS", &shared)]),
            ["PSP_GATEWAY_SECRETS entry 3 has the same secret as entry 1: every gateway needs its own"]
        );
        let twice = format!("acme={ONE},acme={ONE}");
        assert_eq!(
            faults(&[("PSP_GATEWAY_SECRETS", &twice)]),
            ["PSP_GATEWAY_SECRETS entry 2 is the second of one gateway"]
        );
    }

    #[test]
    fn the_built_in_gateway_has_one_as_well_where_it_is_there() {
        let own = format!("acme={ONE},globex={OTHER}");
        let given = [("PSP_GATEWAY_SECRET", OTHER), ("PSP_GATEWAY_SECRETS", own.as_str())];
        assert_eq!(faults(&given), [""; 0], "a simulator's own");
        let given = [&given[..], &[("PSP_GATEWAY_URL", "https://acquirer.example")]].concat();
        assert_eq!(
            faults(&given),
            ["PSP_GATEWAY_SECRETS entry 2 has the same secret as PSP_GATEWAY_SECRET: every gateway needs its own"]
        );
    }

    #[test]
    fn gateways_call_back_at_a_host_without_a_path() {
        for right in ["https://psp.example", "https://psp.example/", "http://127.0.0.1:3000"] {
            assert_eq!(faults(&[("PSP_PUBLIC_URL", right)]), [""; 0], "{right}");
        }
        for wrong in ["https://psp.example/payments", "https://psp.example/payments/", "http://127.0.0.1:3000/v1"] {
            let faults = faults(&[("PSP_PUBLIC_URL", wrong)]);
            assert!(faults[0].starts_with("PSP_PUBLIC_URL must have no path"), "{wrong}: {faults:?}");
        }
    }
}
