//! The engine: the link with its guards, the stack, and the movement of frames between them.
//!
//! This order of opening loses no packet and lets the kernel answer none: port lease, programs, packet
//! socket with its filter, bind, guards. The fields below stand in the order of teardown: the guards go
//! last but for the lease, which keeps the kernel silent without them.
use super::{
    Error, Task,
    children::GRACE,
    ingress::{HostTables, Ingress},
    leak::Leak,
    memory_budget::MemoryBudget,
    port::Port,
    reactor::Reactor,
    wire::{self, WireOptions},
    zones,
};
use crate::{
    host::{
        features::FeatureOverrides,
        interface::Interface,
        monitor::{Change, Monitor},
        neighbour::{self, NeighbourState},
    },
    kernel::{self, Backend, Capture, Diversion, FlowFilter, Guard, Loopback, Membership, Survival},
    link::{self, Link, LinkError, PacketSocket, Received, SocketFilter},
    neighbour::{AnnouncementSource, LocalAddress},
    net::{FiveTuple, MacAddr, Protocol},
    process::{capability::Capability, sandbox::Sandbox},
    sniffer::{SharedSink, capture_file::InterfaceStatistics, own_packets, tap::Tap},
    stack::{MAX_ENDED, Path, Probe, Settings, Stack},
    stdio::{Interest, stderr},
};
use std::{
    cell::Cell,
    collections::HashMap,
    ffi::CStr,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::AsFd,
    time::Duration,
};

/// Maximum frames received in one turn: ACKs must not wait for long.
const INGRESS_BUDGET: usize = 64;
/// Interval of [`Engine::check`] while there are flows.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Freed buffer memory that is worth a walk over the heap, in bytes.
const FREE_MEMORY: u64 = 8 << 20;
/// Longest wait for child processes at the end: [`GRACE`] to exit by themselves, after SIGTERM, and after
/// SIGKILL.
const LAST_PROCESS: Duration = GRACE.saturating_mul(3);
/// Time without a look at the link after a burst of segments: more of them come together, are joined to longer frames and
/// acknowledged at once. A NIC's interrupt moderation does the same. The ring holds the segments of some milliseconds.
const BURST_PAUSE: Duration = Duration::from_micros(150);
/// Maximum super-frame, in bytes: an IP packet's length field has 16 bits.
const MAX_FRAME: usize = 65_536;
/// Name of the process that stays in TIME-WAIT, as ps(1) shows it; at most 15 bytes.
const SURVIVOR: &CStr = c"netkat-timewait";
/// Distance of a super-frame from gso_max_size, in bytes: at the limit, the kernel segments in software.
const FRAME_MARGIN: usize = 15;

/// The groups and broadcast addresses that a UDP listener hears.
#[derive(Clone, Debug, Default)]
pub(crate) struct Groups {
    /// The addresses. The kernel gets their datagrams, too: they are for every process that listens there.
    pub addresses: Vec<IpAddr>,
    /// The listener hears nothing else: datagrams to our own addresses are the kernel's.
    pub only: bool,
    /// The interfaces at which to join, by index, if the addresses are a group.
    pub joined: Vec<u32>,
}

