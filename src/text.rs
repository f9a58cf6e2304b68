//! Text that others chose (names, paths, error messages), made safe for a terminal and for a log.
//!
//! The name of an interface, a host or a file may hold control characters, which a terminal obeys.
use std::borrow::Cow;

/// Characters of a message that are kept of its beginning and of its end.
const BEGINNING: usize = 400;
const END: usize = 200;

/// Replaces control characters, and keeps beginning and end of a text that is longer than anyone reads.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = beginning(text, BEGINNING + END);
    let length = text.chars().count();
    if length > BEGINNING + END {
        line = beginning(text, BEGINNING);
        line.extend(text.chars().skip(length - END).map(replace_control));
    }
    line
}

/// Replaces control characters, and keeps the first `limit` characters of a longer text.
pub(crate) fn beginning(text: &str, limit: usize) -> String {
    let mut beginning: String = text.chars().take(limit).map(replace_control).collect();
    if text.chars().nth(limit).is_some() {
        beginning.push('…');
    }
    beginning
}

/// Replaces control characters other than line feeds and tabs, which the kernel's own reports have.
pub(crate) fn several_lines(text: &str) -> String {
    text.chars().map(|c| if matches!(c, '\n' | '\t') { c } else { replace_control(c) }).collect()
}

/// Escapes control characters as Rust does, so that the text can still be told from others.
pub(crate) fn escape_control(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::new();
    for character in text.chars() {
        if character.is_control() {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    Cow::Owned(escaped)
}

fn replace_control(character: char) -> char {
    if character.is_control() { char::REPLACEMENT_CHARACTER } else { character }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "interface \x1b]0;title\x07eth\u{9b}2J\r0\tis gone\n";

    #[test]
    fn no_terminal_obeys_a_text() {
        let lines = "interface \u{fffd}]0;title\u{fffd}eth\u{fffd}2J\u{fffd}0\tis gone\n";
        assert_eq!(several_lines(HOSTILE), lines);
        assert_eq!(one_line(HOSTILE), lines.replace(['\t', '\n'], "\u{fffd}"));
        assert_eq!(escape_control(HOSTILE), r"interface \u{1b}]0;title\u{7}eth\u{9b}2J\r0\tis gone\n");
    }

    #[test]
    fn a_long_line_keeps_its_beginning_and_its_end() {
        let shortened = one_line(&format!("begin{}end", "é".repeat(100_000)));
        assert!(shortened.starts_with("begin") && shortened.ends_with("end"));
        assert_eq!(shortened.chars().count(), BEGINNING + 1 + END);
    }
}
