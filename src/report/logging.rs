//! Log lines on standard error: errors and warnings by default, more with each -v; RUST_LOG overrides.
use crate::stdio::stderr;
use env_logger::{Builder, Target};
use log::LevelFilter;
use std::{env, io::Write};

/// The variable that says what is logged.
const VARIABLE: &str = "RUST_LOG";

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
    // env_logger prints its complaints itself, and panics where it cannot (env_filter's Builder::parse()).
    let wanted = env::var(VARIABLE).ok();
    let wrong = wanted.as_ref().and_then(|wanted| env_filter::Builder::new().try_parse(wanted).err());
    if let Some(wanted) = wanted.filter(|_| wrong.is_none()) {
        builder.parse_filters(&wanted);
    }
    builder
        .target(Target::Pipe(Box::new(stderr::Lines)))
        .format(|out, record| writeln!(out, "netkat: {}", printable(&record.args().to_string())))
        .init();
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
