//! Parses any words as a command line and plans it, which opens nothing. Formats the errors. `-n`
//! comes first, so netkat looks up no name.
#![no_main]

use std::{
    ffi::OsString,
    os::unix::ffi::{OsStrExt, OsStringExt},
    sync::LazyLock,
};

use clap::CommandFactory;
use libfuzzer_sys::fuzz_target;
use netkat::{
    cli::{Cli, NotRun},
    plan::Plan,
    report::JsonReport,
};

/// All flags of the parser.
static FLAGS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let command = Cli::command();
    let flags = command.get_arguments().flat_map(|flag| {
        [flag.get_long().map(|long| format!("--{long}")), flag.get_short().map(|short| format!("-{short}"))]
    });
    flags.flatten().collect()
});

/// Turns a line into a word. A first byte above 127 stands for the flag of that number.
fn word(line: &[u8]) -> OsString {
    match line {
        [first @ 128..=255, rest @ ..] => {
            let flag = usize::from(first - 128) % FLAGS.len();
            let mut word = OsString::from(FLAGS[flag].clone());
            word.push(std::ffi::OsStr::from_bytes(rest));
            word
        }
        _ => OsString::from_vec(line.to_vec()),
    }
}

fuzz_target!(|input: &[u8]| {
    let words = input.split(|byte| *byte == b'\n').map(word);
    match Cli::read(["netkat".into(), "-n".into()].into_iter().chain(words)) {
        Ok(cli) => {
            if let Err(failure) = Plan::new(&cli, &mut JsonReport::default()) {
                assert!(!failure.message().is_empty());
            }
        }
        Err(NotRun::Print(text)) => assert!(!text.to_string().is_empty()),
        Err(NotRun::Wrong(words)) => assert!(!words.is_empty()),
    }
});
