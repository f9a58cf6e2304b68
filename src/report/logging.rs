//! Log lines on standard error: errors and warnings by default, more with each -v, or what RUST_LOG chooses. Where
//! --json writes its objects there, each line is an object, too.
use crate::{
    json::{Framed, Schema},
    stdio::stderr,
    text,
};
use env_logger::{Builder, Target};
use log::{Level, LevelFilter};
use serde::Serialize;
use std::{
    env,
    io::Write,
    sync::atomic::{AtomicBool, Ordering},
};

/// Environment variable that chooses the log lines, in env_logger's syntax.
const VARIABLE: &str = "RUST_LOG";

/// Log lines are JSON objects.
static AS_OBJECTS: AtomicBool = AtomicBool::new(false);

/// The body of a log line's object.
#[derive(Serialize)]
struct LogLine {
    level: String,
    message: String,
}

/// Starts logging. `verbosity` is the number of -v flags; `as_objects` makes each line a JSON object.
pub fn init(verbosity: u8, as_objects: bool) {
    AS_OBJECTS.store(as_objects, Ordering::Relaxed);
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
        .format(|out, record| writeln!(out, "{}", line(record.level(), &record.args().to_string())))
        .init();
    if let Some(error) = wrong {
        log::warn!("{VARIABLE} is ignored: {error}");
    }
}

/// Prints a message in the form of the log's lines, whatever the log's level is.
pub(crate) fn announce(message: &str) {
    stderr::print_line(&line(Level::Info, message));
}

fn line(level: Level, message: &str) -> String {
    let message = text::several_lines(message);
    if AS_OBJECTS.load(Ordering::Relaxed) {
        let level = level.as_str().to_ascii_lowercase();
        let object = Framed::now(Schema::Log, LogLine { level, message: message.to_string() }).line();
        return object.unwrap_or_default();
    }
    format!("netkat: {message}")
}
