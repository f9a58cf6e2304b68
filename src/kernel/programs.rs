//! The eBPF programs: their parameters, their loading, and the memory that they share with us.
//!
//! The parameters are constants in the object's read-only data, written before the load, so the verifier
//! removes what a run does not need. Counters and the heartbeat lie in its `.bss`, which is mapped into our
//! memory: accessing them takes no system call and no privilege.
#![allow(unsafe_code)]

use super::{
    bpf,
    error::KernelError,
    fast_path::{self, FastPath},
    filter::{Filter, FlowFilter},
    flow_table::{self, FlowTable, Key},
    kernel_btf,
    liveness::LivenessSocket,
    skeleton::{NetkatSkel, NetkatSkelBuilder, types},
};
use crate::{
    host::features::FeatureOverrides,
    process::capability::{self, Capability},
};
use libbpf_rs::{
    MapCore, MapFlags, MapMut, PrintLevel, ProgramMut,
    skel::{OpenSkel, SkelBuilder},
};
use log::{LevelFilter, debug, trace, warn};
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

/// Time without a call of [`Programs::beat`] after which attachments that outlive the process become inert.
pub const HEARTBEAT_LIMIT: Duration = Duration::from_secs(1);

/// Interval of [`Programs::beat`].
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(250);

/// Packets that the programs have counted since their load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Segments and datagrams that the capture program let through; for a sniffer, all packets that matched.
    pub flow: u64,
    /// Later fragments that the capture program let through; the kernel sees them, too.
    pub fragments: u64,
    /// ICMP errors about our packets, ARP and neighbour discovery that the capture program let through, and
    /// segments that may acknowledge a SYN cookie.
    pub control: u64,
    /// Segments and datagrams that the guard dropped. If these stay behind `flow`, a program ahead of the
    /// guard lets packets past it: see [`Guard::earlier_programs`](super::Guard::earlier_programs).
    pub dropped: u64,
    /// Frames that the loopback program gave a route.
    pub redirected: u64,
}

/// The hook that a guard is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GuardHook {
    /// tc ingress of an interface.
    Interface,
    /// Netfilter's PREROUTING, for one connection.
    Netfilter,
}

/// The loaded programs of one run. The kernel unloads them when this value and all attachments and sockets
/// are gone.
pub struct Programs {
    skeleton: NetkatSkel<'static>,
    shared: NonNull<types::bss>,
    watched: Cell<bool>,
    owner: OnceCell<Rc<LivenessSocket>>,
    overrides: FeatureOverrides,
    table: Option<FlowTable>,
    fast_path: Option<Box<FastPath>>,
}

impl Programs {
    /// Loads the programs that the filter needs, with their parameters; the guard is one for an interface.
    ///
    /// # Errors
    /// [`KernelError::InvalidFilter`] and [`KernelError::TooManyAddresses`] for the filter;
    /// [`KernelError::Capability`] without CAP_BPF (CAP_SYS_ADMIN before Linux 5.8) or
    /// CAP_NET_ADMIN; [`KernelError::Forbidden`] where something else forbids it; [`KernelError::Load`] for
    /// anything else that the kernel refuses.
    pub fn load(filter: &Filter) -> Result<Programs, KernelError> {
        Programs::load_for(filter, true, GuardHook::Interface)
    }

    /// Loads the programs of one connection, with a guard at netfilter: see
    /// [`Backend::Netfilter`](super::Backend::Netfilter).
    ///
    /// # Errors
    /// As for [`Programs::load`]; [`KernelError::NoNetfilter`].
    pub fn load_for_netfilter(filter: &FlowFilter) -> Result<Programs, KernelError> {
        Programs::load_for(&Filter::Flow(filter.clone()), false, GuardHook::Netfilter)
    }

