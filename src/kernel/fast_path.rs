//! The fast path of a command's flows: the kernel forwards their ordinary packets between the command's device and
//! the wire, as bpf/fast_path.h has it, and counts them.
//!
//! Two arrays, mapped into our memory, tell the programs which flows these are and where they go, so putting a
//! flow on the fast path and taking it off needs no system call. [`FastPath::attach`] must come first.
use super::{
    array_mapping::ArrayMapping,
    clsact,
    error::KernelError,
    flow_table::{self, FlowKey, FlowTable, Key},
    programs::Programs,
    skeleton::types::{self, track},
};
use crate::{
    host::interface,
    net::MacAddr,
    process::capability::{self, Capability},
};
use libbpf_rs::{MapCore, MapFlags, ProgramType, libbpf_sys};
use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    sync::atomic::{Ordering, fence},
};

/// Buckets of the table of flows, for some 4,000 of them; the array of tracks has 384 KiB.
pub(super) const BUCKETS: u32 = 1024;
/// Entries of the array of tracks.
pub(super) const SLOTS: u32 = BUCKETS * flow_table::BUCKET as u32;
/// Maximum uplinks: MAX_UPLINKS in bpf/flow.h.
const MAX_UPLINKS: usize = 16;

/// Words of `struct track` in bpf/fast_path.h.
const NEXT_HOP: usize = 0;
const MTU: usize = 1;
const SENT: usize = 2;
const RECEIVED: usize = 4;

/// An interface by which flows on the fast path go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Its index.
    pub index: u32,
    /// The link address from which the command's packets leave.
    pub mac: MacAddr,
}

/// The parameters of a fast path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FastPathSpec {
    /// Index of the command's device, the end that is in this network namespace.
    pub outer: u32,
    /// The interfaces, all with a guard and Ethernet's link header; at most 16.
    pub uplinks: Vec<Uplink>,
}

impl FastPathSpec {
    /// Returns whether the kernel has what the fast path needs: bpf_redirect_peer(), Linux 5.10.
    pub(crate) fn is_supported() -> bool {
        ProgramType::SchedCls.is_helper_supported(libbpf_sys::BPF_FUNC_redirect_peer).unwrap_or(false)
    }

    /// Writes the parameters into the programs' constants.
    ///
    /// # Errors
    /// [`KernelError::InvalidFilter`].
    pub(super) fn write(&self, config: &mut types::config) -> Result<(), KernelError> {
        if self.uplinks.len() > MAX_UPLINKS {
            return Err(KernelError::InvalidFilter("more than 16 interfaces on the fast path"));
        }
        (config.fast, config.fast_mask, config.outer) = (1, BUCKETS - 1, self.outer);
        for (slot, Uplink { index, mac: MacAddr(mac) }) in config.uplinks.iter_mut().zip(&self.uplinks) {
            (slot.index, slot.mac) = (*index, *mac);
        }
        Ok(())
    }
}

/// Packets and bytes of a flow that took the fast path, IP headers included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FastTraffic {
    /// Packets that the command sent, and their bytes.
    pub sent: (u64, u64),
    /// Packets that the command received, and their bytes.
    pub received: (u64, u64),
}

impl FastTraffic {
    fn since(self, before: FastTraffic) -> FastTraffic {
        let difference = |(a, b): (u64, u64), (c, d)| (a.wrapping_sub(c), b.wrapping_sub(d));
        FastTraffic {
            sent: difference(self.sent, before.sent),
            received: difference(self.received, before.received),
        }
    }
}

/// A flow on the fast path.
#[derive(Clone, Debug)]
pub struct FastFlow {
    key: FlowKey,
    slot: usize,
    /// The counters when they were last taken; they go on from flow to flow.
    taken: FastTraffic,
}

/// The flows on the fast path.
#[derive(Debug)]
pub struct FastPath {
    table: FlowTable,
    tracks: ArrayMapping<track>,
    uplinks: Vec<Uplink>,
}

impl FastPath {
    /// Maps the arrays of the programs, which are made with [`BUCKETS`] and [`SLOTS`] entries.
    ///
    /// # Errors
    /// The kernel's (mmap(2)).
    pub(super) fn map(
        spec: &FastPathSpec,
        flows: BorrowedFd,
        tracks: BorrowedFd,
        key: Key,
    ) -> io::Result<FastPath> {
        Ok(FastPath {
            table: FlowTable::map(flows, BUCKETS, key)?,
            tracks: ArrayMapping::new(tracks, SLOTS as usize)?,
            uplinks: spec.uplinks.clone(),
        })
    }

    /// Attaches the programs to the command's device, before the command runs. No packet of the command's reaches
    /// this host's kernel then for as long as the device exists.
    ///
    /// # Errors
    /// [`KernelError::Attach`], [`KernelError::Capability`], [`KernelError::Load`].
    pub(crate) fn attach(programs: &Programs, outer: u32) -> Result<(), KernelError> {
        let parts = programs.fast_path_programs();
        let leave = parts.leave.as_raw_fd().to_ne_bytes();
        parts.successor.update(&0u32.to_ne_bytes(), &leave, MapFlags::ANY).map_err(KernelError::Load)?;
        clsact::attach_for_good(parts.wall, "netkat_wall", outer).map_err(|source| {
            let purpose = "attach its eBPF programs to an interface";
            match capability::denied(&source, Capability::NetAdmin, purpose) {
                Some(error) => error.into(),
                None => KernelError::Attach {
                    hook: "clsact ingress",
                    interface: interface::name(outer).unwrap_or_else(|| format!("interface {outer}")),
                    source,
                },
            }
        })
    }

    /// Puts a flow on the fast path: its packets of up to `mtu` bytes go to a neighbour on an interface. Returns
    /// `None` if there is no room, or the packets' link address is not that which the programs know.
    pub fn insert(
        &mut self,
        key: FlowKey,
        interface: u32,
        source: MacAddr,
        neighbour: MacAddr,
        mtu: u32,
    ) -> Option<FastFlow> {
        let uplink = Uplink { index: interface, mac: source };
        let number = u16::try_from(self.uplinks.iter().position(|one| *one == uplink)?).ok()?;
        let slot = self.table.slot(key)?;
        let ([a, b, c, d, e, f], [g, h]) = (neighbour.0, number.to_ne_bytes());
        self.tracks.write(slot, NEXT_HOP, u64::from_ne_bytes([a, b, c, d, e, f, g, h]));
        self.tracks.write(slot, MTU, mtu.into());
        let taken = self.read(slot);
        // The programs see the flow after its way.
        fence(Ordering::Release);
        self.table.insert(key).then_some(FastFlow { key, slot, taken })
    }

    /// Returns the traffic of a flow since the previous call.
    pub fn take_traffic(&self, flow: &mut FastFlow) -> FastTraffic {
        let now = self.read(flow.slot);
        now.since(std::mem::replace(&mut flow.taken, now))
    }

    /// Takes a flow off the fast path. Returns its traffic since the previous call.
    pub fn remove(&mut self, mut flow: FastFlow) -> FastTraffic {
        self.table.remove(flow.key);
        self.take_traffic(&mut flow)
    }

    fn read(&self, slot: usize) -> FastTraffic {
        let pair = |word| (self.tracks.read(slot, word), self.tracks.read(slot, word + 1));
        FastTraffic { sent: pair(SENT), received: pair(RECEIVED) }
    }
}
