use std::process::ExitCode;

use crate::settings::Settings;

/// Prints the settings in effect as TOML that could be used as psp.toml.
#[expect(clippy::print_stdout, reason = "the command's answer")]
pub(crate) fn print(settings: &Settings) -> ExitCode {
    for (setting, value, source) in settings.effective() {
        println!("# {}: {}. Default: {:?}; this is from: {source}", setting.env, setting.meaning, setting.default);
        match value {
            Some(value) => println!("{} = {value:?}", setting.key),
            None => println!("# {} is unset", setting.key),
        }
    }
    for (method, rule) in settings.fee_overrides() {
        println!("\n[fees.{method}]\npercent = \"{}\"\ndays = {}", rule.percent, rule.days);
        println!("initial_status = \"{}\"", rule.initial_status.as_str());
    }
    ExitCode::SUCCESS
}