    /// Loads the programs that the filter needs; the loopback program only where packets may pass `lo`.
    ///
    /// # Errors
    /// As for [`Programs::load`]; [`KernelError::NoNetfilter`].
    pub(super) fn load_for(filter: &Filter, lo: bool, hook: GuardHook) -> Result<Programs, KernelError> {
        log_through();
        // The skeleton borrows its storage. Leaking these few bytes makes it 'static; their content is
        // dropped with the skeleton.
        let storage = Box::leak(Box::new(MaybeUninit::uninit()));
        let mut open = NetkatSkelBuilder::default().open(storage).map_err(KernelError::Load)?;
        let rodata = open.maps.rodata_data.as_deref_mut().ok_or(KernelError::Object(".rodata"))?;
        rodata.config.heartbeat_limit = nanoseconds(HEARTBEAT_LIMIT);
        let entries = filter.write(&mut rodata.config)?;
        let key = Key::random().map_err(KernelError::FlowTable)?;
        let table = match filter.flows() {
            Some(flows) => {
                let buckets = flow_table::buckets(flows);
                rodata.config.hash_key = key.0;
                rodata.config.bucket_mask = buckets - 1;
                open.maps.flow_table.set_max_entries(buckets).map_err(KernelError::Load)?;
                Some(buckets)
            }
            None => None,
        };
        open.maps.lists.set_max_entries(entries.len().max(1) as u32).map_err(KernelError::Load)?;
        let fast = filter.fast_path().is_some();
        if fast {
            let (buckets, slots) = (fast_path::BUCKETS, fast_path::SLOTS);
            open.maps.fast_table.set_max_entries(buckets).map_err(KernelError::Load)?;
            open.maps.tracks.set_max_entries(slots).map_err(KernelError::Load)?;
        }
        let (command, netfilter) = (matches!(filter, Filter::Command(_)), hook == GuardHook::Netfilter);
        let (v4, v6) = filter.only_family();
        let progs = &mut open.progs;
        progs.netkat_capture.set_autoload(!command && !v4 && !v6);
        progs.netkat_capture4.set_autoload(v4);
        progs.netkat_capture6.set_autoload(v6);
        progs.netkat_guard.set_autoload(!command && !netfilter);
        progs.netkat_guard_v4.set_autoload(netfilter && v4);
        progs.netkat_guard_v6.set_autoload(netfilter && v6);
        progs.netkat_admit.set_autoload(command);
        progs.netkat_guard_all.set_autoload(command);
        progs.netkat_door.set_autoload(fast);
        progs.netkat_leave.set_autoload(fast);
        progs.netkat_wall.set_autoload(fast);
        let loopback = lo && matches!(filter, Filter::Flow(flow) if flow.has_ipv4());
        progs.netkat_loopback.set_autoload(loopback);
        if netfilter {
            let function = kernel_btf::function(bpf::READING_FUNCTION).map_err(KernelError::NoNetfilter)?;
            for guard in [&mut progs.netkat_guard_v4, &mut progs.netkat_guard_v6] {
                bpf::call_function(guard, function).map_err(KernelError::NoNetfilter)?;
            }
        }

        let mut skeleton = open.load().map_err(refused)?;
        for entry in entries {
            let key = entry.map(u64::to_ne_bytes);
            skeleton.maps.lists.update(key.as_flattened(), &[0], MapFlags::ANY).map_err(KernelError::Load)?;
        }
        let shared = skeleton.maps.bss_data.as_deref_mut().ok_or(KernelError::Object(".bss"))?;
        let shared = NonNull::from(shared);
        let map = skeleton.maps.flow_table.as_fd();
        let table = table.map(|buckets| FlowTable::map(map, buckets, key)).transpose();
        let (flows, tracks) = (skeleton.maps.fast_table.as_fd(), skeleton.maps.tracks.as_fd());
        let fast_path = filter.fast_path().map(|spec| FastPath::map(spec, flows, tracks, key)).transpose();
        Ok(Programs {
            table: table.map_err(KernelError::FlowTable)?,
            fast_path: fast_path.map_err(KernelError::FlowTable)?.map(Box::new),
            skeleton,
            shared,
            watched: Cell::new(false),
            owner: OnceCell::new(),
            overrides: FeatureOverrides::default(),
        })
    }

    /// Returns the programs with feature overrides for their attachment.
    #[must_use]
    pub(crate) fn with_overrides(self, overrides: FeatureOverrides) -> Programs {
        Programs { overrides, ..self }
    }

    /// Returns the feature overrides for attachments.
    pub(super) fn overrides(&self) -> FeatureOverrides {
        self.overrides
    }

