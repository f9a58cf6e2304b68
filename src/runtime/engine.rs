//! What every mode that speaks runs on: the link with its guards, the stack, and the loop that moves frames
//! between them.
//!
//! Order at start, so that no packet is lost and the kernel never answers one: port lease, programs, packet
//! socket with its filter, bind, guards. The fields below stand in the order of teardown: the guards go
//! last but for the lease, which keeps the kernel silent without them.
use super::{
    Error,
    children::GRACE,
    doorkeeper::{Doorkeeper, Host},
    memory::Memory,
    port::Port,
    reactor::Reactor,
};
use crate::{
    host::{
        features::Missing,
        interface::Interface,
        watch::{Change, Watch as HostWatch},
    },
    kernel::{self, Backend, Counters, Filter, FlowFilter, Guard, Loopback, Programs},
    link::{self, Link, LinkError, PacketSocket},
    net::{FiveTuple, Protocol},
    process::{capability::Capability, sandbox::Sandbox},
    sniffer::{LinkType, SharedSink, capture_file::InterfaceStatistics, tap::Tap},
    stack::{MAX_ENDED, Outlet, Path, Persona, Settings, Source, Stack},
    stdio::Interest,
};
use std::{
    cell::Cell,
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::AsFd,
    time::Duration,
};

/// The most frames taken in one turn: ACKs must not wait for long.
const INGRESS_BUDGET: usize = 64;
/// How often to look after what nobody tells us of, while there are flows.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// What flows must have left before the heap is walked to give it back, in bytes.
const FREE_MEMORY: u64 = 8 << 20;
/// How long to wait for processes at the end: their time to go by themselves, after SIGTERM, and after SIGKILL.
const LAST_PROCESS: Duration = GRACE.saturating_mul(3);
/// A super-frame's length field is an IP packet's: 16 bits.
const MAX_FRAME: usize = 65_536;
/// What a super-frame must leave free of gso_max_size, in bytes: at the limit, the kernel segments in software.
const FRAME_MARGIN: usize = 15;

/// What to open.
#[derive(Clone, Debug)]
pub struct Setup {
    pub protocol: Protocol,
    /// Our addresses.
    pub local: Vec<IpAddr>,
    /// Our port; 0 for any free one.
    pub port: u16,
    /// The only peer, if there is one; port 0 stands for all of its ports.
    pub remote: Option<SocketAddr>,
    /// How many connections may be there or begin at once, where several peers or ports may talk to our port: only
    /// their packets are ours. 0: all that comes from `remote` to our port is ours, or, for UDP, from anybody.
    pub flows: usize,
    /// The interfaces that our packets come in and go out by.
    pub interfaces: Vec<Interface>,
    /// More interfaces that answers may come in by. They may go while we run.
    pub ways_back: Vec<Interface>,
    /// The addresses at which the port is held; an unspecified one stands for all of its family. None where
    /// the address is not this host's.
    pub lease: Vec<IpAddr>,
    /// Listen at a port that rules of this host translate, too.
    pub force: bool,
    /// The host to be instead of this one.
    pub persona: Option<Persona>,
    /// Listen to what neighbours say of their link addresses.
    pub hears_neighbours: bool,
    pub backend: Backend,
    pub vnet_header: bool,
    /// What the kernel is taken to lack.
    pub missing: Missing,
    pub segmentation: bool,
    pub settings: Settings,
    /// Shows and records the packets.
    pub sink: SharedSink,
    /// What is given up once everything is open.
    pub sandbox: Sandbox,
}

/// A running stack on its link.
pub struct Engine {
    pub stack: Stack,
    link: Tap<PacketSocket>,
    pub reactor: Reactor,
    _loopback: Option<Loopback>,
    guards: Vec<Guard>,
    programs: Programs,
    port: Port,
    /// Until when the programs capture what is of no flow.
    unsure_until: Duration,
    /// The last wait said that no frame is there, and nothing has been done since.
    link_empty: bool,
    /// The last turn found no frame.
    pub(super) drained: bool,
    checked_at: Duration,
    leak: Leak,
    /// The most that the flows' buffers occupied since memory was last given back, in bytes.
    most_memory: u64,
    watch: HostWatch,
    door: Doorkeeper,
    /// The interfaces as we know them, by index.
    interfaces: HashMap<u32, Interface>,
    /// The programs that ran before the guards when these were attached; asking later takes a capability.
    ahead: Vec<String>,
    sandbox: Sandbox,
}

