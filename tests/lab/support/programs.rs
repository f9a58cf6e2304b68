//! eBPF programs of others: two instructions that return one verdict, attached at every hook that
//! packets pass.
//!
//! libbpf-rs has no wrapper for tcx, and compiling C for `return 2` would only add a tool, so the
//! calls to libbpf stand here, and unsafe code with them. Attachments end with their values, except
//! clsact filters.
use crate::support::namespace::Namespace;
use libbpf_sys as sys;
use std::{
    ffi::CString,
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::Path,
};

/// Verdicts, as linux/pkt_cls.h and linux/bpf.h number them.
pub const TC_ACT_UNSPEC: i32 = -1;
pub const TC_ACT_OK: i32 = 0;
pub const TC_ACT_SHOT: i32 = 2;
pub const XDP_DROP: i32 = 1;
pub const XDP_PASS: i32 = 2;
pub const CGROUP_DROP: i32 = 0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Ingress,
    Egress,
}

/// A loaded program.
pub struct Program {
    fd: OwnedFd,
}

/// Loads a program of this type that returns `verdict` for every packet.
fn load(kind: sys::bpf_prog_type, name: &str, verdict: i32) -> Program {
    // r0 = verdict; exit
    let code = [
        sys::bpf_insn { code: 0xb7, imm: verdict, ..Default::default() },
        sys::bpf_insn { code: 0x95, ..Default::default() },
    ];
    load_code(kind, name, &code)
}

fn load_code(kind: sys::bpf_prog_type, name: &str, code: &[sys::bpf_insn]) -> Program {
    let name = CString::new(name).expect("a name");
    // SAFETY: both strings end in NUL, `code` has the length given, all live through the call; null options are
    // allowed.
    let fd = unsafe {
        sys::bpf_prog_load(
            kind,
            name.as_ptr(),
            c"GPL".as_ptr(),
            code.as_ptr(),
            code.len() as sys::size_t,
            std::ptr::null_mut(),
        )
    };
    assert!(fd >= 0, "loading {name:?}: {}", io::Error::from_raw_os_error(-fd));
    // SAFETY: libbpf has just opened this descriptor and keeps no copy of it.
    Program { fd: unsafe { OwnedFd::from_raw_fd(fd) } }
}

/// Returns a classifier for tcx and clsact.
pub fn classifier(name: &str, verdict: i32) -> Program {
    load(sys::BPF_PROG_TYPE_SCHED_CLS, name, verdict)
}

/// Returns a classifier that hands every packet to an interface's ingress, as Cilium does to a
/// pod's.
pub fn redirector(name: &str, at: &Namespace, interface: &str) -> Program {
    const BPF_F_INGRESS: i32 = 1;
    const BPF_FUNC_REDIRECT: i32 = 23;
    let mut to_flags = sys::bpf_insn { code: 0xb7, imm: BPF_F_INGRESS, ..Default::default() };
    let mut to_index =
        sys::bpf_insn { code: 0xb7, imm: at.inside(|| index(interface)), ..Default::default() };
    to_index.set_dst_reg(1);
    to_flags.set_dst_reg(2);
    let code = [
        to_index,
        to_flags,
        sys::bpf_insn { code: 0x85, imm: BPF_FUNC_REDIRECT, ..Default::default() },
        sys::bpf_insn { code: 0x95, ..Default::default() },
    ];
    load_code(sys::BPF_PROG_TYPE_SCHED_CLS, name, &code)
}

/// Returns the ids of the programs that a process has descriptors of (proc_pid_fdinfo(5)).
pub fn programs_of(pid: u32) -> Vec<u32> {
    let folder = std::fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
    let infos = folder.filter_map(|entry| std::fs::read_to_string(entry.path()).ok());
    let mut ids: Vec<u32> = infos
        .filter_map(|info| info.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok()))
        .collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Returns whether a program is loaded.
pub fn is_loaded(id: u32) -> bool {
    // SAFETY: takes a plain number.
    let fd = unsafe { sys::bpf_prog_get_fd_by_id(id) };
    // SAFETY: libbpf has just opened this descriptor and keeps no copy of it.
    fd >= 0 && unsafe { OwnedFd::from_raw_fd(fd) }.as_raw_fd() >= 0
}

/// An attachment that ends with this value.
#[must_use]
pub struct Link {
    _fd: OwnedFd,
}

fn link(program: &Program, target: i32, place: sys::bpf_attach_type) -> io::Result<Link> {
    // SAFETY: takes plain numbers; null options are allowed.
    let fd = unsafe { sys::bpf_link_create(program.fd.as_raw_fd(), target, place, std::ptr::null()) };
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: libbpf has just opened this descriptor and keeps no copy of it.
    Ok(Link { _fd: unsafe { OwnedFd::from_raw_fd(fd) } })
}

fn index(interface: &str) -> i32 {
    nix::net::if_::if_nametoindex(interface).expect("an interface") as i32
}

fn tcx_place(direction: Direction) -> sys::bpf_attach_type {
    match direction {
        Direction::Ingress => sys::BPF_TCX_INGRESS,
        Direction::Egress => sys::BPF_TCX_EGRESS,
    }
}

/// Attaches to tcx, behind the others; `None` where the kernel has no tcx (before 6.6).
pub fn attach_tcx(program: &Program, at: &Namespace, interface: &str, direction: Direction) -> Option<Link> {
    match at.inside(|| link(program, index(interface), tcx_place(direction))) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => None,
        result => Some(result.unwrap_or_else(|e| panic!("tcx on {interface}: {e}"))),
    }
}

