//! What can go wrong between netkat and the kernel.

use super::holder::Holder;
use crate::{net::Protocol, process::capability::CapabilityError};
use std::{io, net::SocketAddr};

/// An error of this layer: what was tried, on what, why it failed, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// A filter that would match nothing, or too much.
    #[error("cannot filter packets: {0}")]
    InvalidFilter(&'static str),
    #[error(
        "cannot filter packets: more than {limit} local addresses of one family; name those to use with -s"
    )]
    TooManyAddresses { limit: usize },
    /// EPERM, and this is why.
    #[error(transparent)]
    Capability(#[from] CapabilityError),
    /// EPERM although nothing is missing: see bpf_charge_memlock in Linux 5.10's kernel/bpf/syscall.c.
    #[error(
        "cannot load the eBPF programs: {0}, although it has the capabilities; a container's seccomp profile may forbid \
         bpf(2), or, before Linux 5.11, the limit on locked memory may be too low (ulimit -l 1024 is enough)"
    )]
    Forbidden(#[source] libbpf_rs::Error),
    #[error("cannot load the eBPF programs: {0}")]
    Load(#[source] libbpf_rs::Error),
    #[error("cannot map the table of netkat's flows: {0}")]
    FlowTable(#[source] io::Error),
    #[error("cannot load the eBPF programs: the object lacks its {0} section")]
    Object(&'static str),
    #[error("cannot attach to {hook} of {interface}: {source}")]
    Attach { hook: &'static str, interface: String, source: io::Error },
    #[error("cannot attach at tcx: this kernel does not have it (Linux 6.6 and later do); use clsact")]
    NoTcx,
    /// ERANGE: bpf_mprog_max() in include/linux/bpf_mprog.h.
    #[error(
        "cannot attach at tcx of {0}: it has 63 programs already, the most that the kernel allows; use clsact"
    )]
    TcxFull(String),
    #[error("cannot attach a program that was not loaded: {0}")]
    NotLoaded(&'static str),
    #[error("cannot list the programs attached to {interface}: {source}")]
    Query { interface: String, source: io::Error },
    #[error("cannot hold {protocol} port {address}: {source}")]
    Lease { protocol: Protocol, address: SocketAddr, source: io::Error },
    #[error("cannot hold {protocol} port {address}: {holder}; choose another port or end what uses this one")]
    PortInUse { protocol: Protocol, address: SocketAddr, holder: Holder },
    #[error(
        "cannot hold {protocol} port {address}: the address is not this host's (or not yet ready to use)"
    )]
    NotLocal { protocol: Protocol, address: SocketAddr },
}