impl Engine {
    /// Opens everything; frames arrive from now on, and the kernel answers none of ours.
    pub fn open(setup: &Setup, port: Port) -> Result<Engine, Error> {
        kernel::map_large_buffers();
        let memory = Memory::of_this_process(setup.settings.receive_buffer);
        let reactor = Reactor::new().map_err(Error::Reactor)?;
        let watch = HostWatch::open()?;
        let programs = Programs::load(&Filter::Flow(FlowFilter {
            protocol: setup.protocol,
            local_addresses: setup.local.clone(),
            local_port: port.number(),
            remote_address: setup.remote.map(|r| r.ip()),
            remote_port: setup.remote.map(|r| r.port()).filter(|port| *port != 0),
            loopback_network: setup.lease.contains(&Ipv4Addr::UNSPECIFIED.into()),
            neighbour_discovery: setup.persona.is_some() || setup.hears_neighbours,
            table: if setup.flows > 0 { setup.flows + MAX_ENDED } else { 0 },
            assumed_mac: setup.persona.map(|persona| persona.mac),
        }))?
        .without(setup.missing);
        let interfaces: Vec<_> = setup.interfaces.iter().chain(&setup.ways_back).collect();
        let single = match interfaces.as_slice() {
            [only] => Some(only.index),
            _ => None,
        };
        let mut link = PacketSocket::open(&link::Options {
            interface: single,
            capture: programs.capture_fd(),
            vnet_header: setup.vnet_header,
            missing: setup.missing,
            segmentation: setup.segmentation,
            outgoing: false,
            timestamps: false,
            receive_buffer: memory.frames,
        })?;
        if let Some(persona) = setup.persona {
            link.set_promiscuous(persona.interface)?;
        }
        link.bind()?;
        let watched =
            interfaces.iter().map(|i| (i.index, i.name.as_str(), LinkType::from_arphrd(i.hardware)));
        let link = Tap::new(link, setup.sink.clone(), watched, true)?;
        let names: Vec<_> = interfaces.iter().map(|i| i.name.as_str()).collect();
        log::info!("raw socket: {}", names.join(", "));
        let mut guards = Vec::with_capacity(interfaces.len());
        let mut loopback = None;
        for interface in interfaces {
            guards.push(Guard::attach(&programs, interface.index, setup.backend)?);
            if interface.loopback && setup.local.iter().any(IpAddr::is_ipv4) {
                loopback = Some(Loopback::attach(&programs, interface.index, setup.backend)?);
            }
        }
        if let Some(guard) = guards.first() {
            log::info!("guard attached: {} ({:?})", names.join(", "), guard.backend());
        }
        let ahead = guards.iter().flat_map(|guard| guard.ahead().unwrap_or_default()).collect();
        let mut stack = Stack::new(setup.settings.clone(), unpredictable);
        stack.limit_memory(memory.connections);
        stack.ask_ways_back();
        let door = Doorkeeper::new(setup, port.number());
        Ok(Engine {
            stack,
            link,
            reactor,
            _loopback: loopback,
            guards,
            programs,
            port,
            unsure_until: Duration::ZERO,
            link_empty: false,
            drained: false,
            checked_at: Duration::ZERO,
            leak: Leak::default(),
            most_memory: 0,
            watch,
            door,
            interfaces: setup.interfaces.iter().map(|i| (i.index, i.clone())).collect(),
            ahead,
            sandbox: setup.sandbox,
        })
    }

    /// What packets may measure on an interface, where the route allows `mtu` bytes.
    pub fn path(&self, interface: &Interface, mtu: u32) -> Path {
        let max_segments = match self.link.offloads().segmentation {
            true => interface.gso_max_segs as usize,
            false => 1,
        };
        let max_frame = (interface.gso_max_size as usize).min(MAX_FRAME).saturating_sub(FRAME_MARGIN);
        Path { mtu: mtu as usize, max_frame, max_segments }
    }

    /// The paths of a listener's interfaces.
    pub fn paths(&self, interfaces: &[Interface]) -> HashMap<u32, Path> {
        interfaces.iter().map(|i| (i.index, self.path(i, i.mtu))).collect()
    }

