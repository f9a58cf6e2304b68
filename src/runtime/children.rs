//! Child processes: those that netkat started, and, as the first process of a PID namespace (a container's
//! entry point), all orphans.
//!
//! Theory of operation: a child leads a process group of its own. While its connection lasts, netkat does
//! not reap the child, so that the group's number stays taken. After the connection, the child has
//! [`GRACE`] to exit by itself. Then, or at once if the connection broke, its group gets SIGTERM, and
//! SIGKILL after another [`GRACE`]. A child counts until it is reaped and, if its group got a signal, until
//! the group is empty. Background processes of a child that exited by itself are left alone.
//!
//! The reactor calls [`Children::turn`] at SIGCHLD and at [`Children::deadline`]; nothing polls.
use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, killpg},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use std::{fmt, time::Duration};

/// Time for a child to exit by itself after its connection, and again after SIGTERM.
pub(crate) const GRACE: Duration = Duration::from_secs(1);
/// Interval of looking whether a group is empty, which no signal tells.
const GROUP_INTERVAL: Duration = Duration::from_millis(20);

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// By exit(2), with this status from 0 to 255.
    Status(i32),
    /// By a signal.
    Signal(Signal),
    /// By a real-time signal, or reaped elsewhere.
    Unknown,
}

impl Exit {
    /// Returns the status that a shell reports: 128 + the number for a signal.
    pub(crate) fn code(self) -> u8 {
        match self {
            Exit::Status(status) => u8::try_from(status & 0xff).unwrap_or(u8::MAX),
            Exit::Signal(signal) => u8::try_from(128 + signal as i32).unwrap_or(u8::MAX),
            Exit::Unknown => u8::MAX,
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Status(status) => write!(f, "exited with status {status}"),
            Exit::Signal(signal) => write!(f, "was ended by {signal}"),
            Exit::Unknown => f.write_str("ended; how is not known"),
        }
    }
}

/// The end of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// How it ended.
    pub exit: Exit,
    /// netkat sent its group a signal.
    pub asked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Connected,
    /// The connection has ended.
    Released,
    /// SIGTERM has been sent.
    Asked,
    /// SIGKILL has been sent.
    Killed,
}

#[derive(Debug)]
struct Child {
    pid: Pid,
    stage: Stage,
    exit: Option<Exit>,
    /// The child was running when netkat sent SIGTERM.
    asked: bool,
    /// The group is empty, so that its number may be reused.
    gone: bool,
    /// When the next stage is due.
    due: Option<Duration>,
    /// When to look at the group next.
    look: Option<Duration>,
}

/// The children that count.
#[derive(Debug)]
pub(crate) struct Children {
    list: Vec<Child>,
    ended: Vec<(Pid, Ended)>,
    /// This process inherits orphans.
    init: bool,
}

impl Children {
    /// Returns an empty list. `init` says that this is the first process of a PID namespace and inherits
    /// orphans.
    pub(crate) fn new(init: bool) -> Children {
        Children { list: Vec::new(), ended: Vec::new(), init }
    }

    /// Adds a child that has just started for a connection and leads a group of its own.
    pub(crate) fn add(&mut self, pid: Pid) {
        let stage = Stage::Connected;
        self.list.push(Child { pid, stage, exit: None, asked: false, gone: false, due: None, look: None });
    }

    /// Returns the number of children.
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// Returns whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Handles the end of a child's connection, which `broke` or ended in order.
    pub(crate) fn release(&mut self, now: Duration, pid: Pid, broke: bool) {
        self.collect();
        for child in self.list.iter_mut().filter(|child| child.pid == pid) {
            match broke {
                true => child.ask(now),
                false => (child.stage, child.due) = (Stage::Released, Some(now + GRACE)),
            }
        }
        self.turn(now);
    }

