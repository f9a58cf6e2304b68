//! A process for a connection (`--exec`, `--sh-exec`): its standard input is what the peer sends, and its
//! standard output is sent to the peer.
//!
//! Theory of operation: the event loop drains and fills two pipes. The peer's FIN closes the process's
//! input; the end of the process's output sends a FIN; once the process closes its input, too, the
//! connection is over. Standard error is netkat's own. The process leads its own process group, so that a
//! shell's children end with it (see [`crate::runtime::children`]). It starts with no signal blocked and
//! the default SIGPIPE, as the invoking user, without netkat's capabilities and without means to gain one
//! (see [`crate::process::sandbox`]).
//!
//! The environment names both ends of the connection, as ncat's does: NETKAT_REMOTE_ADDR, NETKAT_REMOTE_PORT,
//! NETKAT_LOCAL_ADDR, NETKAT_LOCAL_PORT and NETKAT_PROTO. Behind a PROXY protocol header, NETKAT_PROXY_VERSION has its
//! version, and NETKAT_PROXY_SOURCE_ADDR, NETKAT_PROXY_SOURCE_PORT, NETKAT_PROXY_DESTINATION_ADDR and
//! NETKAT_PROXY_DESTINATION_PORT the ends that it names, if it does.
use super::Error;
use crate::{
    net::{
        FiveTuple,
        zone::{ScopedIp, endpoint},
    },
    proxy_protocol::{Ends, Header},
    runtime::children::Children,
    stdio::{Channel, Stream},
    text::escape_control,
};
use nix::{
    errno::Errno,
    fcntl::OFlag,
    spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawnp},
    sys::signal::{SigSet, Signal},
    unistd::{Pid, pipe2},
};
use std::{
    env,
    ffi::{CString, OsString},
    fmt, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
};

/// A command to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    /// The program and its arguments; never empty.
    words: Vec<CString>,
}

/// The reason why a text is no command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CommandError {
    #[error("\"{0}\": a quote is not closed, or a backslash ends the text")]
    Unfinished(String),
    #[error("there is no command in it")]
    Empty,
    #[error("it holds a NUL character")]
    Nul,
}

impl Command {
    /// Returns the command of `--exec`: splits `text` into words as a shell does, but runs no shell. PATH
    /// is searched for the first word.
    ///
    /// # Errors
    /// Every [`CommandError`].
    pub(crate) fn program(text: &str) -> Result<Command, CommandError> {
        let words = shlex::split(text).ok_or_else(|| CommandError::Unfinished(text.to_owned()))?;
        Command::new(words)
    }

    /// Returns the command of `--sh-exec`: a command line for /bin/sh.
    ///
    /// # Errors
    /// [`CommandError::Empty`] and [`CommandError::Nul`].
    pub(crate) fn shell(text: &str) -> Result<Command, CommandError> {
        match text.trim().is_empty() {
            true => Err(CommandError::Empty),
            false => Command::new(vec!["/bin/sh".to_owned(), "-c".to_owned(), text.to_owned()]),
        }
    }

    fn new(words: Vec<String>) -> Result<Command, CommandError> {
        let words: Result<Vec<_>, _> = words.into_iter().map(CString::new).collect();
        let words = words.map_err(|_| CommandError::Nul)?;
        if words.first().is_none_or(|program| program.is_empty()) {
            return Err(CommandError::Empty);
        }
        Ok(Command { words })
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, word) in self.words.iter().enumerate() {
            write!(f, "{}{}", if i > 0 { " " } else { "" }, escape_control(&word.to_string_lossy()))?;
        }
        Ok(())
    }
}

/// A running process and netkat's ends of its pipes.
#[derive(Debug)]
pub(crate) struct Process {
    /// Process ID, and ID of the process group.
    pub pid: Pid,
    /// Pipe to the process's standard input.
    pub input: Channel,
    /// Pipe from the process's standard output.
    pub output: Channel,
}

impl Process {
    /// Starts a process for a connection, as one of `children`. `header` is what the peer sent in front of its data.
    ///
    /// # Errors
    /// [`Error::Exec`]: there is no such program, or no further process is allowed.
    pub(crate) fn start(
        children: &mut Children,
        command: &Command,
        tuple: &FiveTuple,
        header: Option<&Header>,
    ) -> Result<Process, Error> {
        let failed = |error: io::Error| Error::Exec { command: command.to_string(), error };
        let (pid, stdin, stdout) = start(command, tuple, header).map_err(|errno| failed(errno.into()))?;
        children.add(pid);
        log::info!("{}: started process {pid}: {command}", endpoint(&tuple.remote));
        let input = Channel::output(Stream::own(stdin).map_err(failed)?);
        let output = Channel::input(Stream::own(stdout).map_err(failed)?);
        Ok(Process { pid, input, output })
    }
}

