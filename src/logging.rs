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
        .format(|out, record| writeln!(out, "netkat: {}", record.args()))
        .init();
}
