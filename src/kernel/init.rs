//! Signal dispositions at the program's start, as the first process of a PID namespace (a container's entry
//! point) needs them. The kernel ignores signals without a handler there (sig_task_ignored in
//! kernel/signal.c), and a SIGCHLD that the parent left ignored would lose the status of children.
#![allow(unsafe_code)]
use crate::process::signals::TERMINATING;
use nix::{
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
    unistd::{Pid, getpid},
};

/// Returns whether this process is the first of its PID namespace, which inherits orphans.
pub(crate) fn is_init() -> bool {
    getpid() == Pid::from_raw(1)
}

/// Resets SIGCHLD to its default. In an init process, makes the signals that end a run end the process,
/// with the status that a shell reports (128 + the signal's number); ignored ones stay ignored.
pub fn prepare_signals() {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: no handler is installed.
    if let Err(error) = unsafe { sigaction(Signal::SIGCHLD, &default) } {
        log::debug!("cannot reset SIGCHLD: {error}");
    }
    if !is_init() {
        return;
    }
    let end = SigAction::new(SigHandler::Handler(end), SaFlags::empty(), SigSet::empty());
    for signal in TERMINATING {
        // SAFETY: the handler calls only _exit(2), which is async-signal-safe (signal-safety(7)).
        match unsafe { sigaction(signal, &end) } {
            Ok(before) if matches!(before.handler(), SigHandler::SigIgn) => {
                // SAFETY: no handler is installed.
                let _ = unsafe { sigaction(signal, &before) };
            }
            Ok(_) => {}
            Err(error) => log::debug!("cannot handle {signal}: {error}"),
        }
    }
}

/// Resets SIGPIPE, which the Rust runtime ignores, to its default, for a program that this process becomes.
pub(crate) fn reset_pipe_signal() {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: no handler is installed.
    if let Err(error) = unsafe { sigaction(Signal::SIGPIPE, &default) } {
        log::debug!("cannot reset SIGPIPE: {error}");
    }
}

/// Ends the process as a shell reports a death by `signal`.
extern "C" fn end(signal: libc::c_int) {
    // SAFETY: _exit(2) has no preconditions.
    unsafe { libc::_exit(128 + signal) }
}
