//! The watch over one network namespace: trace table, trace, tap, rules, conntrack and counters, from before
//! the kernel's attempt until after it.
use super::{failed, legacy::LegacyWatch, ruleset::Ruleset};
use crate::{
    diagnose::{
        Ends, LegacyEvidence, Observation, PacketHeader, PacketKind, Programs, Refused, Seen, SourceState,
        Space, Step, Subject, join, rule_text::Headers,
    },
    host::{
        conntrack,
        interface::{self, Interface},
        netlink::NetlinkError,
        nf_trace::{TraceEvent, TraceKind, TraceMonitor, TraceVerdict},
        policy_route::PolicyFlow,
        route,
        rules::Family,
        statistics::Statistics,
        sysctl,
    },
    kernel::{LegacyBlob, ListedProgram, TraceTable, egress_programs, ingress_programs, xdp_programs},
    link::Observer,
    net::{FiveTuple, Protocol},
    process::namespace::inside,
    report::Error,
};
use nix::errno::Errno;
use std::{
    collections::HashMap,
    fs::{self, File},
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, BorrowedFd},
    thread::{self, JoinHandle},
    time::Duration,
};

/// Maximum devices with a chain of their own at ingress.
const MAX_DEVICES: usize = 64;
/// Maximum events of the attempt's packets that are kept.
const MAX_STEPS: usize = 20_000;

/// Parameters of a watch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings<'a> {
    pub name: &'a str,
    /// The attempt's end.
    pub end: SocketAddr,
    /// The interface that the route leads by, of whose ingress rules the first chain is.
    pub interface: Option<&'a str>,
    /// How long rules may mark packets after netkat is killed, where the trace table has no owner.
    pub lifetime: Duration,
    /// Give the trace table an owner where the kernel can.
    pub owner: bool,
}

/// How far the attempt's packets were stopped already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stopped {
    /// A rule has ended the SYN, and would do so again.
    pub syn: bool,
    /// A rule or a policy has ended a packet.
    pub any: bool,
}

/// A watch over one namespace.
pub(super) struct Watch {
    name: String,
    /// The interface that the route leads by.
    interface: Option<String>,
    namespace: Option<File>,
    traced: Option<Traced>,
    /// Why there is no trace.
    untraced: Option<String>,
    tap: Observer,
    seen: Vec<Seen>,
    interfaces: Vec<Interface>,
    before: Statistics,
    ends: Ends,
    connection: Option<conntrack::Connection>,
    legacy: LegacyWatch,
    /// What the counters say, once they were asked.
    questioned: Option<LegacyEvidence>,
    pub stopped: Stopped,
}

/// Network and transport header.
type RawHeaders = (Vec<u8>, Vec<u8>);

/// What the trace needs.
struct Traced {
    monitor: TraceMonitor,
    table: TraceTable,
    ruleset: Ruleset,
    steps: Vec<Step>,
    /// By trace id: the headers of the packet, if it is the attempt's.
    packets: HashMap<u32, Option<RawHeaders>>,
}

impl Watch {
    /// Opens everything in the namespace, the calling thread's if there is none.
    ///
    /// # Errors
    /// Where the tap cannot be opened, or the trace for lack of CAP_NET_ADMIN. A kernel without nf_tables
    /// costs the trace.
    pub fn open(settings: &Settings, namespace: Option<File>) -> Result<Watch, Error> {
        let opened = inside(namespace.as_ref(), || Watch::open_here(settings));
        let watch = opened.map_err(failed("enter the network namespace"))??;
        Ok(Watch { namespace, ..watch })
    }

