//! The manual page, section 1, in roff (man(7)): flags from the parser's definitions, sections from the manual's text.
use super::manual::{DATE, SECTIONS, SEE_ALSO, Section};
use clap::{Arg, Command};
use std::fmt::Write;

/// Width of the lines of text that the page's source has, in characters.
const SOURCE_WIDTH: usize = 78;

/// Returns the page.
pub(super) fn page(command: &Command) -> String {
    let mut page =
        format!(".TH NETKAT 1 {DATE} \"netkat {}\" \"User Commands\"\n.SH NAME\n", env!("CARGO_PKG_VERSION"));
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    text_line(&mut page, &format!("netkat - {about}"));
    page.push_str(".SH SYNOPSIS\n.nf\n");
    for form in command.get_overridden_usage().map(ToString::to_string).unwrap_or_default().lines() {
        let form = form.trim();
        let arguments = form.strip_prefix("netkat").unwrap_or(form);
        let _ = writeln!(page, "\\fBnetkat\\fR{}", escape(arguments));
    }
    page.push_str(".fi\n.SH DESCRIPTION\n");
    paragraphs(&mut page, &command.get_long_about().map(ToString::to_string).unwrap_or_default(), ".PP");
    page.push_str(".SH OPTIONS\n");
    let mut heading = None;
    for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
        if heading != arg.get_help_heading() {
            heading = arg.get_help_heading();
            let _ = writeln!(page, ".SS {}", escape(heading.unwrap_or_default()));
        }
        option(&mut page, arg);
    }
    SECTIONS.iter().for_each(|section| text_section(&mut page, section));
    let _ = writeln!(page, ".SH SEE ALSO");
    let names = SEE_ALSO.map(|(name, number)| format!(".BR {} ({number})", escape(name)));
    page.push_str(&names.join(" ,\n"));
    page.push('\n');
    page
}

/// Appends a flag, its value, its help and what it takes.
fn option(page: &mut String, arg: &Arg) {
    let value = arg.get_value_names().map(|names| names.join(" ")).unwrap_or_default();
    let value = format!("\\fI{}\\fR", escape(&value));
    let short = arg.get_short().map(|short| format!("\\fB\\-{short}\\fR"));
    let long = arg.get_long().map(|long| format!("\\fB\\-\\-{}\\fR", escape(long)));
    let names = short.into_iter().chain(long).collect::<Vec<_>>().join(", ");
    let _ = match (arg.is_positional(), arg.get_action().takes_values(), arg.is_require_equals_set()) {
        (true, ..) => writeln!(page, ".TP\n[{value}]"),
        (_, false, _) => writeln!(page, ".TP\n{names}"),
        (_, true, true) => writeln!(page, ".TP\n{names}[={value}]"),
        (_, true, false) => writeln!(page, ".TP\n{names} {value}"),
    };
    let help = arg.get_long_help().or_else(|| arg.get_help()).map(ToString::to_string).unwrap_or_default();
    paragraphs(page, &help, ".IP");
    let possible: Vec<_> =
        arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    if !possible.is_empty() && arg.get_action().takes_values() {
        page.push_str(".IP\n");
        text_line(page, &format!("One of: {}.", possible.join(", ")));
    }
    let default: Vec<_> =
        arg.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
    if !default.is_empty() && arg.get_action().takes_values() {
        page.push_str(".IP\n");
        text_line(page, &format!("Default: {}.", default.join(", ")));
    }
}

/// Appends paragraphs, which empty lines part; `macro_name` begins each but the first.
fn paragraphs(page: &mut String, text: &str, macro_name: &str) {
    let mut begins = false;
    for line in text.lines() {
        if line.trim().is_empty() {
            begins = true;
            continue;
        }
        if std::mem::take(&mut begins) {
            let _ = writeln!(page, "{macro_name}");
        }
        text_line(page, line);
    }
}

/// Appends a section. A line that begins with two spaces is an item, if two spaces part its label from its text, or
/// else a command to type.
fn text_section(page: &mut String, (title, text): &Section) {
    let _ = writeln!(page, ".SH {}", escape(&title.to_uppercase()));
    let (mut first, mut verbatim) = (true, false);
    for line in text.lines() {
        let indented = line.strip_prefix("  ");
        let item = indented.and_then(|line| line.split_once("  "));
        let is_command = indented.is_some() && item.is_none();
        if verbatim != is_command {
            page.push_str(if is_command { ".PP\n.RS 2\n.nf\n" } else { ".fi\n.RE\n" });
            verbatim = is_command;
        }
        match (item, indented) {
            (Some((label, text)), _) => {
                let _ = writeln!(page, ".TP\n.B {}", escape(label));
                text_line(page, text.trim_start());
            }
            (None, Some(command)) => command_line(page, command),
            (None, None) => {
                page.push_str(if first { "" } else { ".PP\n" });
                text_line(page, line);
            }
        }
        first = false;
    }
    page.push_str(if verbatim { ".fi\n.RE\n" } else { "" });
}

/// Appends text in lines of at most 80 characters, where words are that short, of which roff takes none for a request.
fn text_line(page: &mut String, text: &str) {
    let mut length = 0;
    for word in text.split(' ').map(escape) {
        if length > 0 && length + 1 + word.len() > SOURCE_WIDTH {
            page.push('\n');
            length = 0;
        }
        if length > 0 {
            page.push(' ');
        } else if word.starts_with(['.', '\\']) {
            page.push_str("\\&");
        }
        page.push_str(&word);
        length += word.len() + 1;
    }
    page.push('\n');
}

/// Appends a command, which keeps its line.
fn command_line(page: &mut String, line: &str) {
    let _ = writeln!(page, "\\&{}", escape(line));
}

/// Escapes what roff reads as its own, or prints as another character than ASCII's (groff_char(7)).
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => escaped.push_str("\\e"),
            '-' => escaped.push_str("\\-"),
            '\'' => escaped.push_str("\\(aq"),
            '`' => escaped.push_str("\\(ga"),
            '^' => escaped.push_str("\\(ha"),
            '~' => escaped.push_str("\\(ti"),
            c => escaped.push(c),
        }
    }
    escaped
}