/// The parameters of an engine.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// The transport protocol.
    pub protocol: Protocol,
    /// Our addresses.
    pub local: Vec<IpAddr>,
    /// Our port; 0 for any free one.
    pub port: u16,
    /// The user did not name the port, so the next run takes another one.
    pub port_is_free: bool,
    /// The groups and broadcast addresses that we hear.
    pub groups: Groups,
    /// The only peers, all at one port; none for a listener. Port 0 stands for all ports of a peer.
    pub remotes: Vec<SocketAddr>,
    /// The peer is a group or a broadcast address: any host may answer, from an address and port of its own.
    pub to_group: bool,
    /// Maximum connections at once, for the flow table, where several peers or ports may talk to our port.
    /// 0 for no flow table: all packets from the only peer to our port are ours, or, for UDP, from anywhere.
    pub flows: usize,
    /// The interfaces that carry our packets.
    pub interfaces: Vec<Interface>,
    /// More interfaces that answers may arrive by. They may vanish during the run.
    pub return_interfaces: Vec<Interface>,
    /// The addresses of the port lease; an unspecified one stands for all of its family. Empty for an
    /// assumed address.
    pub lease: Vec<IpAddr>,
    /// Take a port that this host's NAT uses.
    pub force: bool,
    /// The assumed address.
    pub assumed: Option<LocalAddress>,
    /// Follow neighbours' announcements of their link addresses.
    pub hears_neighbours: bool,
    /// The back end of the guards.
    pub backend: Backend,
    /// Use the virtio-net header, which offloads depend on.
    pub vnet_header: bool,
    /// Features to treat as refused.
    pub overrides: FeatureOverrides,
    /// Let the kernel cut super-frames.
    pub segmentation: bool,
    /// Send past the programs at egress and the queueing disciplines.
    pub past_egress: bool,
    /// Receive by a ring where frames arrive segment by segment.
    pub ring: bool,
    /// Settings of the stack.
    pub settings: Settings,
    /// The sink that shows and records the packets.
    pub sink: SharedSink,
    /// The sandbox to enter once everything is open.
    pub sandbox: Sandbox,
}

/// A running stack on its link.
pub(crate) struct Engine {
    /// The stack.
    pub stack: Stack,
    link: Tap<PacketSocket>,
    /// The clock and the wait.
    pub reactor: Reactor,
    _loopback: Option<Loopback>,
    guards: Vec<Guard>,
    diversion: Diversion,
    port: Port,
    /// End of the time in which the programs capture segments of flows that are not in the table.
    unsure_until: Duration,
    /// The last wait found no frame, and nothing has been done since.
    link_empty: bool,
    /// The current turn found no frame.
    pub(super) drained: bool,
    checked_at: Duration,
    leak: Leak,
    /// Maximum of the flows' buffers since memory was last released, in bytes.
    most_memory: u64,
    monitor: Monitor,
    ingress: Ingress,
    /// Our interfaces in their last known state, by index.
    interfaces: HashMap<u32, Interface>,
    sandbox: Sandbox,
    _memberships: Vec<Membership>,
    survival: Option<Survival>,
}

