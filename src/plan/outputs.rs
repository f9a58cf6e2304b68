//! Checks where a run's outputs go, before the first of them is opened: standard output takes one, no file
//! takes two, and none is the file that the run reads.
use super::{PlanError, usage};
use crate::{cli::Cli, stdio::STANDARD};
use std::{
    fs::{File, Metadata},
    io::{self, IsTerminal},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
};

/// A file on disk, whatever its name: device and inode.
type Identity = (u64, u64);

/// Checks the outputs that the flags name.
///
/// # Errors
/// Wrong usage: two outputs at one place, or an output that would overwrite the input.
pub(super) fn check(cli: &Cli) -> Result<(), PlanError> {
    let outputs = outputs(cli);
    let standard = outputs.iter().filter(|(_, path)| *path == Path::new(STANDARD));
    let users: Vec<String> =
        standard.map(|(flag, path)| said(flag, path)).chain(own_output(cli).map(str::to_owned)).collect();
    if let [first, second, ..] = users.as_slice() {
        return usage(format!(
            "{first} and {second} cannot share standard output; name a file for one of them"
        ));
    }
    if cli.pcap.as_deref() == Some(Path::new(STANDARD)) && io::stdout().is_terminal() {
        return usage("--pcap -: a terminal cannot show a capture; redirect standard output, or name a file");
    }
    check_files(cli, &outputs)
}

/// Returns the flags that name an output, each with its path.
fn outputs(cli: &Cli) -> Vec<(&'static str, &Path)> {
    let report = cli.json.as_ref().and_then(|file| file.as_deref()).filter(|_| !cli.watches_only());
    let flags = [
        ("--pcap", cli.pcap.as_deref()),
        ("-o", cli.output.as_deref()),
        ("-x", cli.hex_dump.as_deref()),
        ("--json", report),
    ];
    flags.into_iter().filter_map(|(flag, path)| path.map(|path| (flag, path))).collect()
}

/// Returns what the run itself writes to standard output.
fn own_output(cli: &Cli) -> Option<&'static str> {
    if cli.watches_only() {
        return cli.shows_packets().then_some("the packets' text");
    }
    if cli.runs_command() {
        return Some("the command's output");
    }
    if cli.scan {
        return Some("the ports' states");
    }
    if cli.compare {
        return Some("the conclusion");
    }
    let unused = cli.send_only || cli.exec.is_some() || cli.sh_exec.is_some();
    (!unused).then_some("the received data")
}

/// Checks that the outputs are different files on disk, and none the input's.
fn check_files(cli: &Cli, outputs: &[(&'static str, &Path)]) -> Result<(), PlanError> {
    let input = match cli.read.as_deref() {
        None if cli.sniff => None,
        Some(path) if path != Path::new(STANDARD) => identity(path.metadata()),
        _ => descriptor(io::stdin().as_fd()),
    };
    let place = |path: &Path| match path == Path::new(STANDARD) {
        true => descriptor(io::stdout().as_fd()),
        false => identity(path.metadata()),
    };
    for (at, (flag, path)) in outputs.iter().enumerate() {
        let name = said(flag, path);
        if input.is_some() && place(path) == input {
            return usage(format!(
                "{name} is the file that is read, and would be emptied; name another file"
            ));
        }
        for (other, theirs) in outputs.iter().skip(at + 1) {
            let same =
                path == theirs && !is_device(path) || place(path).is_some() && place(path) == place(theirs);
            if same {
                return usage(format!("{name} and {} are one file; name two", said(other, theirs)));
            }
        }
    }
    let lines = cli.watches_only() && cli.shows_packets();
    if lines && input.is_some() && descriptor(io::stdout().as_fd()) == input {
        return usage("standard output is the file that --read reads; redirect it to another file");
    }
    Ok(())
}

/// Returns a flag with its file as typed.
fn said(flag: &str, path: &Path) -> String {
    let separator = if flag == "--json" { '=' } else { ' ' };
    format!("{flag}{separator}{}", path.display())
}

/// Returns the identity of a file on disk; pipes and devices have no content to overwrite.
fn identity(metadata: io::Result<Metadata>) -> Option<Identity> {
    metadata.ok().filter(Metadata::is_file).map(|file| (file.dev(), file.ino()))
}

fn descriptor(fd: BorrowedFd<'_>) -> Option<Identity> {
    identity(fd.try_clone_to_owned().map(File::from).and_then(|file| file.metadata()))
}

/// Returns whether a path is there and no file on disk, as /dev/null, which takes any number of outputs.
fn is_device(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| !metadata.is_file())
}