    fn open_here(settings: &Settings) -> Result<Watch, Error> {
        let family = if settings.end.is_ipv4() { Family::V4 } else { Family::V6 };
        let interfaces = interface::all()?;
        let before = Statistics::read();
        let tap = Observer::open(settings.end.port())?;
        let (traced, untraced) = match Traced::open(settings, &interfaces) {
            Ok(traced) => (Some(traced), None),
            Err(error) if error.errno() == Some(Errno::EPERM) => {
                return Err(failed("trace packets")(error.into()));
            }
            Err(error) => (None, Some(format!("nf_tables: {error}"))),
        };
        let ends = Ends { local: vec![settings.end], sequence: None };
        Ok(Watch {
            name: settings.name.to_owned(),
            interface: settings.interface.map(str::to_owned),
            namespace: None,
            traced,
            untraced,
            tap,
            seen: Vec::new(),
            interfaces,
            before,
            ends,
            connection: None,
            legacy: LegacyWatch::open(family),
            questioned: None,
            stopped: Stopped::default(),
        })
    }

    /// Returns the descriptors that become readable when something was seen.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [self.tap.as_fd()].into_iter().chain(self.traced.as_ref().map(|traced| traced.monitor.as_fd()))
    }

    /// Returns the sequence number of the attempt's SYN, once it was seen.
    pub fn sequence(&self) -> Option<u32> {
        self.ends.sequence
    }

    /// Takes what was seen.
    ///
    /// # Errors
    /// Those of the sockets.
    pub fn collect(&mut self) -> Result<(), Error> {
        for packet in self.tap.take().map_err(failed("read the tap"))? {
            let Some(header) = PacketHeader::parse(&packet.bytes) else { continue };
            self.ends.learn(&header);
            let Some(subject) = self.ends.subject(&header) else { continue };
            let interface = self.interfaces.iter().find(|interface| interface.index == packet.interface);
            let interface = interface.map_or_else(|| packet.interface.to_string(), |i| i.name.clone());
            self.seen.push(Seen { subject, header, outgoing: packet.outgoing, interface });
        }
        let Watch { traced: Some(traced), ends, stopped, .. } = self else { return Ok(()) };
        traced.collect(ends, stopped).map_err(|error| failed("read the trace")(error.into()))
    }

    /// Asks conntrack for the attempt's connection. A translation of its source is watched from now on:
    /// answers carry that address until they are translated back.
    pub fn ask_conntrack(&mut self, remote: SocketAddr) {
        let Some(local) = self.ends.local.first().copied() else { return };
        let flow = FiveTuple { protocol: Protocol::Tcp, local, remote };
        let found = inside(self.namespace.as_ref(), || conntrack::opened_by(&flow));
        let connection = match found {
            Ok(Ok(Some(connection))) => connection,
            Ok(Err(error)) => return log::debug!("cannot ask conntrack: {error}"),
            _ => return,
        };
        let end = connection.answers_to();
        self.connection = Some(connection);
        if !self.ends.local.contains(&end) {
            log::debug!("answers come to {end} first");
            self.ends.local.push(end);
            if let Err(error) = self.tap.add(end.port()) {
                log::debug!("{error}");
            }
            if let Some(traced) = &mut self.traced
                && let Err(error) = traced.table.watch(end)
            {
                log::debug!("cannot trace packets to {end}: {error}");
            }
        }
    }

    /// Asks the counters of iptables-legacy which rule ended the attempt's packets, where no traced rule did.
    /// `probe` makes so many further connections.
    pub fn question_legacy(&mut self, probe: &dyn Fn(usize)) {
        if !self.legacy.is_present() || self.stopped.any {
            return;
        }
        let of = |subject, outgoing| {
            self.seen.iter().any(|seen| seen.subject == subject && seen.outgoing == outgoing)
        };
        let left = of(Subject::Syn, true);
        let answered =
            [Subject::SynAck, Subject::Reset, Subject::Icmp].iter().any(|subject| of(*subject, false));
        if left && !answered {
            // Beyond this host: no rule of it is to blame.
            return;
        }
        let namespace = self.namespace.as_ref();
        let read = || inside(namespace, || self.legacy.read()).unwrap_or_default();
        let round = |connections| {
            probe(connections);
            read()
        };
        self.questioned = Some(self.legacy.evidence(read(), left, Some(round)));
    }

    /// Ends the watch, and returns what was seen. `flow` is the attempt as policy rules look at it. A thread in
    /// `closing` removes the trace table: the kernel takes some 12 ms to free an owned one.
    pub fn finish(
        mut self,
        flow: &PolicyFlow,
        cgroup_egress: &[String],
        closing: &mut Vec<JoinHandle<()>>,
    ) -> Space {
        let namespace = self.namespace.take();
        let finished = inside(namespace.as_ref(), || self.finish_here(flow, cgroup_egress, closing));
        finished.unwrap_or_else(|error| {
            log::debug!("cannot return to a network namespace: {error}");
            Space::default()
        })
    }

    fn finish_here(
        mut self,
        flow: &PolicyFlow,
        cgroup_egress: &[String],
        closing: &mut Vec<JoinHandle<()>>,
    ) -> Space {
        let after = Statistics::read();
        let mut trace = SourceState { why: self.untraced.clone(), ..SourceState::default() };
        let (mut observations, mut ruleset_changed) = (Vec::new(), false);
        if let Some(mut traced) = self.traced.take() {
            trace = SourceState {
                used: true,
                why: None,
                events: traced.monitor.events,
                lost: traced.monitor.lost,
            };
            ruleset_changed = traced.ruleset.has_changed(traced.table.commits());
            observations = join(traced.steps, &mut self.ends);
            closing.push(thread::spawn(move || drop(traced.table)));
        }
        let arrived = self.seen.iter().find(|seen| !seen.outgoing).map(|seen| seen.header.source.ip());
        let back = arrived.and_then(|sender| way_back(sender, flow));
        let strict = self.interfaces.iter().map(|interface| &interface.name);
        let strict = strict.filter(|name| sysctl::is_reverse_path_strict(name).unwrap_or(false)).cloned();
        let programs = Programs { cgroup_egress: cgroup_egress.to_vec(), ..self.programs() };
        let legacy = self.questioned.take().unwrap_or_else(|| {
            self.legacy.evidence(self.legacy.read(), true, None::<fn(usize) -> Vec<LegacyBlob>>)
        });
        Space {
            legacy,
            programs,
            refused_mark: refused_mark(&observations, flow),
            queues: queues(),
            strict: strict.collect(),
            way_back: back,
            reverse_path_drops: after.moved(&self.before, "TcpExt.IPReversePathFilter"),
            name: self.name.clone(),
            observations,
            seen: self.seen,
            answers_from: self.connection.map(|connection| connection.answers_from()),
            trace,
            tap: SourceState { used: true, ..SourceState::default() },
            conntrack: SourceState { used: self.connection.is_some(), ..SourceState::default() },
            ruleset_changed,
        }
    }
}

