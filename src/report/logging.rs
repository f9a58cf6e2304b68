//! Log lines on standard error: errors and warnings by default, more with each -v, or what RUST_LOG chooses.
use crate::{stdio::stderr, text};
use env_logger::{Builder, Target};
use log::LevelFilter;
use std::{env, io::Write};

/// Environment variable that chooses the log lines, in env_logger's syntax.
const VARIABLE: &str = "RUST_LOG";

/// Starts logging. `verbosity` is the number of -v flags.
pub fn init(verbosity: u8) {
    let level = match verbosity {
        0 => LevelFilter::Warn,
        1 => LevelFilter::Info,
        2 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    };
    let mut builder = Builder::new();
    builder.filter_module("netkat", level);
    // env_logger prints its own complaints, and panics where it cannot (env_filter, Builder::parse()).
    let filter = env::var(VARIABLE).ok();
    let wrong = filter.as_ref().and_then(|filter| env_filter::Builder::new().try_parse(filter).err());
    if let Some(filter) = filter.filter(|_| wrong.is_none()) {
        builder.parse_filters(&filter);
    }
    builder
        .target(Target::Pipe(Box::new(stderr::Lines)))
        .format(|out, record| writeln!(out, "netkat: {}", text::several_lines(&record.args().to_string())))
        .init();
    if let Some(error) = wrong {
        log::warn!("{VARIABLE} is ignored: {error}");
    }
}
