//! The eBPF programs: their parameters, loading, and the memory they share with us.
//!
//! The parameters are constants in the object's read-only data, written before the load, so the verifier
//! removes what a run does not need. Counters and the heartbeat live in its `.bss`, which is mapped into our
//! memory: reading and writing them takes no system call and no privilege.
#![allow(unsafe_code)]

use super::{
    bpf,
    error::KernelError,
    filter::Filter,
    flow_table::{self, FlowTable, Key},
    owner::Owner,
    skeleton::{NetkatSkel, NetkatSkelBuilder, types},
};
use crate::{
    host::features::Missing,
    process::capability::{self, Capability},
};
use libbpf_rs::{
    PrintLevel,
    skel::{OpenSkel, SkelBuilder},
};
use log::{debug, trace, warn};
use nix::time::{ClockId, clock_gettime};
use std::{
    cell::{Cell, OnceCell},
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd},
    ptr::NonNull,
    rc::Rc,
    time::Duration,
};

/// An attachment that is watched goes inert when [`Programs::beat`] was not called for this long.
pub const HEARTBEAT_LIMIT: Duration = Duration::from_secs(1);

/// How often [`Programs::beat`] is to be called.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(250);

/// What the programs have counted since they were loaded, in packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Segments and datagrams that the capture program let through; what matched, for a sniffer.
    pub flow: u64,
    /// Later fragments that it let through; the kernel sees them too.
    pub fragments: u64,
    /// ICMP errors about our packets, ARP and neighbour discovery that it let through, and what may be the ACK of a
    /// SYN cookie.
    pub control: u64,
    /// Segments and datagrams that the guard kept from the kernel. When these stay behind `flow`, a program
    /// ahead of the guard lets packets past it: see [`Guard::ahead`](super::Guard::ahead).
    pub dropped: u64,
    /// Frames that the loopback program gave a route.
    pub redirected: u64,
}

/// The programs of one run, loaded. They are unloaded with the last attachment, socket and this value.
pub struct Programs {
    skeleton: NetkatSkel<'static>,
    shared: NonNull<types::bss>,
    watched: Cell<bool>,
    owner: OnceCell<Rc<Owner>>,
    missing: Missing,
    table: Option<FlowTable>,
}

impl Programs {
    /// Loads the programs with their parameters: for a sniffer the capture program, else all that the flow
    /// can need.
    ///
    /// # Errors
    /// [`KernelError::InvalidFilter`] and [`KernelError::TooManyAddresses`] for the filter;
    /// [`KernelError::Capability`] without CAP_BPF (CAP_SYS_ADMIN before Linux 5.8) or, but for a sniffer,
    /// CAP_NET_ADMIN; [`KernelError::Forbidden`] where something else forbids it; [`KernelError::Load`] for anything else
    /// that the kernel refuses.
    pub fn load(filter: &Filter) -> Result<Programs, KernelError> {
        libbpf_rs::set_print(Some((PrintLevel::Debug, log_libbpf)));
        // The skeleton borrows its storage. The few bytes leaked here make it 'static; what they held is
        // dropped with the skeleton.
        let storage = Box::leak(Box::new(MaybeUninit::uninit()));
        let mut open = NetkatSkelBuilder::default().open(storage).map_err(KernelError::Load)?;
        let rodata = open.maps.rodata_data.as_deref_mut().ok_or(KernelError::Object(".rodata"))?;
        rodata.config.heartbeat_limit = nanoseconds(HEARTBEAT_LIMIT);
        filter.write(&mut rodata.config)?;
        let table = match filter {
            Filter::Flow(flow) if flow.has_table() => {
                let key = Key::random().map_err(KernelError::FlowTable)?;
                let buckets = flow_table::buckets(flow.table);
                rodata.config.hash_key = key.0;
                rodata.config.bucket_mask = buckets - 1;
                open.maps.flow_table.set_max_entries(buckets).map_err(KernelError::Load)?;
                Some((buckets, key))
            }
            _ => None,
        };
        let (guard, loopback) = match filter {
            Filter::Sniff(_) => (false, false),
            Filter::Flow(flow) => (true, flow.has_ipv4()),
        };
        open.progs.netkat_guard.set_autoload(guard);
        open.progs.netkat_loopback.set_autoload(loopback);

        let mut skeleton = open.load().map_err(|error| refused(error, guard))?;
        let shared = skeleton.maps.bss_data.as_deref_mut().ok_or(KernelError::Object(".bss"))?;
        let shared = NonNull::from(shared);
        let map = skeleton.maps.flow_table.as_fd();
        let table = table.map(|(buckets, key)| FlowTable::map(map, buckets, key)).transpose();
        Ok(Programs {
            table: table.map_err(KernelError::FlowTable)?,
            skeleton,
            shared,
            watched: Cell::new(false),
            owner: OnceCell::new(),
            missing: Missing::default(),
        })
    }

