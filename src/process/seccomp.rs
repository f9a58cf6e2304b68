//! The seccomp filter: the system calls that a run still needs once everything is open (seccomp(2)).
//!
//! Any other call fails with ENOSYS, as if the kernel did not have it. C libraries try newer calls and fall
//! back to older ones upon that error, so netkat also works with future libraries. With
//! `NETKAT_SECCOMP=kill` in the environment, such a call ends the process by SIGSYS instead: the tests run
//! so, and the kernel's log names the call.
//!
//! The lists hold the calls of glibc and musl, on x86-64 and on the architectures that have fewer calls.
use libc as c;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule,
};
use std::env;

/// The environment variable that makes a refused call end the process.
const ACTION: &str = "NETKAT_SECCOMP";

/// The system calls to allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SyscallSet {
    /// Reading and writing open files, memory, time.
    Files,
    /// [`SyscallSet::Files`], receiving from open sockets, and rtnetlink.
    Receive,
    /// [`SyscallSet::Receive`], and sending.
    Relay,
    /// [`SyscallSet::Relay`], and sockets that hold a port.
    Gateway,
}

/// The reason why a filter cannot be installed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SeccompError {
    /// The filter cannot be compiled for this architecture.
    #[error("no filter for this architecture: {0}")]
    Compile(#[from] BackendError),
    /// The kernel refused the filter.
    #[error("the kernel does not take the filter: {0}")]
    Install(#[from] seccompiler::Error),
}

/// Restricts this process to `calls`, for good. Sets no_new_privs, too.
///
/// # Errors
/// [`SeccompError`].
pub(crate) fn restrict(calls: SyscallSet) -> Result<(), SeccompError> {
    let refusal = match env::var_os(ACTION) {
        Some(action) if action == "kill" => SeccompAction::KillProcess,
        _ => SeccompAction::Errno(c::ENOSYS as u32),
    };
    let filter = SeccompFilter::new(
        rules(calls)?.into_iter().collect(),
        refusal,
        SeccompAction::Allow,
        env::consts::ARCH.try_into()?,
    )?;
    let program: BpfProgram = filter.try_into()?;
    Ok(seccompiler::apply_filter_all_threads(&program)?)
}

type Rules = Vec<(i64, Vec<SeccompRule>)>;

fn rules(calls: SyscallSet) -> Result<Rules, BackendError> {
    let mut rules: Rules = ANY.iter().map(|call| (*call, Vec::new())).collect();
    rules.extend(limited()?);
    if calls != SyscallSet::Files {
        rules.extend(NETWORK.iter().map(|call| (*call, Vec::new())));
        // rtnetlink sockets only.
        let mut sockets = vec![all(&[(0, !0, c::AF_NETLINK as u64), (2, !0, c::NETLINK_ROUTE as u64)])?];
        // A sniffer switches the virtio-net header off at a frame that the header cannot describe.
        let vnet_header = [(1, !0, c::SOL_PACKET as u64), (2, !0, c::PACKET_VNET_HDR as u64)];
        let mut options = vec![all(&vnet_header)?];
        if calls == SyscallSet::Gateway {
            for family in [c::AF_INET, c::AF_INET6] {
                sockets.push(all(&[(0, !0, family as u64)])?);
            }
            options.push(all(&[(1, !0, c::IPPROTO_IPV6 as u64), (2, !0, c::IPV6_V6ONLY as u64)])?);
        }
        rules.push((c::SYS_socket, sockets));
        rules.push((c::SYS_setsockopt, options));
    }
    if calls == SyscallSet::Gateway {
        rules.push((c::SYS_listen, Vec::new()));
    }
    if matches!(calls, SyscallSet::Relay | SyscallSet::Gateway) {
        rules.extend(SEND.iter().map(|call| (*call, Vec::new())));
        // fork(3): a copy with all limits of this process, which stays in TIME-WAIT.
        let copied = !(c::CLONE_CHILD_SETTID | c::CLONE_CHILD_CLEARTID) as u32;
        rules.push((c::SYS_clone, vec![all(&[(0, copied.into(), c::SIGCHLD as u64)])?]));
        rules.push((c::SYS_prctl, vec![all(&[(0, !0, c::PR_SET_NAME as u64)])?]));
    }
    Ok(rules)
}

/// Calls that are allowed with any arguments.
const ANY: &[i64] = &[
    // Streams and files that are open.
    c::SYS_read,
    c::SYS_readv,
    c::SYS_write,
    c::SYS_writev,
    c::SYS_lseek,
    c::SYS_close,
    c::SYS_fstat,
    c::SYS_ppoll,
    // Standard output or standard error may be a socket. The call could also send by a packet socket.
    c::SYS_sendto,
    // Memory.
    c::SYS_brk,
    c::SYS_munmap,
    c::SYS_mremap,
    c::SYS_madvise,
    // Time and randomness.
    c::SYS_clock_gettime,
    c::SYS_clock_getres,
    c::SYS_gettimeofday,
    c::SYS_clock_nanosleep,
    c::SYS_nanosleep,
    c::SYS_getrandom,
    // This process: locks, signals, orphans that it inherits as a container's first process, exit.
    c::SYS_wait4,
    c::SYS_waitid,
    c::SYS_capget,
    c::SYS_getpid,
    c::SYS_gettid,
    c::SYS_futex,
    c::SYS_sched_yield,
    c::SYS_rt_sigaction,
    c::SYS_rt_sigprocmask,
    c::SYS_rt_sigreturn,
    c::SYS_sigaltstack,
    c::SYS_restart_syscall,
    c::SYS_exit,
    c::SYS_exit_group,
    #[cfg(target_arch = "x86_64")]
    c::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    c::SYS_time,
];

/// Calls of [`SyscallSet::Receive`].
const NETWORK: &[i64] = &[
    c::SYS_recvfrom,
    c::SYS_recvmsg,
    c::SYS_getsockopt,
    // For rtnetlink.
    c::SYS_bind,
    c::SYS_connect,
    c::SYS_getsockname,
];

/// Further calls of [`SyscallSet::Relay`].
const SEND: &[i64] = &[
    c::SYS_sendmsg,
    // Replacing standard output.
    c::SYS_pipe2,
    c::SYS_dup3,
    // A copy of this process in a session of its own; what C libraries do in it.
    c::SYS_setsid,
    c::SYS_set_robust_list,
    c::SYS_set_tid_address,
    #[cfg(target_arch = "x86_64")]
    c::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    c::SYS_pipe,
    #[cfg(target_arch = "x86_64")]
    c::SYS_dup2,
];

/// Returns the rules of calls that are allowed with some arguments only.
fn limited() -> Result<Rules, BackendError> {
    let executable = [(2, c::PROT_EXEC as u64, 0)];
    let at_descriptor = |flags| [(flags, c::AT_EMPTY_PATH as u64, c::AT_EMPTY_PATH as u64)];
    let own = [(0, !0, u64::from(std::process::id()))];
    let one_of = |argument, values: &[i32]| {
        values.iter().map(|value| all(&[(argument, !0, *value as u64)])).collect::<Result<Vec<_>, _>>()
    };
    Ok(vec![
        (c::SYS_mmap, vec![all(&executable)?]),
        (c::SYS_mprotect, vec![all(&executable)?]),
        (c::SYS_newfstatat, vec![all(&at_descriptor(3))?]),
        (c::SYS_statx, vec![all(&at_descriptor(2))?]),
        // Signals to this process only: raise(3), abort(3).
        (c::SYS_tgkill, vec![all(&own)?]),
        (c::SYS_tkill, vec![all(&own)?]),
        (c::SYS_fcntl, one_of(1, &[c::F_GETFD, c::F_SETFD, c::F_GETFL, c::F_SETFL, c::F_DUPFD_CLOEXEC])?),
        // Terminal or not, and its width; not TIOCSTI, which types into it.
        (c::SYS_ioctl, one_of(1, &[c::TCGETS as i32, c::TIOCGWINSZ as i32])?),
    ])
}

/// Returns a rule that matches when each of these arguments, masked, has its value. The filter compares 32
/// bits.
fn all(conditions: &[(u8, u64, u64)]) -> Result<SeccompRule, BackendError> {
    let conditions = conditions.iter().map(|(argument, mask, value)| {
        SeccompCondition::new(*argument, Dword, SeccompCmpOp::MaskedEq(*mask), *value)
    });
    SeccompRule::new(conditions.collect::<Result<_, _>>()?)
}
