//! The words for wrong usage: one line that says what is wrong and what would be right, in place of clap's.
use super::foreign_flags;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use std::error::Error;

/// Letters at the beginning that two names have in common if one is a slip of the other.
const ALIKE: usize = 3;

/// Returns what is wrong.
pub(super) fn words(error: &clap::Error) -> String {
    let flag = text(error, ContextKind::InvalidArg);
    // `--wait <TIME>` and `--json[=<FILE>]` without their placeholders.
    let flag = flag.split([' ', '=', '[']).next().unwrap_or_default();
    let value = text(error, ContextKind::InvalidValue);
    match error.kind() {
        ErrorKind::UnknownArgument => unknown(flag, error),
        ErrorKind::ArgumentConflict => {
            let prior = text(error, ContextKind::PriorArg);
            let other = prior.split(' ').next().filter(|other| !other.is_empty());
            match other {
                Some(other) => format!("{flag} and {other} exclude each other; name one"),
                None => format!("{flag} stands alone; leave the other flags out"),
            }
        }
        ErrorKind::InvalidValue | ErrorKind::NoEquals if value.is_empty() => {
            format!("{flag} needs a value; one that begins with a dash is written {flag}=VALUE")
        }
        ErrorKind::InvalidValue => {
            format!("{flag} {value}: choose one of {}", text(error, ContextKind::ValidValue))
        }
        ErrorKind::ValueValidation => format!("{flag} {value}: {}", remedy(error)),
        _ => first_line(error),
    }
}

fn unknown(flag: &str, error: &clap::Error) -> String {
    if let Some(advice) = foreign_flags::advice(flag) {
        return format!("{flag}: {advice}");
    }
    let similar = text(error, ContextKind::SuggestedArg);
    let beginning = |name: &str| name.trim_start_matches('-').chars().take(ALIKE).collect::<String>();
    match similar.starts_with("--") && beginning(&similar) == beginning(flag) {
        true => format!("there is no flag {flag}; did you mean {similar}?"),
        false => format!("there is no flag {flag}; netkat --help explains those there are"),
    }
}

/// Returns the parser's words about a value.
fn remedy(error: &clap::Error) -> String {
    let Some(reason) = error.source().map(ToString::to_string) else { return first_line(error) };
    match reason.split_once(" is not in ").and_then(|(_, range)| range.split_once("..=")) {
        Some((low, high)) => format!("write a number from {low} to {high}"),
        None if reason.contains("invalid digit") => "write a number".to_owned(),
        None => reason,
    }
}

/// Returns a part of the error as words.
fn text(error: &clap::Error, part: ContextKind) -> String {
    match error.get(part) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(", "),
        _ => String::new(),
    }
}

/// Returns the first line of clap's message, which is the message itself.
fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}
