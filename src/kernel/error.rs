//! The errors of programs, attachments and the port lease.

use super::bind_conflict::BindConflict;
use crate::{
    host::netlink::NetlinkError,
    net::{Protocol, zone::endpoint},
    process::capability::{Capability, CapabilityError},
};
use std::{
    io,
    net::{IpAddr, SocketAddr},
};

/// The reason why netkat cannot put an object into the kernel.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// A filter that would match nothing, or too much.
    #[error("cannot filter packets: {0}")]
    InvalidFilter(&'static str),
    /// More addresses than the programs compare.
    #[error("cannot filter packets: more than {limit} addresses of one family")]
    TooManyAddresses {
        /// The maximum for each family.
        limit: usize,
    },
    /// EPERM, for want of a capability.
    #[error(transparent)]
    Capability(#[from] CapabilityError),
    /// EPERM although no capability is missing: see bpf_charge_memlock in Linux 5.10's kernel/bpf/syscall.c.
    #[error("cannot load the eBPF programs: {0}, although it has the capabilities; {suspicion}", suspicion = suspicion())]
    Forbidden(#[source] libbpf_rs::Error),
    /// The kernel refused to load the programs.
    #[error("cannot load the eBPF programs: {0}")]
    Load(#[source] libbpf_rs::Error),
    /// nf_tables refused the guard's rules.
    #[error("cannot make the guard's nftables rules: {0}")]
    Rules(#[source] NetlinkError),
    /// Neither programs nor rules can keep our packets from the kernel.
    #[error("{programs}; {rules}")]
    NeitherWay {
        /// The reason why programs do not.
        programs: Box<KernelError>,
        /// The reason why rules do not.
        rules: Box<KernelError>,
    },
    /// Rules cannot do this.
    #[error("nftables rules cannot {0}, only eBPF programs can")]
    ProgramsOnly(&'static str),
    /// The flow table could not be made or mapped.
    #[error("cannot map the table of netkat's flows: {0}")]
    FlowTable(#[source] io::Error),
    /// The programs' object file lacks a section.
    #[error("cannot load the eBPF programs: the object lacks its {0} section")]
    Object(&'static str),
    /// The kernel refused an attachment.
    #[error("cannot attach to {hook} of {interface}: {source}")]
    Attach {
        /// The back end and its side, as "tcx ingress".
        hook: &'static str,
        /// The interface's name.
        interface: String,
        /// The kernel's error.
        source: io::Error,
    },
    /// The kernel has no programs at netfilter's hooks, or does not tell the number of a function.
    #[error("cannot guard by a program at netfilter: {0} (it takes Linux 6.4 with BTF); use tcx")]
    NoNetfilter(#[source] io::Error),
    /// A guard at netfilter compares both ends of a connection, and sees what bridges hand on.
    #[error(
        "cannot guard by a program at netfilter: it is for one connection to a known peer, by one interface that is \
         neither lo nor a bridge nor above another one; use tcx"
    )]
    NotOneConnection,
    /// The kernel is older than tcx.
    #[error("cannot attach at tcx: this kernel does not have it (Linux 6.6 and later do); use clsact")]
    NoTcx,
    /// ERANGE: bpf_mprog_max() in include/linux/bpf_mprog.h.
    #[error(
        "cannot attach at tcx of {0}: it has 63 programs already, the most that the kernel allows; use clsact"
    )]
    TcxFull(String),
    /// The filter does without this program.
    #[error("cannot attach a program that was not loaded: {0}")]
    NotLoaded(&'static str),
    /// The kernel does not list an interface's programs.
    #[error("cannot list the programs attached to {interface}: {source}")]
    Query {
        /// The interface's name.
        interface: String,
        /// The kernel's error.
        source: io::Error,
    },
    /// The port could not be bound, for a reason of its own.
    #[error("cannot hold {protocol} port {}: {source}", endpoint(address))]
    Lease {
        /// The port's protocol.
        protocol: Protocol,
        /// Address and port.
        address: SocketAddr,
        /// The kernel's error.
        source: io::Error,
    },
    /// The kernel makes this host no member of a group.
    #[error("cannot join the group {group}: {source}; name an interface that can carry it")]
    Membership {
        /// The group.
        group: IpAddr,
        /// The kernel's error.
        source: io::Error,
    },
    /// Another socket has the port.
    #[error(
        "cannot hold {protocol} port {}: {conflict}; choose another port or end what uses this one",
        endpoint(address)
    )]
    PortInUse {
        /// The port's protocol.
        protocol: Protocol,
        /// Address and port.
        address: SocketAddr,
        /// The socket that has it.
        conflict: BindConflict,
    },
    /// No interface has the address.
    #[error(
        "cannot hold {protocol} port {}: the address is not this host's (or not yet ready to use)",
        endpoint(address)
    )]
    NotLocal {
        /// The port's protocol.
        protocol: Protocol,
        /// Address and port.
        address: SocketAddr,
    },
}

impl KernelError {
    /// Returns whether this process may not load programs here, or the kernel cannot.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            KernelError::Capability(error) => error.concerns(Capability::Bpf),
            KernelError::Forbidden(_) => true,
            KernelError::Load(error) => error.kind() == libbpf_rs::ErrorKind::Unsupported,
            _ => false,
        }
    }
}

/// Returns what may forbid bpf(2): before Linux 5.11, programs count as locked memory.
fn suspicion() -> &'static str {
    let release = nix::sys::utsname::uname().ok();
    let release = release.as_ref().and_then(|names| names.release().to_str());
    let mut numbers = release.into_iter().flat_map(|text| text.split(['.', '-'])).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= (5, 11) => {
            "a container's seccomp profile may forbid bpf(2): Docker's allows it with CAP_BPF since 23.0 and \
             containerd's since 1.6.9, podman's does not everywhere; docker or podman run --security-opt seccomp=FILE \
             takes another, such as netkat-run-seccomp.json of netkat's packages"
        }
        _ => {
            "a container's seccomp profile may forbid bpf(2), or the limit on locked memory may be too low \
             (ulimit -l 1024 is enough)"
        }
    }
}
