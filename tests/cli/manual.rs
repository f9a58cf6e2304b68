//! The manual page as its readers and formatters meet it.
use super::{available, printed};
use std::{
    io::Write,
    process::{Command, Stdio},
};

/// Runs a program with the page on standard input, and returns what it prints.
fn formatted(program: &str, arguments: &[&str]) -> String {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(printed(&["--generate", "man"]).as_bytes()).expect("the page is read");
    drop(input);
    String::from_utf8(child.wait_with_output().expect("an end").stdout).expect("UTF-8")
}

#[test]
fn mandoc_has_nothing_to_say_about_it() {
    if available("mandoc") {
        assert_eq!(formatted("mandoc", &["-T", "lint", "-W", "style"]), "");
    }
}

/// A terminal of the usual width shows the page whole.
#[test]
fn it_fits_into_80_columns() {
    if available("mandoc") {
        let text = formatted("mandoc", &["-T", "ascii", "-O", "width=80"]);
        // Bold and underlined characters are printed over one another.
        let columns = |line: &str| line.chars().count() - 2 * line.matches('\u{8}').count();
        let wide: Vec<_> = text.lines().filter(|line| columns(line) > 80).collect();
        assert!(text.lines().count() > 500 && wide.is_empty(), "{wide:#?}");
    }
}

/// Every field of the run's objects is in the page.
#[test]
fn it_has_the_fields_of_the_objects() {
    let page = printed(&["--generate", "man"]).replace('\\', "");
    let words: Vec<_> = page.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let schemas = [
        include_str!("../../docs/schema/common.json"),
        include_str!("../../docs/schema/outcome.json"),
        include_str!("../../docs/schema/scan.json"),
        include_str!("../../docs/schema/run.json"),
    ];
    for schema in schemas {
        let mut names = Vec::new();
        properties(&serde_json::from_str(schema).expect("JSON"), &mut names);
        assert!(names.len() > 10, "{names:?}");
        for name in names {
            assert!(words.contains(&name.as_str()), "the manual lacks {name}");
        }
    }
}

/// Collects the names of all properties that a schema describes.
fn properties(schema: &serde_json::Value, names: &mut Vec<String>) {
    if let Some(found) = schema.get("properties").and_then(|properties| properties.as_object()) {
        names.extend(found.keys().cloned());
    }
    let inner = schema.as_object().into_iter().flat_map(|object| object.values());
    inner.filter(|value| value.is_object()).for_each(|value| properties(value, names));
}
