//! Kernel features that a run pretends are missing, so that one kernel can stand for older ones in tests.
//!
//! netkat finds out what a kernel has by asking for it, and goes on without what the kernel refuses. An
//! override makes netkat treat the request as refused.

/// Features to treat as refused; none by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FeatureOverrides {
    /// No programs at tcx (Linux 6.6).
    pub no_tcx: bool,
    /// No programs at netfilter's hooks (Linux 6.4).
    pub no_netfilter: bool,
    /// No place in front of the other programs at tcx (`BPF_F_BEFORE`).
    pub no_before: bool,
    /// No virtio-net header on packet sockets (`PACKET_VNET_HDR`).
    pub no_vnet_header: bool,
    /// No receive ring on packet sockets (`PACKET_RX_RING`).
    pub no_ring: bool,
    /// No owner of nftables tables (`NFT_TABLE_F_OWNER`, Linux 5.12).
    pub no_table_owner: bool,
}