    /// Returns the socket filter, for SO_ATTACH_BPF.
    pub fn capture_fd(&self) -> BorrowedFd<'_> {
        let progs = &self.skeleton.progs;
        loaded([&progs.netkat_capture4, &progs.netkat_capture6, &progs.netkat_admit, &progs.netkat_capture])
    }

    /// Returns the guard.
    pub fn guard_fd(&self) -> BorrowedFd<'_> {
        let progs = &self.skeleton.progs;
        loaded([&progs.netkat_guard_v4, &progs.netkat_guard_v6, &progs.netkat_guard_all, &progs.netkat_guard])
    }

    /// Returns whether there is a guard for netfilter of IPv4 or, second, of IPv6.
    pub(super) fn guards_at_netfilter(&self) -> (bool, bool) {
        let progs = &self.skeleton.progs;
        (progs.netkat_guard_v4.autoload(), progs.netkat_guard_v6.autoload())
    }

    /// Returns the loopback program; `None` for a flow without IPv4, or without lo.
    pub fn loopback_fd(&self) -> Option<BorrowedFd<'_>> {
        self.skeleton.progs.netkat_loopback.autoload().then(|| self.skeleton.progs.netkat_loopback.as_fd())
    }

    /// Returns the flow table, if the filter has one.
    pub fn table(&mut self) -> Option<&mut FlowTable> {
        self.table.as_mut()
    }

    /// Returns the fast path, once, if the filter has one.
    pub fn take_fast_path(&mut self) -> Option<FastPath> {
        self.fast_path.take().map(|path| *path)
    }

    /// Returns the programs of the fast path.
    pub(super) fn fast_path_programs(&self) -> FastPathPrograms<'_> {
        FastPathPrograms {
            leave: self.leave_fd(),
            wall: self.skeleton.progs.netkat_wall.as_fd(),
            successor: &self.skeleton.maps.successor,
        }
    }

    /// Returns the program at tc of the command's device; only where there is a fast path.
    pub fn leave_fd(&self) -> BorrowedFd<'_> {
        self.skeleton.progs.netkat_leave.as_fd()
    }

    /// Returns the socket filter of the command's device, for SO_ATTACH_BPF; only where there is a fast path.
    pub fn door_fd(&self) -> BorrowedFd<'_> {
        self.skeleton.progs.netkat_door.as_fd()
    }

    /// Makes the capture program let through segments of flows that are not in the table, for this long;
    /// the kernel sees them, too. One of them may acknowledge a SYN cookie.
    pub fn capture_unknown(&self, period: Duration) {
        let Some(now) = monotonic() else { return };
        let until = now.saturating_add(nanoseconds(period));
        // SAFETY: the mapping is writable and lives as long as the skeleton; the number is aligned.
        unsafe { (&raw mut (*self.shared.as_ptr()).unsure_until).write_volatile(until) };
    }

    /// Returns the counters.
    pub fn counters(&self) -> Counters {
        // SAFETY: the mapping lives as long as the skeleton. The programs write to it at any time, hence the
        // volatile read; each number is aligned, so it is read whole.
        let counters = unsafe { (&raw const (*self.shared.as_ptr()).counters).read_volatile() };
        let types::counters { flow, fragments, control, dropped, redirected } = counters;
        Counters { flow, fragments, control, dropped, redirected }
    }

    /// Returns the interval at which to call [`Programs::beat`]; `None` while the kernel undoes all
    /// attachments.
    pub fn heartbeat_interval(&self) -> Option<Duration> {
        self.watched.get().then_some(HEARTBEAT_INTERVAL)
    }

    /// Keeps attachments active that would outlive the process; does nothing where there are none.
    pub fn beat(&self) {
        if !self.watched.get() {
            return;
        }
        let Some(now) = monotonic() else { return };
        // SAFETY: the mapping is writable and lives as long as the skeleton; the number is aligned.
        unsafe { (&raw mut (*self.shared.as_ptr()).heartbeat).write_volatile(now) };
    }

    /// Starts the heartbeat, and opens the socket that shows other netkats that the owner of these programs
    /// lives. The attachment keeps the socket.
    ///
    /// # Errors
    /// The error of bpf(2) or of the system calls that open the socket.
    pub(super) fn start_heartbeat(&self) -> io::Result<Rc<LivenessSocket>> {
        self.watched.set(true);
        self.beat();
        if let Some(owner) = self.owner.get() {
            return Ok(owner.clone());
        }
        let owner = Rc::new(LivenessSocket::open(bpf::program_info(self.capture_fd())?.id)?);
        Ok(self.owner.get_or_init(|| owner).clone())
    }
}

/// Returns the one of several programs that was loaded.
fn loaded<'a>(programs: [&'a ProgramMut<'a>; 4]) -> BorrowedFd<'a> {
    let [.., last] = programs;
    programs.into_iter().find(|program| program.autoload()).unwrap_or(last).as_fd()
}

/// The programs of a fast path at the command's device, and the array that joins them.
pub(super) struct FastPathPrograms<'a> {
    pub leave: BorrowedFd<'a>,
    pub wall: BorrowedFd<'a>,
    pub successor: &'a MapMut<'a>,
}

/// Explains the kernel's refusal to load. libbpf passes on EPERM and suspects RLIMIT_MEMLOCK.
fn refused(error: libbpf_rs::Error) -> KernelError {
    if error.kind() != libbpf_rs::ErrorKind::PermissionDenied {
        return KernelError::Load(error);
    }
    let purpose = "load its eBPF programs";
    let needed = [Capability::Bpf, Capability::NetAdmin];
    let missing = needed.into_iter().find_map(|one| capability::require(one, purpose).err());
    missing.map_or(KernelError::Forbidden(error), KernelError::Capability)
}

/// Makes libbpf's messages netkat's. libbpf writes hundreds for a load, so it writes only those that are shown.
pub(super) fn log_through() {
    let level = match log::max_level() {
        LevelFilter::Trace => Some(PrintLevel::Debug),
        LevelFilter::Debug => Some(PrintLevel::Info),
        _ => None,
    };
    libbpf_rs::set_print(level.map(|level| (level, log_libbpf as fn(PrintLevel, String))));
}

fn log_libbpf(level: PrintLevel, message: String) {
    let message = message.trim_end();
    match level {
        PrintLevel::Debug => trace!("{message}"),
        PrintLevel::Info | PrintLevel::Warn => debug!("{message}"),
    }
}

/// Returns the clock that bpf_ktime_get_ns() reads, in ns.
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
