//! Runs a loaded program on a frame in the kernel, without any interface (man 2 bpf,
//! BPF_PROG_TEST_RUN).

use crate::model::Verdict;
use libbpf_rs::libbpf_sys as sys;
use netkat::kernel::{Counters, Filter, FlowFilter, Programs};
use std::os::fd::{AsRawFd, BorrowedFd};

/// include/uapi/linux/pkt_cls.h
pub const UNSPEC: i32 = -1;
pub const SHOT: i32 = 2;
pub const REDIRECT: i32 = 7;

/// Returns whether this process is root, and reports a skip if not.
pub fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        crate::skipped::skipped("needs root to load eBPF programs");
    }
    root
}

pub fn load(filter: &FlowFilter) -> Programs {
    Programs::load(&Filter::Flow(filter.clone())).unwrap()
}

/// Returns whether the kernel takes a frame for a test run: Linux 6.18 refuses frames that end
/// within their Ethernet or IP header. tests/kernel puts such frames on an interface instead.
pub fn is_runnable(frame: &[u8]) -> bool {
    let header = match frame.get(12..14) {
        Some([0x08, 0x00]) => 20,
        Some([0x86, 0xdd]) => 40,
        _ => 0,
    };
    frame.len() >= 14 + header
}

/// Returns the program's return value for a runnable frame.
pub fn run(program: BorrowedFd, frame: &[u8]) -> i32 {
    let mut options = sys::bpf_test_run_opts {
        sz: size_of::<sys::bpf_test_run_opts>() as sys::size_t,
        data_in: frame.as_ptr().cast(),
        data_size_in: frame.len() as u32,
        repeat: 1,
        ..Default::default()
    };
    // SAFETY: `options` points to `frame`, which outlives the call, and asks for no output.
    let result = unsafe { sys::bpf_prog_test_run_opts(program.as_raw_fd(), &mut options) };
    assert_eq!(result, 0, "test run of {} bytes: {}", frame.len(), std::io::Error::last_os_error());
    options.retval.cast_signed()
}

/// Returns the capture program's verdict by its counters, which must agree with its return value.
pub fn capture(programs: &Programs, frame: &[u8]) -> Verdict {
    let before = programs.counters();
    let kept = run(programs.capture_fd(), frame);
    let after = programs.counters();
    let verdict = match (
        after.flow - before.flow,
        after.fragments - before.fragments,
        after.control - before.control,
    ) {
        (0, 0, 0) => Verdict::Foreign,
        (1, 0, 0) => Verdict::Flow,
        (0, 1, 0) => Verdict::Fragment,
        (0, 0, 1) => Verdict::Control,
        _ => panic!("one frame counted twice: {before:?} {after:?}"),
    };
    assert_eq!(kept != 0, verdict != Verdict::Foreign);
    assert!(kept == 0 || kept as usize > 1 << 20, "a frame would be cut to {kept} bytes");
    verdict
}

/// Returns whether the guard drops a frame.
pub fn guard(programs: &Programs, frame: &[u8]) -> bool {
    let before = programs.counters();
    let action = run(programs.guard_fd(), frame);
    assert!(matches!(action, SHOT | UNSPEC), "{action}");
    let dropped = u64::from(action == SHOT);
    assert_eq!(programs.counters(), Counters { dropped: before.dropped + dropped, ..before });
    action == SHOT
}

/// Returns whether the loopback program redirects a frame.
pub fn loopback(programs: &Programs, frame: &[u8]) -> bool {
    let action = run(programs.loopback_fd().unwrap(), frame);
    assert!(matches!(action, REDIRECT | UNSPEC), "{action}");
    action == REDIRECT
}

/// Size of a loaded program and work of verifying it, in instructions.
#[derive(Debug)]
pub struct Instructions {
    pub translated: u32,
    pub verified: u32,
}

pub fn instructions(program: BorrowedFd) -> Instructions {
    let mut info = sys::bpf_prog_info::default();
    let mut length = size_of::<sys::bpf_prog_info>() as u32;
    // SAFETY: `info` is zeroed, so it asks for no variable-length data; `length` is its size.
    let result = unsafe { sys::bpf_prog_get_info_by_fd(program.as_raw_fd(), &mut info, &mut length) };
    assert_eq!(result, 0);
    Instructions { translated: info.xlated_prog_len / 8, verified: info.verified_insns }
}