impl Engine {
    /// Opens everything. Frames arrive from now on, and the kernel answers none of ours.
    ///
    /// # Errors
    /// Those of each part; what was open by then is closed.
    pub(crate) fn open(setup: &Setup, port: Port) -> Result<Engine, Error> {
        // On lo, the program at egress gives our frames the route without which the kernel drops them.
        if let Some(lo) = setup.interfaces.iter().find(|interface| interface.loopback && setup.past_egress) {
            return Err(Error::PastEgressOnLoopback(lo.name.clone()));
        }
        kernel::map_large_buffers();
        let memory = MemoryBudget::of_this_process(setup.settings.receive_buffer);
        let reactor = Reactor::new().map_err(Error::Reactor)?;
        let monitor = Monitor::open()?;
        let remotes = if setup.to_group { &[] } else { setup.remotes.as_slice() };
        let filter = FlowFilter {
            protocol: setup.protocol,
            local_addresses: setup.local.clone(),
            local_port: port.number(),
            groups: setup.groups.addresses.clone(),
            groups_only: setup.groups.only,
            remote_address: match remotes {
                [only] => Some(only.ip()),
                _ => None,
            },
            remote_port: remotes.first().map(SocketAddr::port).filter(|port| *port != 0),
            loopback_network: setup.lease.contains(&Ipv4Addr::UNSPECIFIED.into()),
            neighbour_discovery: setup.assumed.is_some() || setup.hears_neighbours,
            table: if setup.flows > 0 && !setup.to_group { setup.flows + MAX_ENDED } else { 0 },
            assumed_mac: setup.assumed.map(|assumed| assumed.mac),
        };
        let interfaces: Vec<_> = setup.interfaces.iter().chain(&setup.return_interfaces).collect();
        let mut diversion = Diversion::open(&filter, &interfaces, setup.backend, setup.overrides)?;
        let classic;
        let capture = match diversion.capture() {
            Capture::Program(program) => SocketFilter::Extended(program),
            Capture::Classic(filter) => {
                classic = own_packets::program(filter)?;
                SocketFilter::Classic(classic.instructions())
            }
        };
        let link = wire::open(
            capture,
            &WireOptions {
                interfaces: &interfaces,
                assumed: setup.assumed,
                vnet_header: setup.vnet_header,
                segmentation: setup.segmentation,
                past_egress: setup.past_egress,
                ring: setup.ring.then(|| memory.ring(setup.settings.receive_buffer)),
                overrides: setup.overrides,
                receive_buffer: memory.frames,
                blocks: true,
                sink: &setup.sink,
            },
        )?;
        let names: Vec<_> = interfaces.iter().map(|i| i.name.as_str()).collect();
        log::info!("raw socket: {}", names.join(", "));
        let mut guards = Vec::with_capacity(interfaces.len());
        let mut loopback = None;
        for interface in &interfaces {
            let (guard, on_loopback) = diversion.guard(interface, setup.backend, interfaces.len() == 1)?;
            guards.push(guard);
            loopback = loopback.or(on_loopback);
        }
        if let Some(guard) = guards.first() {
            log::info!("guard attached: {} ({:?})", names.join(", "), guard.backend());
        }
        let leak = Leak::watch(&guards);
        let mut stack = Stack::new(setup.settings.clone(), unpredictable);
        stack.limit_memory(memory.connections);
        stack.require_return_routes();
        stack.set_zones(zones::of(&interfaces));
        stack.hear_groups(setup.groups.addresses.iter().copied(), zones::hearing_groups(&interfaces));
        let memberships = match setup.groups.addresses.first() {
            Some(group) => Membership::join_all(*group, &setup.groups.joined)?,
            None => Vec::new(),
        };
        let ingress = Ingress::new(setup, port.number());
        Ok(Engine {
            stack,
            link,
            reactor,
            _loopback: loopback,
            guards,
            diversion,
            port,
            unsure_until: Duration::ZERO,
            link_empty: false,
            drained: false,
            checked_at: Duration::ZERO,
            leak,
            most_memory: 0,
            monitor,
            ingress,
            interfaces: setup.interfaces.iter().map(|i| (i.index, i.clone())).collect(),
            sandbox: setup.sandbox,
            _memberships: memberships,
            survival: (setup.port_is_free && !setup.lease.is_empty()).then(Survival::ask).flatten(),
        })
    }

    /// Returns the limits of packets on an interface, where the route allows `mtu` bytes.
    pub(crate) fn path(&self, interface: &Interface, mtu: u32) -> Path {
        let max_segments = match self.link.offloads().segmentation {
            true => interface.gso_max_segs as usize,
            false => 1,
        };
        let max_frame = (interface.gso_max_size as usize).min(MAX_FRAME).saturating_sub(FRAME_MARGIN);
        let ipv6_hop_limit = interface.ipv6_hop_limit;
        Path { mtu: mtu as usize, max_frame, max_segments, ipv6_hop_limit }
    }

    /// Returns the MTU of one of our interfaces, in bytes.
    pub(crate) fn interface_mtu(&self, interface: u32) -> Option<u32> {
        self.interfaces.get(&interface).map(|interface| interface.mtu)
    }

    /// Returns the paths of a listener's interfaces, by index.
    pub(crate) fn paths(&self, interfaces: &[Interface]) -> HashMap<u32, Path> {
        interfaces.iter().map(|i| (i.index, self.path(i, i.mtu))).collect()
    }

    /// Returns the number of packets that the guard has dropped.
    pub(crate) fn guard_drops(&mut self) -> u64 {
        self.diversion.counters().dropped
    }

    /// Returns the link address that the kernel's table has for a neighbour; see [`neighbour::judge`].
    ///
    /// # Errors
    /// [`Error::Neighbour`] where the kernel has given up.
    pub(crate) fn neighbour(&mut self, interface: u32, address: IpAddr) -> Result<Option<MacAddr>, Error> {
        let entry = self.monitor.neighbour(interface, address)?;
        Ok(neighbour::judge(entry, interface, address)?)
    }