/// Attaches to tcx, in front of the others.
pub fn attach_tcx_first(program: &Program, at: &Namespace, interface: &str, direction: Direction) -> Link {
    const BPF_F_BEFORE: u32 = 1 << 3;
    let fd = at.inside(|| {
        let options = sys::bpf_link_create_opts {
            sz: size_of::<sys::bpf_link_create_opts>() as sys::size_t,
            flags: BPF_F_BEFORE,
            ..Default::default()
        };
        let (program, target) = (program.fd.as_raw_fd(), index(interface));
        // SAFETY: `options` carries its size and lives through the call.
        unsafe { sys::bpf_link_create(program, target, tcx_place(direction), &raw const options) }
    });
    assert!(fd >= 0, "tcx on {interface}: {}", io::Error::from_raw_os_error(-fd));
    // SAFETY: libbpf has just opened this descriptor and keeps no copy of it.
    Link { _fd: unsafe { OwnedFd::from_raw_fd(fd) } }
}

/// Identifiers of the programs at tcx, in the order in which they run.
pub fn tcx_programs(at: &Namespace, interface: &str, direction: Direction) -> Vec<u32> {
    let mut ids = [0; 16];
    let mut count = ids.len() as u32;
    let result = at.inside(|| {
        // SAFETY: `ids` has room for `count` numbers; null attach flags are allowed.
        unsafe {
            sys::bpf_prog_query(
                index(interface),
                tcx_place(direction),
                0,
                std::ptr::null_mut(),
                ids.as_mut_ptr(),
                &mut count,
            )
        }
    });
    match result {
        0 => ids[..count as usize].to_vec(),
        // No tcx in this kernel, so no programs.
        e if e == -libc::EINVAL => Vec::new(),
        e => panic!("asking for tcx programs: {}", io::Error::from_raw_os_error(-e)),
    }
}

/// Attaches to clsact at a priority, making the qdisc where it is missing.
pub fn attach_clsact(
    program: &Program,
    at: &Namespace,
    interface: &str,
    direction: Direction,
    priority: u32,
) {
    // libbpf reports a clsact that is there already, which is no fault.
    libbpf_rs::set_print(None);
    let result = at.inside(|| {
        let mut hook = sys::bpf_tc_hook {
            sz: size_of::<sys::bpf_tc_hook>() as sys::size_t,
            ifindex: index(interface),
            attach_point: match direction {
                Direction::Ingress => sys::BPF_TC_INGRESS,
                Direction::Egress => sys::BPF_TC_EGRESS,
            },
            ..Default::default()
        };
        let mut options = sys::bpf_tc_opts {
            sz: size_of::<sys::bpf_tc_opts>() as sys::size_t,
            prog_fd: program.fd.as_raw_fd(),
            priority,
            ..Default::default()
        };
        // SAFETY: both structures carry their size and live through the calls.
        unsafe {
            match sys::bpf_tc_hook_create(&mut hook) {
                0 => sys::bpf_tc_attach(&hook, &mut options),
                e if e == -libc::EEXIST => sys::bpf_tc_attach(&hook, &mut options),
                e => e,
            }
        }
    });
    assert_eq!(result, 0, "clsact on {interface}: {}", io::Error::from_raw_os_error(-result));
}

/// Passes or drops every packet at XDP.
pub fn attach_xdp(at: &Namespace, interface: &str, verdict: i32) -> Link {
    let program = load(sys::BPF_PROG_TYPE_XDP, "lab_xdp", verdict);
    at.inside(|| link(&program, index(interface), sys::BPF_XDP)).expect("attaching to XDP")
}

/// Drops every packet of the processes in a control group.
pub fn drop_by_cgroup(group: &Path, direction: Direction) -> Link {
    let program = load(sys::BPF_PROG_TYPE_CGROUP_SKB, "lab_cgroup_drop", CGROUP_DROP);
    let folder = File::open(group).expect("the control group's folder");
    let place = match direction {
        Direction::Ingress => sys::BPF_CGROUP_INET_INGRESS,
        Direction::Egress => sys::BPF_CGROUP_INET_EGRESS,
    };
    link(&program, folder.as_raw_fd(), place).expect("attaching to the control group")
}

/// Refuses connect(2) to the processes in a control group.
pub fn refuse_connect(group: &Path, v4: bool) -> Link {
    let place = if v4 { sys::BPF_CGROUP_INET4_CONNECT } else { sys::BPF_CGROUP_INET6_CONNECT };
    // r0 = 0; exit
    let code = [
        sys::bpf_insn { code: 0xb7, ..Default::default() },
        sys::bpf_insn { code: 0x95, ..Default::default() },
    ];
    let mut options = sys::bpf_prog_load_opts {
        sz: size_of::<sys::bpf_prog_load_opts>() as sys::size_t,
        expected_attach_type: place,
        ..Default::default()
    };
    // SAFETY: both strings end in NUL, `code` has the length given, `options` carries its size; all live through the
    // call.
    let fd = unsafe {
        sys::bpf_prog_load(
            sys::BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
            c"lab_refuse".as_ptr(),
            c"GPL".as_ptr(),
            code.as_ptr(),
            code.len() as sys::size_t,
            &mut options,
        )
    };
    assert!(fd >= 0, "loading lab_refuse: {}", io::Error::from_raw_os_error(-fd));
    // SAFETY: libbpf has just opened this descriptor and keeps no copy of it.
    let program = Program { fd: unsafe { OwnedFd::from_raw_fd(fd) } };
    let folder = File::open(group).expect("the control group's folder");
    link(&program, folder.as_raw_fd(), place).expect("attaching to the control group")
}
