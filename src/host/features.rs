//! Features that newer kernels have, taken for missing.
//!
//! netkat finds out what a kernel has by asking for it: what is refused, it does without. So that all of that can be
//! tried on one kernel, a run can be told to hold a feature for refused; what follows is what follows on a kernel that
//! refuses it.

/// What this kernel counts as lacking, whether it does or not; nothing by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Programs at tcx (Linux 6.6).
    pub tcx: bool,
    /// A place in front of the other programs at tcx (`BPF_F_BEFORE`).
    pub before: bool,
    /// The virtio-net header on packet sockets (`PACKET_VNET_HDR`).
    pub vnet_header: bool,
}