impl Watch {
    /// Lists the programs that the attempt's packets pass at the devices: that of the route, and that by which an
    /// answer came in.
    fn programs(&self) -> Programs {
        let index = |name: &str| self.interfaces.iter().find(|i| i.name == name).map(|i| i.index);
        let out = self.interface.as_deref().and_then(index);
        let arrived = self.seen.iter().find(|seen| !seen.outgoing).and_then(|seen| index(&seen.interface));
        let list = |interface: Option<u32>, list: fn(u32) -> Vec<ListedProgram>| {
            interface.map(list).unwrap_or_default().iter().map(ToString::to_string).collect()
        };
        Programs {
            egress: list(out, egress_programs),
            ingress: list(arrived.or(out), ingress_programs),
            xdp: list(arrived.or(out), xdp_programs),
            cgroup_egress: Vec::new(),
        }
    }
}

impl Traced {
    fn open(settings: &Settings, interfaces: &[Interface]) -> Result<Traced, NetlinkError> {
        let mut devices: Vec<String> =
            interfaces.iter().filter(|interface| interface.up).map(|i| i.name.clone()).collect();
        devices.sort_by_key(|name| Some(name.as_str()) != settings.interface);
        devices.truncate(MAX_DEVICES);
        let bridges = interfaces.iter().any(|interface| interface.kind.as_deref() == Some("bridge"));
        // The reader before the table, whose changes count; the subscription, too: it misses nothing that the
        // table's rules mark.
        let ruleset = Ruleset::open()?;
        let monitor = TraceMonitor::open()?;
        let mut table = TraceTable::create(&devices, bridges, settings.lifetime, settings.owner)
            // A kernel may lack the families netdev or bridge.
            .or_else(|error| match error.errno() {
                Some(Errno::EPERM) => Err(error),
                _ => TraceTable::create(&[], false, settings.lifetime, settings.owner),
            })?;
        table.watch(settings.end)?;
        Ok(Traced { monitor, table, ruleset, steps: Vec::new(), packets: HashMap::new() })
    }

