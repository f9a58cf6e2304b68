//! The system calls that a run still needs once everything is open; the kernel refuses the others (seccomp(2)).
//!
//! A refused call fails with ENOSYS, as if the kernel did not have it, and does not kill the process. C libraries
//! try newer calls and fall back to older ones upon just that error, so netkat goes on with a library that nobody
//! has seen yet, and what an attacker wants is denied all the same. With `NETKAT_SECCOMP=kill` in the
//! environment a refused call ends the process by SIGSYS: the tests run so, and it shows which call was missing.
//!
//! The lists hold what glibc and musl use, on x86-64 and on the architectures that have fewer calls.
use libc as c;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule,
};
use std::env;

/// The variable that makes a refused call deadly.
const ACTION: &str = "NETKAT_SECCOMP";

/// What a process goes on to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    /// Read and write what is open, use memory, tell the time.
    Files,
    /// The same, receive from open sockets, and ask the kernel about interfaces, routes and neighbours.
    Receive,
    /// The same, and send.
    Relay,
}

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    #[error("no filter for this architecture: {0}")]
    Compile(#[from] BackendError),
    #[error("the kernel does not take the filter: {0}")]
    Install(#[from] seccompiler::Error),
}

/// From now on, for good, this process may make only `calls`. Takes away its means to gain privileges, too
/// (no_new_privs).
pub fn restrict(calls: Calls) -> Result<(), SeccompError> {
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

fn rules(calls: Calls) -> Result<Rules, BackendError> {
    let mut rules: Rules = ANY.iter().map(|call| (*call, Vec::new())).collect();
    rules.extend(limited()?);
    if calls != Calls::Files {
        rules.extend(NETWORK.iter().map(|call| (*call, Vec::new())));
        // The only socket that can be made: rtnetlink.
        let socket = [(0, !0, c::AF_NETLINK as u64), (2, !0, c::NETLINK_ROUTE as u64)];
        rules.push((c::SYS_socket, vec![all(&socket)?]));
        // A sniffer does without the virtio-net header once it has met a frame which that can't describe.
        let vnet_header = [(1, !0, c::SOL_PACKET as u64), (2, !0, c::PACKET_VNET_HDR as u64)];
        rules.push((c::SYS_setsockopt, vec![all(&vnet_header)?]));
    }
    if calls == Calls::Relay {
        rules.extend(SEND.iter().map(|call| (*call, Vec::new())));
    }
    Ok(rules)
}

/// Whatever their arguments.
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
    // Standard output or standard error may be a socket. A packet socket would send by it as well.
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
    // This process, its locks and signals, the orphans that it inherits as a container's first process, its end.
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

const NETWORK: &[i64] = &[
    c::SYS_recvfrom,
    c::SYS_recvmsg,
    c::SYS_getsockopt,
    // For rtnetlink.
    c::SYS_bind,
    c::SYS_connect,
    c::SYS_getsockname,
];

const SEND: &[i64] = &[
    c::SYS_sendmsg,
    // Letting go of standard output.
    c::SYS_pipe2,
    c::SYS_dup3,
    #[cfg(target_arch = "x86_64")]
    c::SYS_pipe,
    #[cfg(target_arch = "x86_64")]
    c::SYS_dup2,
];

/// With some arguments only.
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
        // Signals to ourselves alone: raise(3), abort(3).
        (c::SYS_tgkill, vec![all(&own)?]),
        (c::SYS_tkill, vec![all(&own)?]),
        (c::SYS_fcntl, one_of(1, &[c::F_GETFD, c::F_SETFD, c::F_GETFL, c::F_SETFL, c::F_DUPFD_CLOEXEC])?),
        // Is it a terminal, and how wide; nothing that types into it (TIOCSTI).
        (c::SYS_ioctl, one_of(1, &[c::TCGETS as i32, c::TIOCGWINSZ as i32])?),
    ])
}

/// A rule that holds when each of these arguments, masked, has its value. The kernel looks at 32 bits of them.
fn all(conditions: &[(u8, u64, u64)]) -> Result<SeccompRule, BackendError> {
    let conditions = conditions.iter().map(|(argument, mask, value)| {
        SeccompCondition::new(*argument, Dword, SeccompCmpOp::MaskedEq(*mask), *value)
    });
    SeccompRule::new(conditions.collect::<Result<_, _>>()?)
}
