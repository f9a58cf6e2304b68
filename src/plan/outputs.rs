//! Checks where a run's outputs go, before the first of them is opened: standard output takes one, no file
//! takes two, and none is the file that the run reads.
use super::{PlanError, usage};
use crate::{cli::Cli, report::ReportPlace, stdio::STANDARD};
use std::{
    fmt,
    fs::{File, Metadata},
    io::{self, IsTerminal},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

/// A file on disk, whatever its name: device and inode.
type Identity = (u64, u64);

/// Checks the outputs that the flags name.
///
/// # Errors
/// Wrong usage: two outputs at one place, or an output that would overwrite the input.
pub(super) fn check(cli: &Cli) -> Result<(), PlanError> {
    let outputs = outputs(cli);
    let standard = outputs.iter().filter(|output| output.is_standard());
    let users: Vec<String> =
        standard.map(Output::to_string).chain(own_output(cli).map(str::to_owned)).collect();
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

/// An output that a flag names.
struct Output<'a> {
    flag: &'static str,
    /// As typed.
    name: &'a Path,
    /// The path by which it can be looked at; `None` for standard output.
    path: Option<PathBuf>,
}

impl Output<'_> {
    fn is_standard(&self) -> bool {
        self.path.is_none()
    }

    /// Returns the identity of the output, if it is a file on disk.
    fn identity(&self) -> Option<Identity> {
        match &self.path {
            None => descriptor(io::stdout().as_fd()),
            Some(path) => identity(path.metadata()),
        }
    }
}

/// The flag with its file as typed.
impl fmt::Display for Output<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.flag == "--json" { '=' } else { ' ' };
        write!(f, "{}{separator}{}", self.flag, self.name.display())
    }
}

/// Returns the outputs that flags name.
fn outputs(cli: &Cli) -> Vec<Output<'_>> {
    let files =
        [("--pcap", cli.pcap.as_deref()), ("-o", cli.output.as_deref()), ("-x", cli.hex_dump.as_deref())];
    let files = files.into_iter().filter_map(|(flag, name)| {
        let name = name?;
        Some(Output { flag, name, path: (name != Path::new(STANDARD)).then(|| name.to_owned()) })
    });
    let place = cli.report_place().filter(|place| *place != ReportPlace::Stderr);
    let name = cli.json.as_ref().and_then(|file| file.as_deref());
    let report = place.zip(name).map(|(place, name)| Output { flag: "--json", name, path: place.path() });
    files.chain(report).collect()
}

/// Returns what the run itself writes to standard output.
fn own_output(cli: &Cli) -> Option<&'static str> {
    if cli.watches_only() {
        return cli.shows_packets().then_some("the packets' text");
    }
    if cli.runs_command() {
        return Some("the command's output");
    }
    // Objects take the text's place.
    if cli.scan || cli.compare || cli.trace || cli.mtu || cli.ping.is_some() {
        let text = match (cli.scan, cli.trace, cli.ping) {
            (true, ..) => "the ports' states",
            (_, true, _) => "the hops",
            (.., Some(_)) => "the pings",
            _ => "the conclusion",
        };
        return (cli.report_place() != Some(ReportPlace::Stdout)).then_some(text);
    }
    let unused = cli.send_only || cli.exec.is_some() || cli.sh_exec.is_some();
    (!unused).then_some("the received data")
}

/// Checks that the outputs are different files on disk, and none the input's.
fn check_files(cli: &Cli, outputs: &[Output<'_>]) -> Result<(), PlanError> {
    let input = match cli.read.as_deref() {
        None if cli.sniff => None,
        Some(path) if path != Path::new(STANDARD) => identity(path.metadata()),
        _ => descriptor(io::stdin().as_fd()),
    };
    for (at, output) in outputs.iter().enumerate() {
        let place = output.identity();
        if input.is_some() && place == input {
            return usage(format!(
                "{output} is the file that is read, and would be emptied; name another file"
            ));
        }
        for other in outputs.iter().skip(at + 1) {
            let same_name = output.path == other.path && !output.path.as_deref().is_some_and(is_device);
            if same_name || place.is_some() && place == other.identity() {
                return usage(format!("{output} and {other} are one file; name two"));
            }
        }
    }
    let lines = cli.watches_only() && cli.shows_packets();
    if lines && input.is_some() && descriptor(io::stdout().as_fd()) == input {
        return usage("standard output is the file that --read reads; redirect it to another file");
    }
    Ok(())
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