    fn collect(&mut self, ends: &mut Ends, stopped: &mut Stopped) -> Result<(), NetlinkError> {
        for event in self.monitor.take()? {
            let own = event.table == self.table.name().as_bytes();
            if !event.network_header.is_empty() {
                let header = PacketHeader::of_parts(&event.network_header, &event.transport_header);
                let ours = header.is_some_and(|header| is_ours(&header, ends, own, &event));
                let headers = (event.network_header.clone(), event.transport_header.clone());
                self.packets.insert(event.id, ours.then_some(headers));
            }
            let Some(Some((network, transport))) = self.packets.get(&event.id) else { continue };
            let headers = Headers { network, transport };
            let rule = if own { None } else { self.ruleset.facts(&event, headers) };
            let step = Step { event, own, rule };
            note_stop(&step, network, transport, stopped);
            if self.steps.len() < MAX_STEPS {
                self.steps.push(step);
            }
        }
        Ok(())
    }
}

/// Returns whether an event's packet is the attempt's.
fn is_ours(header: &PacketHeader, ends: &mut Ends, own: bool, event: &TraceEvent) -> bool {
    ends.learn(header);
    let icmp = matches!(header.kind, PacketKind::Icmp { .. });
    ends.subject(header).is_some() || icmp && own && event.kind == TraceKind::Rule
}

/// Notes that a step has ended a packet. A queue's program may give it back.
fn note_stop(step: &Step, network: &[u8], transport: &[u8], stopped: &mut Stopped) {
    if step.own || !step.event.ends_the_packet() {
        return;
    }
    stopped.any = true;
    let is_syn = PacketHeader::of_parts(network, transport).is_some_and(|h| h.kind == PacketKind::Syn);
    let queued = matches!(step.event.verdict, Some(TraceVerdict::Queue(_)));
    let varies = step.rule.as_ref().is_some_and(|rule| rule.text.varies);
    stopped.syn |= is_syn && !queued && !varies;
}

/// Returns a mark of the SYN for which the kernel has no route, and why.
fn refused_mark(observations: &[Observation], flow: &PolicyFlow) -> Option<(u32, Refused)> {
    let mut syns = observations.iter().filter(|observation| observation.subject == Subject::Syn);
    let lost =
        |way: &&Observation| way.end().is_none() && way.came_to("output") && !way.came_to("postrouting");
    let mark = syns.find(lost)?.mark()?;
    let marked = PolicyFlow { mark, ..*flow };
    let errno = marked.refused().ok().flatten()?;
    Some((mark, Refused { errno, by: marked.refusal().ok().flatten() }))
}

/// Returns the interface that leads to the sender of an answer.
fn way_back(sender: IpAddr, flow: &PolicyFlow) -> Option<String> {
    let query = route::Query { destination: sender, ..flow.query };
    let route = route::lookup(&query).ok()?;
    interface::name(route.interface)
}

/// Returns the queues that programs have bound (nfnetlink_queue's list): number, and the program.
fn queues() -> Vec<(u16, String)> {
    let list = fs::read_to_string("/proc/thread-self/net/netfilter/nfnetlink_queue").unwrap_or_default();
    let line = |line: &str| {
        let mut fields = line.split_whitespace();
        let (number, port) = (fields.next()?.parse().ok()?, fields.next()?);
        // The port id of a program's first socket is its process id.
        let name = fs::read_to_string(format!("/proc/{port}/comm")).ok();
        let name = name.map(|name| format!(" {}", crate::text::beginning(name.trim(), 32)));
        Some((number, format!("pid {port}{}", name.unwrap_or_default())))
    };
    list.lines().filter_map(line).collect()
}