    /// Returns whether the administrator has entered a neighbour's link address by hand.
    pub(crate) fn is_permanent(&mut self, interface: u32, address: IpAddr) -> bool {
        let entry = self.monitor.neighbour(interface, address).ok().flatten();
        entry.is_some_and(|entry| entry.state == NeighbourState::Permanent)
    }

    /// Returns our port.
    pub(crate) fn port(&self) -> u16 {
        self.port.number()
    }

    /// Enters the sandbox. A clsact filter, unlike a tcx link, has to be removed by hand, and nftables take no
    /// request without the privilege, so CAP_NET_ADMIN stays for them. Call it once everything is open that has to be opened by name.
    ///
    /// # Errors
    /// [`Error::Sandbox`].
    pub(crate) fn enter_sandbox(&self) -> Result<(), Error> {
        let needed = self.guards.iter().any(Guard::needs_privilege);
        let keep: &[Capability] = if needed { &[Capability::NetAdmin] } else { &[] };
        Ok(self.sandbox.enter(keep)?)
    }

    /// Leaves a copy of this process behind that runs this engine, where the copy does no harm: it must not hold a
    /// port that the user named, nor record frames, and its guard must be one that the kernel removes by itself,
    /// with the last process that holds it. Returns whether this is the copy.
    ///
    /// # Errors
    /// `Unsupported` where a copy would be noticed; those of fork(2).
    pub(crate) fn leave_copy(&self) -> io::Result<bool> {
        let foreign = self.link.is_recording() || self.guards.iter().any(Guard::needs_privilege);
        let Some(survival) = self.survival.as_ref().filter(|_| !foreign) else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let standard_error = stderr::descriptor();
        Ok(survival.leave_copy(SURVIVOR, standard_error.as_slice())?.is_child())
    }

    /// Takes the frames that have arrived, up to a budget, and lets `task` read data where it lies. Returns whether
    /// there were any.
    ///
    /// # Errors
    /// [`Error::Link`], unless the interface is only down; the errors of `task`.
    pub(super) fn ingress<T: Task>(&mut self, now: Duration, task: &mut T) -> Result<bool, T::Error> {
        if std::mem::take(&mut self.link_empty) {
            return Ok(false);
        }
        let mut host = HostTables { monitor: &mut self.monitor, interfaces: &self.interfaces };
        for taken in 0..INGRESS_BUDGET {
            match self.link.receive() {
                Ok(Some(received)) => {
                    let Received { frame, network, ethertype, .. } = received;
                    if !self.diversion.admits(ethertype, frame.get(network..).unwrap_or_default()) {
                        continue;
                    }
                    let shown = Received { frame: &mut *frame, ..received };
                    if let Some(data) = self.ingress.hand_over(now, shown, &mut self.stack, &mut host)
                        && let Some(data) = self.stack.received_data(now, &data, frame)
                    {
                        task.deliver(now, data)?;
                    }
                }
                Ok(None) => {
                    self.ingress.retry_parked(now, &mut self.stack, &mut host);
                    return Ok(taken > 0);
                }
                Err(error @ LinkError::Down { .. }) => {
                    log::warn!("{error}; waiting for it to come back");
                }
                Err(error) => return Err(Error::from(error).into()),
            }
        }
        Ok(true)
    }

    /// Returns whether the packet socket was empty when the current turn began.
    pub(crate) fn is_drained(&self) -> bool {
        self.drained
    }

    /// Sends what is due. Returns whether there is more.
    ///
    /// # Errors
    /// [`Error::Link`].
    pub(crate) fn egress(&mut self, now: Duration) -> Result<bool, Error> {
        self.update_flow_table(now);
        let more = self.stack.egress(now, &mut self.link)?;
        for tuple in self.stack.take_unlocated() {
            let Some(flow) = self.stack.peek(&tuple) else { continue };
            let interface = flow.next_hop().interface;
            if let Some(address) = self.monitor.next_hop(interface, tuple.local.ip(), tuple.remote.ip()) {
                log::debug!("{tuple}: the route back leads to {address}");
                self.stack.locate(&tuple, address);
            }
        }
        Ok(more)
    }