/// Starts the process. Returns its ID, the pipe to its standard input and the pipe from its standard output.
fn start(
    command: &Command,
    tuple: &FiveTuple,
    header: Option<&Header>,
) -> nix::Result<(Pid, OwnedFd, OwnedFd)> {
    let (their_input, our_input) = pipe2(OFlag::O_CLOEXEC)?;
    let (our_output, their_output) = pipe2(OFlag::O_CLOEXEC)?;
    let mut actions = PosixSpawnFileActions::init()?;
    actions.add_dup2(their_input.as_raw_fd(), 0)?;
    actions.add_dup2(their_output.as_raw_fd(), 1)?;
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_sigmask(&SigSet::empty())?;
    // The Rust runtime ignores SIGPIPE in netkat itself.
    attributes.set_sigdefault(&SigSet::from_iter([Signal::SIGPIPE]))?;
    attributes.set_pgroup(Pid::from_raw(0))?;
    attributes.set_flags(
        PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK
            | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF
            | PosixSpawnFlags::POSIX_SPAWN_SETPGROUP,
    )?;
    let Some(program) = command.words.first() else { return Err(Errno::ENOENT) };
    let pid = posix_spawnp(program, &actions, &attributes, &command.words, &environment(tuple, header))?;
    Ok((pid, our_input, our_output))
}

/// The variables of a PROXY protocol header.
const PROXY: [&str; 5] = [
    "NETKAT_PROXY_VERSION",
    "NETKAT_PROXY_SOURCE_ADDR",
    "NETKAT_PROXY_SOURCE_PORT",
    "NETKAT_PROXY_DESTINATION_ADDR",
    "NETKAT_PROXY_DESTINATION_PORT",
];

/// Returns the values of the first of these variables, as far as the header has them.
fn proxy_values(header: &Header) -> Vec<String> {
    let mut values = vec![header.version.to_string()];
    match &header.ends {
        Ends::Inet { source, destination, .. } => {
            values.extend(
                [source, destination].iter().flat_map(|end| [end.ip().to_string(), end.port().to_string()]),
            );
        }
        Ends::Unspecified | Ends::Unix { .. } => {}
    }
    values
}