    /// Packets that the guard kept from the kernel so far.
    pub fn kept(&self) -> u64 {
        self.programs.counters().dropped
    }

    /// Our port.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Gives up all that the rest of the run and the teardown do not need: a clsact filter, unlike a tcx link,
    /// has to be taken away by hand. Whatever is opened by its name must be open by now.
    pub fn enter_sandbox(&self) -> Result<(), Error> {
        let clsact = self.guards.iter().any(|guard| guard.backend() == Backend::Clsact);
        let keep: &[Capability] = if clsact { &[Capability::NetAdmin] } else { &[] };
        Ok(self.sandbox.enter(keep)?)
    }

    /// Takes what has arrived, up to a budget; whether anything had. `outlet` may take data where it lies; see
    /// [`Stack::ingress_to`].
    pub(super) fn ingress(&mut self, now: Duration, outlet: &mut Outlet<'_>) -> Result<bool, Error> {
        if std::mem::take(&mut self.link_empty) {
            return Ok(false);
        }
        let mut host = Host { watch: &mut self.watch, interfaces: &self.interfaces };
        for taken in 0..INGRESS_BUDGET {
            match self.link.receive() {
                Ok(Some(received)) => self.door.show(now, received, &mut self.stack, &mut host, outlet),
                Ok(None) => {
                    self.door.show_parked(now, &mut self.stack, &mut host, outlet);
                    return Ok(taken > 0);
                }
                Err(error @ LinkError::Down { .. }) => {
                    log::warn!("{error}; waiting for it to come back");
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// Whether nothing waited in the packet socket when the current turn began.
    pub fn is_drained(&self) -> bool {
        self.drained
    }

    /// Sends what is due; whether there is more.
    pub fn egress(&mut self, now: Duration) -> Result<bool, Error> {
        self.update_flow_table(now);
        let more = self.stack.egress(now, &mut self.link)?;
        for tuple in self.stack.take_unlocated() {
            let Some(flow) = self.stack.peek(&tuple) else { continue };
            let interface = flow.next_hop().interface;
            if let Some(address) = self.watch.next_hop(interface, tuple.local.ip(), tuple.remote.ip()) {
                log::debug!("{tuple}: the way back leads to {address}");
                self.stack.locate(&tuple, address);
            }
        }
        Ok(more)
    }

    /// Tells the programs which flows are ours, before anything is sent that a peer could answer.
    fn update_flow_table(&mut self, now: Duration) {
        for tuple in self.stack.take_changed() {
            match self.stack.knows(&tuple) {
                true => self.claim(&tuple),
                false => self.programs.table().into_iter().for_each(|table| table.remove(&tuple)),
            }
        }
        if let Some(time) = self.stack.expects_strangers(now)
            && now + time > self.unsure_until + CHECK_INTERVAL
        {
            // In a flood once a second, not for each SYN.
            self.unsure_until = now + time;
            self.programs.capture_unknown(time);
        }
    }

    /// Makes a flow's packets ours from now on. Where the stack knows the flow, they are already.
    pub fn claim(&mut self, tuple: &FiveTuple) {
        if let Some(table) = self.programs.table()
            && !table.insert(tuple)
        {
            log::warn!("the flow table is full: no packet of {tuple} will be seen");
        }
    }

    /// Sends `bytes` to the UDP port's peer as datagrams of `size` bytes; see [`stack::DatagramSocket::send`].
    pub fn send_datagrams(&mut self, bytes: &[u8], size: usize) -> Result<(), Error> {
        Ok(self.stack.datagrams.send(&mut self.link, bytes, size)?)
    }

    /// What the kernel received for us, and dropped for want of room, since the last call.
    pub fn statistics(&self) -> link::Statistics {
        self.link.link().statistics().unwrap_or_else(|error| {
            log::debug!("cannot tell how many frames were dropped: {error}");
            link::Statistics::default()
        })
    }

    /// Waits for one of `interests`, for a frame if `frames` are to be taken, for a signal, or for the time when
    /// something is due.
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
        let beat = self.programs.heartbeat_interval().map(|interval| now + interval);
        self.programs.beat();
        // An idle listener need not wake.
        let check =
            (!self.stack.is_idle() || self.has_free_memory()).then_some(self.checked_at + CHECK_INTERVAL);
        let at = [deadline, self.stack.poll_at(), beat, check].into_iter().flatten().min();
        self.link.flush();
        let (unchanged, empty) = (Cell::new(true), Cell::new(true));
        let mut own = vec![Interest::readable(self.watch.as_fd(), &unchanged)];
        own.extend(frames.then(|| Interest::readable(self.link.as_fd(), &empty)));
        let signal = self.reactor.wait(own.iter().chain(interests), at).map_err(Error::Reactor)?;
        self.link_empty = frames && empty.get();
        match signal {
            Some(signal) => Err(Error::Interrupted(signal)),
            None if unchanged.get() => Ok(()),
            None => self.follow_changes(),
        }
    }

    /// Takes in what has changed on this host.
    fn follow_changes(&mut self) -> Result<(), Error> {
        let now = self.reactor.now();
        for change in self.watch.changes()? {
            match change {
                Change::Neighbour { interface, address, mac } => {
                    self.stack.move_neighbour(now, interface, address, mac, Source::Kernel);
                    self.stack.forget_ways_back();
                }
                Change::Interface(interface) => self.change_interface(now, interface),
                Change::InterfaceGone(index) => self.lose_interface(index)?,
                Change::Missed => {
                    self.stack.forget_ways_back();
                    for index in self.interfaces.keys().copied().collect::<Vec<_>>() {
                        match self.watch.interface(index)? {
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
        self.stack.forget_ways_back();
        self.stack.change_interface(now, &was, &is);
    }

    /// An interface is gone: that is the end if it was the only one, and of the flows that used it.
    fn lose_interface(&mut self, index: u32) -> Result<(), Error> {
        let Some(Interface { name, .. }) = self.interfaces.remove(&index) else { return Ok(()) };
        self.stack.strand(index, &name);
        match self.interfaces.is_empty() {
            true => Err(LinkError::Gone { interface: name }.into()),
            false => Ok(()),
        }
    }
}

impl Engine {
    /// Leaves no process behind: asks all to go, once they have had their time, and waits for them.
    pub fn end_children(&mut self, at_once: bool) {
        if at_once {
            let now = self.reactor.now();
            self.reactor.children.dismiss(now);
        }
        let deadline = self.reactor.now() + LAST_PROCESS;
        while !self.reactor.children.is_empty() && self.reactor.now() < deadline {
            self.programs.beat();
            let pause = self.programs.heartbeat_interval().unwrap_or(LAST_PROCESS);
            if let Err(error) = self.reactor.wait_for_children(pause) {
                log::debug!("cannot wait for processes: {error}");
                return;
            }
        }
    }

    /// Looks after what nobody tells us of: packets that the guard did not get, memory that flows do not need any more.
    pub fn check(&mut self) {
        if self.leak.grew(&self.programs.counters()) {
            let who = match self.ahead.as_slice() {
                [] => "a program that was attached at tc ingress after netkat had started".to_owned(),
                names => names.join(", "),
            };
            log::warn!(
                "{who}, ahead of the guard, lets our packets reach the kernel, which may reset the connection"
            );
        }
        let memory = self.stack.memory();
        if self.has_free_memory() {
            kernel::release_free_memory();
            self.most_memory = memory;
        }
        self.most_memory = self.most_memory.max(memory);
    }

    /// Whether flows have left enough memory to be worth a walk over the heap.
    fn has_free_memory(&self) -> bool {
        self.stack.memory() + FREE_MEMORY <= self.most_memory
    }
}

/// Packets that we saw and the guard did not.
#[derive(Debug, Default)]
struct Leak {
    /// At the last look. What arrived before the guard was attached counts, too, and so may a packet that is
    /// just between the two.
    seen: Option<u64>,
    warned: bool,
}

impl Leak {
    /// Whether there are more than at the first look: told once.
    fn grew(&mut self, counters: &Counters) -> bool {
        let leaked = counters.flow.saturating_sub(counters.dropped);
        let first = *self.seen.get_or_insert(leaked);
        let news = !self.warned && leaked > first + 1;
        self.warned |= news;
        news
    }
}

/// The last lines, and what the kernel counted.
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

/// A number that nobody can predict; the kernel's generator does not fail once it is seeded (getrandom(2)).
pub(super) fn unpredictable() -> u64 {
    getrandom::u64().unwrap_or_else(|error| {
        log::warn!("no random numbers from the kernel ({error}): sequence numbers are predictable");
        std::process::id().into()
    })
}