    /// Updates the flow table. Call it before sending anything that a peer could answer.
    fn update_flow_table(&mut self, now: Duration) {
        for tuple in self.stack.take_changed() {
            match self.stack.knows(&tuple) {
                true => self.add_flow(&tuple),
                false => self.diversion.remove(&tuple),
            }
        }
        if let Some(time) = self.stack.expects_cookies(now)
            && now + time > self.unsure_until + CHECK_INTERVAL
        {
            // Once a second in a SYN flood, not for each SYN.
            self.unsure_until = now + time;
            self.diversion.capture_unknown(time);
        }
    }

    /// Adds a flow to the flow table. The stack's flows are in it already.
    pub(crate) fn add_flow(&mut self, tuple: &FiveTuple) {
        if !self.diversion.insert(tuple) {
            log::warn!("the flow table is full: no packet of {tuple} will be seen");
        }
    }

    /// Sends `bytes` to the UDP port's peer as datagrams of `size` bytes; see
    /// [`crate::stack::DatagramSocket::send`].
    ///
    /// # Errors
    /// [`Error::Link`].
    pub(crate) fn send_datagrams(&mut self, bytes: &[u8], size: usize) -> Result<(), Error> {
        Ok(self.stack.datagrams.send(&mut self.link, bytes, size)?)
    }

