//! Log lines on standard error: errors and warnings by default, more with each -v; RUST_LOG overrides.
use crate::stderr;
use env_filter::{Builder, Filter};
use log::{LevelFilter, Log, Metadata, Record};
use std::env;

/// The variable that says what is logged.
const VARIABLE: &str = "RUST_LOG";

/// Lines of what passes the filter, which never wait for their reader; see [`stderr`].
struct Logger(Filter);

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.0.matches(record) {
            stderr::say(&format!("netkat: {}", printable(&record.args().to_string())));
        }
    }

    fn flush(&self) {
        stderr::flush();
    }
}

/// Starts logging. `verbosity` counts the -v flags.
pub fn init(verbosity: u8) {
    let level = match verbosity {
        0 => LevelFilter::Warn,
        1 => LevelFilter::Info,
        2 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    };
    let mut builder = Builder::new();
    builder.filter_module("netkat", level);
    let wrong = env::var(VARIABLE).ok().and_then(|wanted| builder.try_parse(&wanted).err());
    let filter = builder.build();
    log::set_max_level(filter.filter());
    if log::set_boxed_logger(Box::new(Logger(filter))).is_err() {
        return;
    }
    if let Some(error) = wrong {
        log::warn!("{VARIABLE} is ignored: {error}");
    }
}
/// A message with nothing in it that a terminal would obey: whoever may name an interface may put anything into its name.
/// Lines and tabs stay, since the kernel's own reports have them.
pub fn printable(message: &str) -> String {
    let harmless = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    message.chars().map(|c| if harmless(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_terminal_obeys_a_message() {
        let message = "interface \x1b]0;title\x07eth\u{9b}2J\r0\tis gone\n";
        let replaced = "interface \u{fffd}]0;title\u{fffd}eth\u{fffd}2J\u{fffd}0\tis gone\n";
        assert_eq!(printable(message), replaced);
    }
}
