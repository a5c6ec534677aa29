use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use psp_domain::{FeeRule, FeeRules, PaymentMethod};
use psp_jobs::CronJob;
use psp_sqlite::SqliteOptions;

use super::Source;
use super::catalog::Texts;

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

    pub(super) fn database(&mut self, options: &SqliteOptions) -> PathBuf {
        let url = self.text("DATABASE_URL");
        let file = if url.starts_with("sqlite:") { options.file().ok() } else { None };
        file.unwrap_or_else(|| {
            self.fault("DATABASE_URL", &"must be sqlite:// and the path of a file: this build knows no other database");
            PathBuf::new()
        })
    }

    pub(super) fn fees(&mut self, overrides: &BTreeMap<PaymentMethod, FeeRule>) -> FeeRules {
        FeeRules::with(overrides.clone()).unwrap_or_else(|error| {
            self.faults.push(error.to_string());
            FeeRules::default()
        })
    }
}