    /// Sends a probe of the path. Returns whether it left: this host's own egress may drop it, and a packet may
    /// exceed the link's MTU.
    ///
    /// # Errors
    /// [`Error::Link`].
    pub(crate) fn send_probe(&mut self, probe: &Probe) -> Result<bool, Error> {
        match probe.send(&mut self.link) {
            Ok(()) => Ok(true),
            Err(error) if error.is_transient() => {
                log::debug!("a probe did not leave: {error}");
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the frames that the kernel received, and dropped for a full buffer, since the last call.
    pub(crate) fn statistics(&self) -> link::Statistics {
        self.link.link().statistics().unwrap_or_else(|error| {
            log::debug!("cannot tell how many frames were dropped: {error}");
            link::Statistics::default()
        })
    }

    /// Waits for one of `interests`, for a frame if `frames` is set, for a signal, or until something is due.
    ///
    /// # Errors
    /// [`Error::Interrupted`] after a signal, [`Error::Reactor`], and the errors of a change of this host.
    pub(super) fn wait(
        &mut self,
        interests: &[Interest<'_>],
        deadline: Option<Duration>,
        frames: bool,
    ) -> Result<(), Error> {
        let now = self.reactor.now();
        if now >= self.checked_at + CHECK_INTERVAL {
            self.checked_at = now;
            self.check();
        }
        let beat = self.diversion.heartbeat_interval().map(|interval| now + interval);
        self.diversion.beat();
        // An idle listener need not wake up.
        let check =
            (!self.stack.is_idle() || self.has_free_memory()).then_some(self.checked_at + CHECK_INTERVAL);
        let at = [deadline, self.stack.poll_at(), beat, check].into_iter().flatten().min();
        let frames = frames && self.stack.quantum_at(now).is_none();
        let pause = (frames && self.link.link().has_taken_burst()).then(|| now + BURST_PAUSE);
        let (frames, at) = (frames && pause.is_none(), [at, pause].into_iter().flatten().min());
        self.link.flush();
        let (unchanged, empty) = (Cell::new(true), Cell::new(true));
        let mut own = vec![Interest::readable(self.monitor.as_fd(), &unchanged)];
        own.extend(frames.then(|| Interest::readable(self.link.as_fd(), &empty)));
        let signal = self.reactor.wait(own.iter().chain(interests), at).map_err(Error::Reactor)?;
        self.link_empty = frames && empty.get();
        match signal {
            Some(signal) => Err(Error::Interrupted(signal)),
            None if unchanged.get() => Ok(()),
            None => self.follow_changes(),
        }
    }

    /// Handles changes on this host.
    fn follow_changes(&mut self) -> Result<(), Error> {
        let now = self.reactor.now();
        for change in self.monitor.changes()? {
            match change {
                Change::Neighbour { interface, address, mac } => {
                    self.stack.move_neighbour(now, interface, address, mac, AnnouncementSource::Kernel);
                    self.stack.forget_return_routes();
                }
                Change::Interface(interface) => self.change_interface(now, interface),
                Change::InterfaceGone(index) => self.lose_interface(index)?,
                // Not asked for: a connection keeps its route.
                Change::Routes => {}
                Change::Missed => {
                    self.stack.forget_return_routes();
                    for index in self.interfaces.keys().copied().collect::<Vec<_>>() {
                        match self.monitor.interface(index)? {
                            Some(interface) => self.change_interface(now, interface),
                            None => self.lose_interface(index)?,
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn change_interface(&mut self, now: Duration, is: Interface) {
        let Some(was) = self.interfaces.get_mut(&is.index) else { return };
        if *was == is {
            return;
        }
        if was.name != is.name {
            log::info!("interface {} is called {} now", was.name, is.name);
        }
        let was = std::mem::replace(was, is.clone());
        self.stack.forget_return_routes();
        self.stack.change_interface(now, &was, &is);
    }

    /// Handles the loss of an interface, which ends the flows that used it, and the run if it was the only
    /// one.
    fn lose_interface(&mut self, index: u32) -> Result<(), Error> {
        let Some(Interface { name, .. }) = self.interfaces.remove(&index) else { return Ok(()) };
        self.stack.fail_interface(index, &name);
        match self.interfaces.is_empty() {
            true => Err(LinkError::Gone { interface: name }.into()),
            false => Ok(()),
        }
    }
}

impl Engine {
    /// Waits until all child processes have exited, and ends those that take too long, or all `at_once`.
    pub(crate) fn end_children(&mut self, at_once: bool) {
        if at_once {
            let now = self.reactor.now();
            self.reactor.children.dismiss(now);
        }
        let deadline = self.reactor.now() + LAST_PROCESS;
        while !self.reactor.children.is_empty() && self.reactor.now() < deadline {
            self.diversion.beat();
            let pause = self.diversion.heartbeat_interval().unwrap_or(LAST_PROCESS);
            if let Err(error) = self.reactor.wait_for_children(pause) {
                log::debug!("cannot wait for processes: {error}");
                return;
            }
        }
    }

    /// Checks periodically what no event tells: packets that got past the guard, memory that flows have
    /// freed.
    pub(crate) fn check(&mut self) {
        self.leak.look(&self.diversion.counters());
        let memory = self.stack.memory();
        if self.has_free_memory() {
            kernel::release_free_memory();
            self.most_memory = memory;
        }
        self.most_memory = self.most_memory.max(memory);
    }

    /// Returns whether flows have freed enough memory to be worth a walk over the heap.
    fn has_free_memory(&self) -> bool {
        self.stack.memory() + FREE_MEMORY <= self.most_memory
    }
}

/// Writes the last lines and the kernel's counters to the sink.
impl Drop for Engine {
    fn drop(&mut self) {
        if self.link.is_recording() {
            match self.link.link().statistics() {
                Ok(link::Statistics { received, dropped }) => {
                    self.link.write_statistics(&InterfaceStatistics {
                        received: received.into(),
                        dropped: dropped.into(),
                    });
                }
                Err(error) => log::debug!("cannot read the packet socket's statistics: {error}"),
            }
            self.link.flush();
        }
    }
}

/// Returns a random number. The kernel's generator does not fail once it is seeded (getrandom(2)).
pub(crate) fn unpredictable() -> u64 {
    getrandom::u64().unwrap_or_else(|error| {
        log::warn!("no random numbers from the kernel ({error}): sequence numbers are predictable");
        std::process::id().into()
    })
}
