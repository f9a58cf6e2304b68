//! Drop events: the kernel's packets of watched ports that it frees without delivering them.
//!
//! The programs are an object of their own (bpf/drops.bpf.c), so other runs do not load it. Closing the
//! descriptors detaches it, however the process ends.
use super::{
    drops_skeleton::{DropsSkel, DropsSkelBuilder},
    error::KernelError,
};
use crate::process::capability::{self, Capability};
use libbpf_rs::{
    Link, MapCore, MapFlags, RingBuffer, RingBufferBuilder,
    btf::{Btf, types::Enum},
    skel::{OpenSkel, SkelBuilder},
};
use std::{
    cell::RefCell,
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd},
    rc::Rc,
};

/// Maximum drops that are kept between two calls of [`DropMonitor::take`].
pub(crate) const MAX_DROPS: usize = 1000;
/// The kernel's enumeration of reasons, and the beginning of its names.
const REASONS: &str = "skb_drop_reason";
const PREFIX: &str = "SKB_DROP_REASON_";

/// A packet that the kernel dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DroppedPacket {
    /// The reason's number, which differs from kernel to kernel; 0 where the kernel has none.
    pub reason: u32,
    /// The number of its network namespace; 0 where the packet has none.
    pub netns: u32,
    /// The device that it was at; empty before it has one.
    pub device: String,
    /// The kernel function that freed it; empty where the kernel does not name it.
    pub symbol: String,
    /// Its beginning, from the network header.
    pub bytes: Vec<u8>,
}

/// Watched drops, until the value is dropped.
pub(crate) struct DropMonitor {
    // Fields are dropped in this order: detached first.
    _link: Link,
    ring: RingBuffer<'static>,
    received: Rc<RefCell<Vec<DroppedPacket>>>,
    skeleton: DropsSkel<'static>,
}

impl DropMonitor {
    /// Loads and attaches the program, which reports nothing before [`DropMonitor::watch`].
    ///
    /// # Errors
    /// [`KernelError::Capability`] without CAP_BPF and CAP_PERFMON, [`KernelError::Load`] where the kernel has no
    /// BTF, no ring buffer (Linux 5.8) or refuses for another reason.
    pub(crate) fn open() -> Result<DropMonitor, KernelError> {
        for needed in [Capability::Perfmon, Capability::Bpf] {
            capability::require(needed, "see what the kernel drops")?;
        }
        super::programs::log_through();
        // The skeleton borrows its storage. Leaking these few bytes makes it 'static; their content is dropped with
        // the skeleton.
        let storage = Box::leak(Box::new(MaybeUninit::uninit()));
        let open = DropsSkelBuilder::default().open(storage).map_err(KernelError::Load)?;
        let skeleton = open.load().map_err(KernelError::Load)?;
        let received = Rc::new(RefCell::new(Vec::new()));
        let sink = received.clone();
        let mut ring = RingBufferBuilder::new();
        let take = move |bytes: &[u8]| {
            let mut received = sink.borrow_mut();
            if received.len() < MAX_DROPS {
                received.extend(DroppedPacket::parse(bytes));
            }
            0
        };
        ring.add(&skeleton.maps.drops, take).map_err(KernelError::Load)?;
        let ring = ring.build().map_err(KernelError::Load)?;
        let link = skeleton.progs.netkat_drops.attach_trace().map_err(KernelError::Load)?;
        Ok(DropMonitor { _link: link, ring, received, skeleton })
    }

    /// Reports packets from and to a port from now on, and ICMP errors that quote them.
    ///
    /// # Errors
    /// The kernel's; E2BIG beyond 64 ports.
    pub(crate) fn watch(&self, port: u16) -> io::Result<()> {
        let updated = self.skeleton.maps.ports.update(&port.to_be_bytes(), &[1], MapFlags::ANY);
        updated.map_err(io::Error::other)
    }

    /// Returns the drops since the last call.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn take(&self) -> io::Result<Vec<DroppedPacket>> {
        self.ring.consume().map_err(io::Error::other)?;
        Ok(self.received.take())
    }

    /// Returns whether drops were lost.
    pub(crate) fn has_lost(&self) -> bool {
        self.skeleton.maps.bss_data.as_deref().is_some_and(|bss| bss.lost > 0)
    }
}

impl DroppedPacket {
    /// Reads a `struct drop`.
    fn parse(bytes: &[u8]) -> Option<DroppedPacket> {
        let word = |at: usize| bytes.get(at..)?.first_chunk().map(|word| u32::from_ne_bytes(*word));
        let name = |from: usize, to: usize| {
            let name = bytes.get(from..to)?.split(|byte| *byte == 0).next()?;
            Some(String::from_utf8_lossy(name).into_owned())
        };
        let length = usize::try_from(word(8)?).ok()?;
        Some(DroppedPacket {
            reason: word(0)?,
            netns: word(4)?,
            device: name(12, 28)?,
            symbol: name(28, 92)?,
            bytes: bytes.get(92..)?.get(..length)?.to_vec(),
        })
    }
}

/// Names of the running kernel's reasons, by number.
#[derive(Debug, Default)]
pub(crate) struct DropReasons(Vec<(i64, String)>);

impl DropReasons {
    /// Reads the names from the kernel's BTF; there are none before Linux 5.17.
    pub(crate) fn read() -> DropReasons {
        let names = || -> Option<Vec<(i64, String)>> {
            let btf = Btf::from_vmlinux().inspect_err(|error| log::debug!("no BTF: {error}")).ok()?;
            let reasons = btf.type_by_name::<Enum<'_>>(REASONS)?;
            let named = reasons.iter().filter_map(|member| {
                let name = member.name?.to_str()?;
                Some((member.value, name.strip_prefix(PREFIX).unwrap_or(name).to_owned()))
            });
            Some(named.collect())
        };
        DropReasons(names().unwrap_or_default())
    }

    /// Returns a reason's name.
    pub(crate) fn name(&self, reason: u32) -> Option<&str> {
        let found = self.0.iter().find(|(value, _)| *value == i64::from(reason));
        found.map(|(_, name)| name.as_str())
    }
}

impl AsFd for DropMonitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.skeleton.maps.drops.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drop_is_read_as_the_program_writes_it() {
        let mut bytes = vec![0; 220];
        bytes[..4].copy_from_slice(&7_u32.to_ne_bytes());
        bytes[8..12].copy_from_slice(&64_u32.to_ne_bytes());
        bytes[12..16].copy_from_slice(b"eth0");
        bytes[28..40].copy_from_slice(b"nf_hook_slow");
        bytes[92] = 0x45;
        let drop = DroppedPacket::parse(&bytes).expect("a drop");
        assert_eq!((drop.reason, drop.device.as_str(), drop.symbol.as_str()), (7, "eth0", "nf_hook_slow"));
        assert_eq!((drop.bytes.len(), drop.bytes[0]), (64, 0x45));
        bytes[8..12].copy_from_slice(&999_u32.to_ne_bytes());
        assert_eq!(DroppedPacket::parse(&bytes), None);
    }
}
