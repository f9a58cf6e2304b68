//! A process for each connection: what the peer sends is its standard input, what it writes to standard
//! output is sent.
//!
//! Theory of operation: two pipes, whose other ends are ours alone and pumped by the loop. The peer's FIN
//! closes the process's input; the end of its output sends a FIN; once it reads no more either, the connection
//! is over. Standard error is netkat's own. The process leads a process group of its own, so that a shell's
//! children end with it; it starts with no signal blocked and SIGPIPE as usual, as the invoking user and
//! without any capability that netkat had, nor the means to gain one (see [`crate::process::sandbox`]).
//!
//! Its environment says who is there, as ncat's does: NETKAT_REMOTE_ADDR, NETKAT_REMOTE_PORT,
//! NETKAT_LOCAL_ADDR, NETKAT_LOCAL_PORT and NETKAT_PROTO.
use super::Error;
use crate::{
    net::FiveTuple,
    stdio::{Channel, Stream},
};
use nix::{
    errno::Errno,
    fcntl::OFlag,
    spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawnp},
    sys::{
        signal::{SigSet, Signal, killpg},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, pipe2},
};
use std::{
    env,
    ffi::CString,
    fmt, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
    thread,
    time::{Duration, Instant},
};

/// How long after its pipes' end a process is first asked whether it has exited; then twice as long, and so
/// on up to the second value.
const REAP_DELAYS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(2));
/// How long processes may take to exit when netkat does: by themselves, then after SIGTERM.
const GRACE: Duration = Duration::from_secs(1);

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Not empty.
    words: Vec<CString>,
}

/// Why a text is no command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    #[error("\"{0}\": a quote is not closed, or a backslash ends the text")]
    Unfinished(String),
    #[error("there is no command in it")]
    Empty,
    #[error("it holds a NUL character")]
    Nul,
}

impl Command {
    /// Splits `text` into words as a shell does, without running one: the first is the program, which is
    /// looked for in PATH.
    pub fn program(text: &str) -> Result<Command, CommandError> {
        let words = shlex::split(text).ok_or_else(|| CommandError::Unfinished(text.to_owned()))?;
        Command::new(words)
    }

    /// A command line for /bin/sh.
    pub fn shell(text: &str) -> Result<Command, CommandError> {
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
            write!(f, "{}{}", if i > 0 { " " } else { "" }, word.to_string_lossy().escape_debug())?;
        }
        Ok(())
    }
}

/// A running process and our ends of its pipes.
#[derive(Debug)]
pub struct Process {
    pub pid: Pid,
    /// What we write it reads.
    pub input: Channel,
    /// What it writes we read.
    pub output: Channel,
}

/// The processes that have not been waited for.
#[derive(Debug, Default)]
pub struct Children {
    running: Vec<Pid>,
    /// Those whose connection is over: when to ask again, and how long to wait after that.
    leaving: Vec<(Pid, Duration, Duration)>,
}

impl Children {
    /// Starts a process for a connection.
    ///
    /// # Errors
    /// [`Error::Exec`]: there is no such program, or no room for another process.
    pub fn spawn(&mut self, command: &Command, tuple: &FiveTuple) -> Result<Process, Error> {
        let failed = |error: io::Error| Error::Exec { command: command.to_string(), error };
        let (pid, stdin, stdout) = start(command, tuple).map_err(|errno| failed(errno.into()))?;
        self.running.push(pid);
        log::info!("{}: started process {pid}: {command}", tuple.remote);
        let input = Channel::output(Stream::own(stdin).map_err(failed)?);
        let output = Channel::input(Stream::own(stdout).map_err(failed)?);
        Ok(Process { pid, input, output })
    }

    /// The connection of a process is over. One that `broke` is told by SIGHUP, as by a terminal that goes.
    pub fn release(&mut self, now: Duration, pid: Pid, broke: bool) {
        if broke {
            signal_group(pid, Signal::SIGHUP);
        }
        self.running.retain(|running| *running != pid);
        self.leaving.push((pid, now, REAP_DELAYS.0));
        self.reap(now);
    }

    /// Waits for those that have exited, without blocking.
    pub fn reap(&mut self, now: Duration) {
        self.leaving.retain_mut(|(pid, at, delay)| {
            if *at > now {
                return true;
            }
            (*at, *delay) = (now + *delay, (*delay * 2).min(REAP_DELAYS.1));
            !has_exited(*pid)
        });
    }

    /// When [`Children::reap`] is due.
    pub fn deadline(&self) -> Option<Duration> {
        self.leaving.iter().map(|(_, at, _)| *at).min()
    }

    /// Tells all that their connections broke.
    pub fn hang_up(&self) {
        self.running.iter().for_each(|pid| signal_group(*pid, Signal::SIGHUP));
    }

    /// Leaves no process behind: waits a little, then terminates, then kills.
    pub fn end(&mut self) {
        let mut pids: Vec<Pid> = self.running.drain(..).collect();
        pids.extend(self.leaving.drain(..).map(|(pid, ..)| pid));
        for signal in [Some(Signal::SIGTERM), Some(Signal::SIGKILL), None] {
            wait_for(&mut pids);
            if let Some(signal) = signal {
                pids.iter().for_each(|pid| signal_group(*pid, signal));
            }
        }
    }
}

/// Waits until all have exited or their time is up.
fn wait_for(pids: &mut Vec<Pid>) {
    let start = Instant::now();
    loop {
        pids.retain(|pid| !has_exited(*pid));
        if pids.is_empty() || start.elapsed() >= GRACE {
            return;
        }
        thread::sleep(REAP_DELAYS.0);
    }
}

