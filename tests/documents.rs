//! Statements of the documents about the code, as far as a program can check them.
use std::{
    fs,
    path::{Path, PathBuf},
};

fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Lists the Rust files below a folder of the repository.
fn sources(folder: &str) -> Vec<PathBuf> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files
}

/// Returns the name that a test's module has in the documents: the file's, or the folder's where the file is
/// main.rs, mod.rs or tests.rs.
fn module(file: &Path) -> &str {
    let stem = |path: &Path| path.file_stem().and_then(|stem| stem.to_str()).map(str::len);
    let named = match file.file_name().and_then(|name| name.to_str()) {
        Some("main.rs" | "mod.rs" | "tests.rs") => file.parent().expect("a folder"),
        _ => file,
    };
    let name = named.file_name().and_then(|name| name.to_str()).expect("a name");
    &name[..stem(named).expect("a stem")]
}

/// Lists the tests of a file.
fn tests(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        if line != "#[test]" {
            continue;
        }
        let function = lines.find_map(|line| line.strip_prefix("fn "));
        names.extend(function.and_then(|rest| rest.split('(').next()));
    }
    names
}

/// Lists the words within backquotes that look like `file::test`.
fn named_tests(document: &str) -> Vec<(&str, &str)> {
    let spans = document.split('`').skip(1).step_by(2);
    let is_word =
        |word: &str| word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    spans
        .filter_map(|span| span.split_once("::"))
        .filter(|(file, test)| is_word(file) && is_word(test))
        .collect()
}

#[test]
fn the_tests_that_security_names_exist() {
    let texts: Vec<(PathBuf, String)> =
        ["src", "tests"].into_iter().flat_map(sources).map(|file| (file.clone(), read(&file))).collect();
    let known: Vec<(&str, &str)> = texts
        .iter()
        .flat_map(|(file, text)| tests(text).into_iter().map(|test| (module(file), test)))
        .collect();
    let security = read("SECURITY.md");
    let named = named_tests(&security);
    assert!(named.len() > 50, "{named:?}");
    for (file, test) in named {
        let elsewhere = known.iter().filter(|(_, name)| *name == test).collect::<Vec<_>>();
        assert!(known.contains(&(file, test)), "{file}::{test}; tests of this name: {elsewhere:?}");
    }
}

/// Lists the rooms of src in the order of the table in docs/architecture.md.
fn rooms(architecture: &str) -> Vec<&str> {
    let cells = architecture.lines().filter_map(|line| line.strip_prefix("| `src/")?.split('`').next());
    cells.filter(|room| !room.starts_with("main.rs")).map(|room| room.trim_end_matches(".rs")).collect()
}

/// Lists the modules of the crate that a source text names: `a` in `crate::a::…`, `a` and `b` in
/// `crate::{a::…, b::{…}}`.
fn imports(text: &str) -> Vec<String> {
    let code: String = text.lines().filter_map(|line| line.split("//").next()).collect();
    let mut found = Vec::new();
    for rest in code.split("crate::").skip(1) {
        let (mut depth, mut in_path) = (0, false);
        let mut word = String::new();
        for c in rest.chars() {
            if !in_path && (c.is_ascii_lowercase() || c == '_') {
                word.push(c);
                continue;
            }
            if !word.is_empty() {
                found.push(std::mem::take(&mut word));
                in_path = true;
            }
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => in_path = false,
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    found
}

#[test]
fn imports_are_read_from_paths_and_groups() {
    let text = "use crate::net;\nuse crate::{\n    host::{route, link}, // crate::cli\n    stack::ip,\n};\nlet a = crate::stdio::b();";
    assert_eq!(imports(text), ["net", "host", "stack", "stdio"]);
}

#[test]
fn imports_run_down_the_list_of_rooms() {
    let architecture = read("docs/architecture.md");
    let rooms = rooms(&architecture);
    let place = |room: &str| rooms.iter().position(|other| *other == room);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut upward = Vec::new();
    for file in sources("src") {
        let path = file.strip_prefix(&source).expect("a path below src");
        let room =
            path.iter().next().and_then(|first| first.to_str()).expect("a room").trim_end_matches(".rs");
        if matches!(room, "main" | "lib") {
            continue;
        }
        let here = place(room).unwrap_or_else(|| panic!("docs/architecture.md does not know src/{room}"));
        for import in imports(&read(&file)) {
            if place(&import).is_some_and(|there| there < here) {
                upward.push(format!("{room} -> {import} in {}", path.display()));
            }
        }
    }
    assert!(upward.is_empty(), "{upward:#?}");
}

#[test]
fn unsafe_code_lives_in_link_and_kernel() {
    for file in sources("src").into_iter().filter(|file| read(file).contains("allow(unsafe_code)")) {
        let room = file.parent().and_then(Path::file_name).and_then(|name| name.to_str());
        assert!(matches!(room, Some("link" | "kernel")), "{}", file.display());
    }
}