    /// Sends SIGTERM to all remaining children, since netkat is about to exit.
    pub(crate) fn dismiss(&mut self, now: Duration) {
        self.collect();
        self.list.iter_mut().filter(|child| child.stage <= Stage::Released).for_each(|child| child.ask(now));
        self.turn(now);
    }

    /// Reaps children that have exited, without blocking, and sends signals that are due.
    pub(crate) fn turn(&mut self, now: Duration) {
        self.collect();
        let ended = &mut self.ended;
        self.list.retain_mut(|child| {
            let over = child.is_over(now);
            match child.exit.filter(|_| over) {
                Some(exit) => ended.push((child.pid, Ended { exit, asked: child.asked })),
                None => child.advance(now),
            }
            !over
        });
    }

    /// Returns when [`Children::turn`] is due at the latest.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.list.iter().flat_map(|child| [child.due, child.look]).flatten().min()
    }

    /// Returns the children that have ended since the last call.
    pub(crate) fn take_ended(&mut self) -> Vec<(Pid, Ended)> {
        std::mem::take(&mut self.ended)
    }

    fn collect(&mut self) {
        // Orphans, and perhaps children of ours.
        while self.init {
            let status = waitpid(None, Some(WaitPidFlag::WNOHANG));
            match (status, status.ok().and_then(|status| status.pid())) {
                (Ok(status), Some(pid)) => match self.list.iter_mut().find(|child| child.pid == pid) {
                    Some(child) => child.note(exit(status)),
                    None => log::debug!("orphan {pid}: {status:?}"),
                },
                // A real-time signal ended the process; nix has no name for it.
                (Err(Errno::EINVAL | Errno::EINTR), _) => {}
                _ => break,
            }
        }
        for child in &mut self.list {
            child.collect(self.init);
        }
    }
}

impl Child {
    fn collect(&mut self, init: bool) {
        if self.exit.is_none() && (init || self.stage != Stage::Connected) {
            match waitpid(self.pid, Some(WaitPidFlag::WNOHANG)) {
                Ok(status) => self.note(exit(status)),
                Err(Errno::EINTR) => {}
                Err(_) => self.note(Some(Exit::Unknown)),
            }
        }
        if self.exit.is_some() && !self.gone {
            self.gone = killpg(self.pid, None) == Err(Errno::ESRCH);
        }
    }

    fn note(&mut self, exit: Option<Exit>) {
        if let Some(exit) = exit {
            log::info!("process {} {exit}", self.pid);
            self.exit = Some(exit);
        }
    }

    /// Sends the signal that is due.
    fn advance(&mut self, now: Duration) {
        if self.due.is_some_and(|due| due <= now) {
            match self.stage {
                Stage::Connected | Stage::Released => self.ask(now),
                Stage::Asked | Stage::Killed => self.signal(now, Stage::Killed, Signal::SIGKILL),
            }
        }
        self.look = (self.exit.is_some() && self.stage > Stage::Released).then_some(now + GROUP_INTERVAL);
    }

    fn ask(&mut self, now: Duration) {
        self.asked = self.exit.is_none();
        self.signal(now, Stage::Asked, Signal::SIGTERM);
    }

    fn signal(&mut self, now: Duration, stage: Stage, signal: Signal) {
        if !self.gone
            && let Err(error) = killpg(self.pid, signal)
        {
            log::debug!("cannot send {signal} to process group {}: {error}", self.pid);
        }
        (self.stage, self.due) = (stage, Some(now + GRACE));
    }

    /// Returns whether the child no longer counts.
    fn is_over(&self, now: Duration) -> bool {
        let exited = self.exit.is_some();
        match self.stage {
            Stage::Connected => false,
            Stage::Released => exited,
            Stage::Asked => exited && self.gone,
            // The rest of the group are zombies whose parent does not reap them.
            Stage::Killed => exited && (self.gone || self.due.is_some_and(|due| due <= now)),
        }
    }
}