    /// Attaches them as on a kernel that lacks these features.
    #[must_use]
    pub fn without(self, missing: Missing) -> Programs {
        Programs { missing, ..self }
    }

    pub(super) fn missing(&self) -> Missing {
        self.missing
    }

    /// The socket filter, for SO_ATTACH_BPF.
    pub fn capture_fd(&self) -> BorrowedFd<'_> {
        self.skeleton.progs.netkat_capture.as_fd()
    }

    /// The guard; `None` for a sniffer.
    pub fn guard_fd(&self) -> Option<BorrowedFd<'_>> {
        self.skeleton.progs.netkat_guard.autoload().then(|| self.skeleton.progs.netkat_guard.as_fd())
    }

    /// The loopback program; `None` for a sniffer and for a flow without IPv4.
    pub fn loopback_fd(&self) -> Option<BorrowedFd<'_>> {
        self.skeleton.progs.netkat_loopback.autoload().then(|| self.skeleton.progs.netkat_loopback.as_fd())
    }

    /// The flow table, where the filter has one.
    pub fn table(&mut self) -> Option<&mut FlowTable> {
        self.table.as_mut()
    }

    /// Captures for this long what is of no flow in the table, too; the kernel sees that as well. For ACKs of SYN
    /// cookies, of which nobody can know before.
    pub fn capture_unknown(&self, for_how_long: Duration) {
        let Some(now) = monotonic() else { return };
        let until = now.saturating_add(nanoseconds(for_how_long));
        // SAFETY: the mapping is writable and lives as long as the skeleton; the number is aligned.
        unsafe { (&raw mut (*self.shared.as_ptr()).unsure_until).write_volatile(until) };
    }

    /// What has been counted up to now.
    pub fn counters(&self) -> Counters {
        // SAFETY: the mapping lives as long as the skeleton. The programs write to it at any time, hence the
        // volatile read; each number is aligned, so it is read whole.
        let counters = unsafe { (&raw const (*self.shared.as_ptr()).counters).read_volatile() };
        let types::counters { flow, fragments, control, dropped, redirected } = counters;
        Counters { flow, fragments, control, dropped, redirected }
    }

    /// How often [`Programs::beat`] must be called; `None` while all attachments undo themselves.
    pub fn heartbeat_interval(&self) -> Option<Duration> {
        self.watched.get().then_some(HEARTBEAT_INTERVAL)
    }

    /// Tells attachments that would outlive us that we are alive. Does nothing where none would.
    pub fn beat(&self) {
        if !self.watched.get() {
            return;
        }
        let Some(now) = monotonic() else { return };
        // SAFETY: the mapping is writable and lives as long as the skeleton; the number is aligned.
        unsafe { (&raw mut (*self.shared.as_ptr()).heartbeat).write_volatile(now) };
    }

    /// Starts the heartbeat, and claims the name by which others learn that the owner of these programs
    /// lives. The attachment keeps the claim.
    pub(super) fn watch(&self) -> io::Result<Rc<Owner>> {
        self.watched.set(true);
        self.beat();
        if let Some(owner) = self.owner.get() {
            return Ok(owner.clone());
        }
        let owner = Rc::new(Owner::claim(bpf::program_info(self.capture_fd())?.id)?);
        Ok(self.owner.get_or_init(|| owner).clone())
    }
}

/// What the kernel's refusal to load means. libbpf passes on EPERM and suspects RLIMIT_MEMLOCK.
fn refused(error: libbpf_rs::Error, guard: bool) -> KernelError {
    if error.kind() != libbpf_rs::ErrorKind::PermissionDenied {
        return KernelError::Load(error);
    }
    let purpose = "load its eBPF programs";
    let needed = [Some(Capability::Bpf), guard.then_some(Capability::NetAdmin)];
    let missing = needed.into_iter().flatten().find_map(|one| capability::require(one, purpose).err());
    missing.map_or(KernelError::Forbidden(error), KernelError::Capability)
}

fn log_libbpf(level: PrintLevel, message: String) {
    let message = message.trim_end();
    match level {
        PrintLevel::Debug => trace!("{message}"),
        PrintLevel::Info | PrintLevel::Warn => debug!("{message}"),
    }
}

/// The clock that bpf_ktime_get_ns() reads, in ns.
fn monotonic() -> Option<u64> {
    match clock_gettime(ClockId::CLOCK_MONOTONIC) {
        Ok(now) => Some(nanoseconds(Duration::from(now))),
        Err(error) => {
            warn!("cannot read the monotonic clock: {error}");
            None
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
