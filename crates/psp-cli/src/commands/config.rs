use std::fmt::Write;

use super::answer;
use crate::settings::Settings;

/// Prints the settings in effect as TOML that could be used as psp.toml.
pub(crate) fn print(settings: &Settings) -> anyhow::Result<()> {
    let mut toml = String::new();
    for (setting, value, source) in settings.effective() {
        let (env, meaning, default) = (setting.env, setting.meaning, setting.default);
        writeln!(toml, "# {env}: {meaning}. Default: {default:?}; this is from: {source}")?;
        match value {
            Some(value) => writeln!(toml, "{} = {value:?}", setting.key)?,
            None => writeln!(toml, "# {} is unset", setting.key)?,
        }
    }
    for (method, rule) in settings.fee_overrides() {
        writeln!(toml, "\n[fees.{method}]\npercent = \"{}\"\ndays = {}", rule.percent, rule.days)?;
        writeln!(toml, "initial_status = \"{}\"", rule.initial_status.as_str())?;
    }
    answer(toml.trim_end())
}