/// Returns how a process ended, if it has.
fn exit(status: WaitStatus) -> Option<Exit> {
    match status {
        WaitStatus::Exited(_, status) => Some(Exit::Status(status)),
        WaitStatus::Signaled(_, signal, _) => Some(Exit::Signal(signal)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{os::unix::process::CommandExt, process::Command, thread, time::Instant};

    /// Starts a shell's command line in a group of its own, and waits until it says that it is ready.
    #[expect(clippy::zombie_processes, reason = "Children waits for it")]
    fn start(children: &mut Children, line: &str) -> Pid {
        use std::{io::Read, process::Stdio};
        let mut shell = Command::new("/bin/sh");
        let mut child = shell.args(["-c", line]).process_group(0).stdout(Stdio::piped()).spawn().expect("sh");
        let mut ready = [0];
        child.stdout.take().expect("a pipe").read_exact(&mut ready).expect("a byte");
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a PID"));
        children.add(pid);
        pid
    }

    /// Lets time pass until nothing is left, and returns what became of the processes.
    fn outlast(children: &mut Children, start: Instant) -> Vec<(Pid, Ended)> {
        while !children.is_empty() {
            thread::sleep(Duration::from_millis(2));
            children.turn(start.elapsed());
            assert!(start.elapsed() < 20 * GRACE, "{children:?}");
        }
        children.take_ended()
    }

    #[test]
    fn a_process_whose_connection_broke_is_asked_and_then_killed_with_its_group() {
        let (mut children, begin) = (Children::new(false), Instant::now());
        let deaf = start(&mut children, "trap '' TERM HUP; sleep 100 & echo; wait; sleep 100");
        let meek = start(&mut children, "sleep 100 & echo; wait");
        children.turn(begin.elapsed());
        assert_eq!(children.len(), 2);
        children.release(begin.elapsed(), deaf, true);
        children.release(begin.elapsed(), meek, true);
        let ended = outlast(&mut children, begin);
        assert!(begin.elapsed() >= GRACE);
        for (pid, signal) in [(meek, Signal::SIGTERM), (deaf, Signal::SIGKILL)] {
            let found = ended.iter().find(|(other, _)| *other == pid).map(|(_, ended)| *ended);
            assert_eq!(found, Some(Ended { exit: Exit::Signal(signal), asked: true }));
            // The shell's own children are the init process's to reap, in its own time.
            while killpg(pid, None) != Err(Errno::ESRCH) {
                assert!(begin.elapsed() < 30 * GRACE, "processes of group {pid} are left");
                thread::sleep(Duration::from_millis(10));
            }
        }
    }

    /// The leader goes at once, its child not: the slot is free when both have gone.
    #[test]
    fn a_group_counts_until_it_is_empty() {
        let (mut children, begin) = (Children::new(false), Instant::now());
        let pid = start(&mut children, "(trap '' TERM; echo; sleep 100) & wait");
        children.release(begin.elapsed(), pid, true);
        let ended = outlast(&mut children, begin);
        assert!(begin.elapsed() >= GRACE);
        assert_eq!(ended, [(pid, Ended { exit: Exit::Signal(Signal::SIGTERM), asked: true })]);
    }

    #[test]
    fn a_process_has_time_to_exit_by_itself_and_leaves_its_background_alone() {
        let (mut children, begin) = (Children::new(false), Instant::now());
        let pid = start(&mut children, "sleep 100 & echo; sleep 0.2; exit 3");
        children.release(begin.elapsed(), pid, false);
        assert_eq!(outlast(&mut children, begin), [(pid, Ended { exit: Exit::Status(3), asked: false })]);
        killpg(pid, Signal::SIGKILL).expect("the background goes on");
    }

    #[test]
    fn a_status_is_told_as_a_shell_does() {
        let codes = [Exit::Status(3), Exit::Status(127), Exit::Signal(Signal::SIGKILL)].map(Exit::code);
        assert_eq!(codes, [3, 127, 137]);
    }
}
