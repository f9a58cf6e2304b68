//! Any words as a command line: read, and made into a plan, which opens nothing; errors are put into words. `-n` comes
//! first, so that no name is asked for.
#![no_main]

use std::{
    ffi::OsString,
    os::unix::ffi::{OsStrExt, OsStringExt},
    sync::LazyLock,
};

use clap::CommandFactory;
use libfuzzer_sys::fuzz_target;
use netkat::{cli::Cli, plan::Plan};

/// Every flag that there is, as the parser knows it.
static FLAGS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let command = Cli::command();
    let flags = command.get_arguments().flat_map(|flag| {
        [flag.get_long().map(|long| format!("--{long}")), flag.get_short().map(|short| format!("-{short}"))]
    });
    flags.flatten().collect()
});

/// A line is a word; one that starts with a byte above 127 starts with that flag.
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
            if let Err(error) = Plan::new(&cli) {
                assert!(!error.to_string().is_empty());
                let _ = error.verdict();
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