/// Whether a child is no more; then it has been waited for.
fn has_exited(pid: Pid) -> bool {
    match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => false,
        Ok(WaitStatus::Exited(_, status)) => {
            log::info!("process {pid} exited with status {status}");
            true
        }
        Ok(WaitStatus::Signaled(_, signal, _)) => {
            log::info!("process {pid} was ended by {signal}");
            true
        }
        Ok(_) => false,
        Err(error) => {
            log::debug!("cannot wait for process {pid}: {error}");
            true
        }
    }
}

/// Signals the process group of a child that has not been waited for, so that the number is still its own.
fn signal_group(pid: Pid, signal: Signal) {
    if let Err(error) = killpg(pid, signal) {
        log::debug!("cannot send {signal} to process group {pid}: {error}");
    }
}

/// The process's number, the pipe to its standard input and the one from its standard output.
fn start(command: &Command, tuple: &FiveTuple) -> nix::Result<(Pid, OwnedFd, OwnedFd)> {
    let (their_input, our_input) = pipe2(OFlag::O_CLOEXEC)?;
    let (our_output, their_output) = pipe2(OFlag::O_CLOEXEC)?;
    let mut actions = PosixSpawnFileActions::init()?;
    actions.add_dup2(their_input.as_raw_fd(), 0)?;
    actions.add_dup2(their_output.as_raw_fd(), 1)?;
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_sigmask(&SigSet::empty())?;
    // The Rust runtime ignores it in this process.
    attributes.set_sigdefault(&SigSet::from_iter([Signal::SIGPIPE]))?;
    attributes.set_pgroup(Pid::from_raw(0))?;
    attributes.set_flags(
        PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK
            | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF
            | PosixSpawnFlags::POSIX_SPAWN_SETPGROUP,
    )?;
    let Some(program) = command.words.first() else { return Err(Errno::ENOENT) };
    let pid = posix_spawnp(program, &actions, &attributes, &command.words, &environment(tuple))?;
    Ok((pid, our_input, our_output))
}

fn environment(tuple: &FiveTuple) -> Vec<CString> {
    let ours = [
        ("NETKAT_REMOTE_ADDR", tuple.remote.ip().to_string()),
        ("NETKAT_REMOTE_PORT", tuple.remote.port().to_string()),
        ("NETKAT_LOCAL_ADDR", tuple.local.ip().to_string()),
        ("NETKAT_LOCAL_PORT", tuple.local.port().to_string()),
        ("NETKAT_PROTO", tuple.protocol.to_string().to_uppercase()),
    ];
    let inherited = env::vars_os().filter(|(name, _)| ours.iter().all(|(ours, _)| name != ours));
    let inherited = inherited.map(|(name, value)| {
        let mut entry = name.into_vec();
        entry.push(b'=');
        entry.extend(value.into_vec());
        entry
    });
    let ours = ours.iter().map(|(name, value)| format!("{name}={value}").into_bytes());
    // Neither a variable of this process nor an address holds a NUL.
    inherited.chain(ours).filter_map(|entry| CString::new(entry).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{net::Protocol, stdio::Input};

    fn tuple() -> FiveTuple {
        FiveTuple {
            protocol: Protocol::Tcp,
            local: "[fd00::1]:80".parse().expect("an address"),
            remote: "[fd00::2]:4000".parse().expect("an address"),
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
        let mut children = Children::default();
        let mut process = children.spawn(&command, &tuple()).expect("a process");
        assert_eq!(drain(&mut process.output), "a b|c d|");
        children.end();
        assert_eq!(Command::program("cat 'x"), Err(CommandError::Unfinished("cat 'x".to_owned())));
        assert_eq!(Command::program("  "), Err(CommandError::Empty));
        assert_eq!(Command::shell(" \n"), Err(CommandError::Empty));
        assert_eq!(Command::shell("a\0b"), Err(CommandError::Nul));
    }

    #[test]
    fn a_process_learns_who_is_there_and_gets_the_end_of_its_input() {
        let text = "cat; echo $NETKAT_PROTO $NETKAT_REMOTE_ADDR $NETKAT_REMOTE_PORT $NETKAT_LOCAL_ADDR $NETKAT_LOCAL_PORT";
        let mut children = Children::default();
        let mut process =
            children.spawn(&Command::shell(text).expect("a command"), &tuple()).expect("a process");
        assert!(matches!(process.input.write(b"hello\n"), Ok(6)));
        process.input.close();
        assert_eq!(drain(&mut process.output), "hello\nTCP fd00::2 4000 fd00::1 80\n");
        children.end();
    }

    #[test]
    fn no_signal_is_blocked_or_ignored_in_a_process_and_none_is_left_behind() {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGTERM);
        mask.thread_block().expect("a signal mask");
        let command = Command::program("grep -E ^Sig(Blk|Ign): /proc/self/status").expect("a command");
        let mut children = Children::default();
        let mut process = children.spawn(&command, &tuple()).expect("a process");
        for line in drain(&mut process.output).lines() {
            let bits = u64::from_str_radix(line[7..].trim(), 16).expect("a mask");
            assert_eq!(bits & (1 << 14 | 1 << 12), 0, "{line}");
        }
        let sleeper = children.spawn(&Command::shell("sleep 100 | cat").expect("a command"), &tuple());
        let sleeper = sleeper.expect("a process").pid;
        children.hang_up();
        children.end();
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
        let error = Children::default().spawn(&command, &tuple()).expect_err("no such program");
        assert_eq!(
            error.to_string(),
            "cannot run \"/nowhere/such a\": No such file or directory (os error 2)"
        );
    }
}