/// Returns netkat's environment with the variables that name both ends. A variable without a value is not inherited
/// either: it would be another connection's.
fn environment(tuple: &FiveTuple, header: Option<&Header>) -> Vec<CString> {
    let mut ours = vec![
        ("NETKAT_REMOTE_ADDR", ScopedIp::from(tuple.remote).to_string()),
        ("NETKAT_REMOTE_PORT", tuple.remote.port().to_string()),
        ("NETKAT_LOCAL_ADDR", ScopedIp::from(tuple.local).to_string()),
        ("NETKAT_LOCAL_PORT", tuple.local.port().to_string()),
        ("NETKAT_PROTO", tuple.protocol.to_string().to_uppercase()),
    ];
    ours.extend(PROXY.into_iter().zip(header.map(proxy_values).unwrap_or_default()));
    let is_ours =
        |name: &OsString| PROXY.iter().chain(ours.iter().map(|(name, _)| name)).any(|ours| name == ours);
    let inherited = env::vars_os().filter(|(name, _)| !is_ours(name));
    let inherited = inherited.map(|(name, value)| {
        let mut entry = name.into_vec();
        entry.push(b'=');
        entry.extend(value.into_vec());
        entry
    });
    let ours = ours.iter().map(|(name, value)| format!("{name}={value}").into_bytes());
    // No variable of this process and no address has a NUL.
    inherited.chain(ours).filter_map(|entry| CString::new(entry).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{net::Protocol, runtime::children::GRACE, stdio::Input};
    use nix::{
        sys::signal::{Signal, killpg},
        unistd::Pid,
    };
    use std::{
        thread,
        time::{Duration, Instant},
    };

    fn tuple() -> FiveTuple {
        FiveTuple {
            protocol: Protocol::Tcp,
            local: "[fd00::1]:80".parse().expect("an address"),
            remote: "[fd00::2]:4000".parse().expect("an address"),
        }
    }

    /// Ends a process as the loop does.
    fn end(children: &mut Children, pid: Pid) {
        let start = Instant::now();
        children.release(Duration::ZERO, pid, false);
        while !children.is_empty() {
            assert!(start.elapsed() < 20 * GRACE, "{children:?}");
            thread::sleep(Duration::from_millis(1));
            children.turn(start.elapsed());
        }
    }

    fn drain(output: &mut Channel) -> String {
        let mut all = Vec::new();
        let mut buffer = [0; 4096];
        let start = Instant::now();
        loop {
            match output.read(start.elapsed(), &mut buffer) {
                Ok(0) => return String::from_utf8_lossy(&all).into_owned(),
                Ok(n) => all.extend_from_slice(&buffer[..n]),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
            assert!(start.elapsed() < Duration::from_secs(20), "the process does not end its output");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn commands_are_split_as_a_shell_would() {
        let command = Command::program(r#"printf '%s|' "a b" c\ d"#).expect("a command");
        let mut children = Children::new(false);
        let mut process = Process::start(&mut children, &command, &tuple(), None).expect("a process");
        assert_eq!(drain(&mut process.output), "a b|c d|");
        end(&mut children, process.pid);
        assert_eq!(Command::program("cat 'x"), Err(CommandError::Unfinished("cat 'x".to_owned())));
        assert_eq!(Command::program("  "), Err(CommandError::Empty));
        assert_eq!(Command::shell(" \n"), Err(CommandError::Empty));
        assert_eq!(Command::shell("a\0b"), Err(CommandError::Nul));
    }

    #[test]
    fn a_process_learns_both_addresses_and_gets_the_end_of_its_input() {
        let text = "cat; echo $NETKAT_PROTO $NETKAT_REMOTE_ADDR $NETKAT_REMOTE_PORT $NETKAT_LOCAL_ADDR $NETKAT_LOCAL_PORT";
        let mut children = Children::new(false);
        let command = Command::shell(text).expect("a command");
        let mut process = Process::start(&mut children, &command, &tuple(), None).expect("a process");
        assert!(matches!(process.input.write(b"hello\n"), Ok(6)));
        process.input.close();
        assert_eq!(drain(&mut process.output), "hello\nTCP fd00::2 4000 fd00::1 80\n");
        end(&mut children, process.pid);
    }

    #[test]
    fn a_process_learns_the_ends_of_a_header() {
        use crate::proxy_protocol::Version;
        let text = "env | grep ^NETKAT_PROXY_ | sort";
        let mut children = Children::new(false);
        let command = Command::shell(text).expect("a command");
        let at = |text: &str| text.parse().expect("an address");
        let (named, _) = Header::write(Version::Two, at("[2001:db8::7]:4000"), at("[2001:db8::1]:443"));
        let unnamed = Header { ends: Ends::Unspecified, ..named.clone() };
        for (header, variables) in [
            (
                named,
                "NETKAT_PROXY_DESTINATION_ADDR=2001:db8::1\nNETKAT_PROXY_DESTINATION_PORT=443\n\
                 NETKAT_PROXY_SOURCE_ADDR=2001:db8::7\nNETKAT_PROXY_SOURCE_PORT=4000\nNETKAT_PROXY_VERSION=2\n",
            ),
            (unnamed, "NETKAT_PROXY_VERSION=2\n"),
        ] {
            let mut process =
                Process::start(&mut children, &command, &tuple(), Some(&header)).expect("a process");
            assert_eq!(drain(&mut process.output), variables);
            end(&mut children, process.pid);
        }
    }

    #[test]
    fn no_signal_is_blocked_or_ignored_in_a_process_and_none_is_left_behind() {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGTERM);
        mask.thread_block().expect("a signal mask");
        let command = Command::program("grep -E ^Sig(Blk|Ign): /proc/self/status").expect("a command");
        let mut children = Children::new(false);
        let mut process = Process::start(&mut children, &command, &tuple(), None).expect("a process");
        for line in drain(&mut process.output).lines() {
            let bits = u64::from_str_radix(line[7..].trim(), 16).expect("a mask");
            assert_eq!(bits & (1 << 14 | 1 << 12), 0, "{line}");
        }
        end(&mut children, process.pid);
        let command = Command::shell("sleep 100 | cat").expect("a command");
        let sleeper = Process::start(&mut children, &command, &tuple(), None).expect("a process").pid;
        end(&mut children, sleeper);
        // The shell's own children are the init process's to reap, in its own time.
        let deadline = Instant::now() + Duration::from_secs(30);
        while killpg(sleeper, None) != Err(Errno::ESRCH) {
            assert!(Instant::now() < deadline, "processes of group {sleeper} are left");
            thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_missing_program_is_named() {
        let command = Command::program("/nowhere/such a").expect("a command");
        let error =
            Process::start(&mut Children::new(false), &command, &tuple(), None).expect_err("no such program");
        assert_eq!(
            error.to_string(),
            "cannot run \"/nowhere/such a\": No such file or directory (os error 2)"
        );
    }
}
