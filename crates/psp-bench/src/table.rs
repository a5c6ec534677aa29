use std::fmt::Write;
use std::process::Command;

use comfy_table::presets;

/// One figure.
pub(crate) struct Row {
    name: String,
    value: String,
    target: String,
}

impl Row {
    pub(crate) fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), value: value.into(), target: String::new() }
    }

    pub(crate) fn target(mut self, target: &str, reached: bool) -> Self {
        self.target = format!("{target}: {}", if reached { "reached" } else { "MISSED" });
        self
    }
}

/// All figures of a run, with the machine and the date.
pub(crate) struct Table {
    title: String,
    rows: Vec<Row>,
}

impl Table {
    pub(crate) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = processor.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown processor");
        let date = Command::new("date").args(["-u", "+%F"]).output().map(|output| output.stdout).unwrap_or_default();
        let date = String::from_utf8_lossy(&date);
        // Figures of a build without optimizations must not pass for others.
        let build = if cfg!(debug_assertions) { ", development build" } else { "" };
        let model = model.trim_start_matches([' ', '\t', ':']);
        let title = format!("{}, {cores} cores of {model}{build}", date.trim());
        Self { title, rows: Vec::new() }
    }

    pub(crate) fn add(&mut self, row: Row) {
        eprintln!("  {}: {} {}", row.name, row.value, row.target);
        self.rows.push(row);
    }

    pub(crate) fn text(&self) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED).set_header(["", &self.title, "target"]);
        for row in &self.rows {
            table.add_row([&row.name, &row.value, &row.target]);
        }
        table.to_string()
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("| | {} | target |\n| --- | --- | --- |\n", self.title);
        for row in &self.rows {
            let _ = writeln!(text, "| {} | {} | {} |", row.name, row.value, row.target);
        }
        text
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
