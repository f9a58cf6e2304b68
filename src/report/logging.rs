//! Log lines on stderr: errors and warnings by default, more with each -v; RUST_LOG overrides.
use log::LevelFilter;
use std::io::Write;

/// Starts logging. `verbosity` counts the -v flags.
pub fn init(verbosity: u8) {
    let level = match verbosity {
        0 => LevelFilter::Warn,
        1 => LevelFilter::Info,
        2 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    };
    env_logger::Builder::new()
        .filter_module("netkat", level)
        .parse_default_env()
        .format(|out, record| writeln!(out, "netkat: {}", printable(&record.args().to_string())))
        .init();
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
