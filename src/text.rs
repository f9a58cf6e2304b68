//! Text that others chose (names, paths, error messages), made safe for a terminal and for a log.
//!
//! Whoever names an interface, a host or a file may put control characters into the name, which a terminal obeys.
use std::borrow::Cow;

/// Characters of a message that are kept of its beginning and of its end.
const BEGINNING: usize = 400;
const END: usize = 200;

/// Replaces control characters, and shortens a text that is longer than anyone reads.
pub(crate) fn one_line(text: &str) -> String {
    let clean: Vec<char> = text.chars().map(|c| if c.is_control() { REPLACED } else { c }).collect();
    match clean.len() > BEGINNING + END {
        true => {
            clean.iter().take(BEGINNING).chain(&['…']).chain(clean.iter().skip(clean.len() - END)).collect()
        }
        false => clean.into_iter().collect(),
    }
}

/// Replaces control characters other than line feeds and tabs, which the kernel's own reports have.
pub(crate) fn several_lines(text: &str) -> String {
    let harmless = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    text.chars().map(|c| if harmless(c) { c } else { REPLACED }).collect()
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

const REPLACED: char = char::REPLACEMENT_CHARACTER;

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
