//! The watch over one network namespace: trace table, trace, tap, rules, conntrack and counters, from before
//! the kernel's attempt until after it.
use super::{
    aftermath::{programs, queues, refused_mark, way_back},
    drops::{DropWatch, Drops},
    failed,
    legacy::LegacyWatch,
    traced::{Stopped, Traced},
};
use crate::{
    diagnose::{Ends, LegacyEvidence, PacketHeader, Programs, Seen, SourceState, Space, Subject, join},
    host::{
        conntrack,
        interface::{self, Interface},
        policy_route::PolicyFlow,
        rules::Family,
        statistics::Statistics,
        sysctl,
    },
    kernel::LegacyBlob,
    link::{Observed, Observer},
    net::{FiveTuple, Protocol},
    process::namespace::{self, inside},
    report::Error,
};
use nix::errno::Errno;
use std::{
    fs::File,
    mem,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, BorrowedFd},
    thread::{self, JoinHandle},
    time::Duration,
};

/// Maximum packets of others that are kept.
const MAX_OTHERS: usize = 256;

/// Parameters of a watch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings<'a> {
    pub name: &'a str,
    pub protocol: Protocol,
    /// The attempt's end.
    pub end: SocketAddr,
    /// The interface that the route leads by, of whose ingress rules the first chain is.
    pub interface: Option<&'a str>,
    /// The next hop, if the kernel has to resolve it.
    pub neighbour: Option<IpAddr>,
    /// Maximum time that rules mark packets after netkat is killed, where the trace table has no owner.
    pub lifetime: Duration,
    /// Give the trace table an owner where the kernel can.
    pub owner: bool,
}

/// A watch over one namespace.
pub(super) struct Watch {
    name: String,
    /// The interface that the route leads by.
    interface: Option<String>,
    namespace: Option<File>,
    /// The namespace's number.
    netns: u64,
    traced: Option<Traced>,
    /// Why there is no trace.
    untraced: Option<String>,
    tap: Observer,
    seen: Vec<Seen>,
    /// Packets of the watched ports that are not the attempt's by the ends that are known so far.
    others: Vec<Observed>,
    interfaces: Vec<Interface>,
    before: Statistics,
    ends: Ends,
    connection: Option<conntrack::Connection>,
    legacy: LegacyWatch,
    /// The result of the counters; `None` until they are asked.
    questioned: Option<LegacyEvidence>,
    pub stopped: Stopped,
}

impl Watch {
    /// Opens everything in the namespace, the calling thread's if there is none.
    ///
    /// # Errors
    /// Where the tap cannot be opened, or the trace for lack of CAP_NET_ADMIN. A kernel without nf_tables
    /// costs the trace.
    pub(crate) fn open(settings: &Settings, namespace: Option<File>) -> Result<Watch, Error> {
        let opened = inside(namespace.as_ref(), || Watch::open_here(settings));
        let watch = opened.map_err(failed("enter the network namespace"))??;
        Ok(Watch { namespace, ..watch })
    }

    fn open_here(settings: &Settings) -> Result<Watch, Error> {
        let family = if settings.end.is_ipv4() { Family::V4 } else { Family::V6 };
        let interfaces = interface::all()?;
        let before = Statistics::read();
        let tap = Observer::open(settings.protocol, settings.end.port())?;
        let (traced, untraced) = match Traced::open(settings, &interfaces) {
            Ok(traced) => (Some(traced), None),
            Err(error) if error.errno() == Some(Errno::EPERM) => {
                return Err(failed("trace packets")(error.into()));
            }
            Err(error) => (None, Some(format!("nf_tables: {error}"))),
        };
        let ends = Ends { protocol: settings.protocol, local: vec![settings.end], sequence: None };
        Ok(Watch {
            name: settings.name.to_owned(),
            interface: settings.interface.map(str::to_owned),
            namespace: None,
            netns: namespace::number(),
            traced,
            untraced,
            tap,
            seen: Vec::new(),
            others: Vec::new(),
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
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [self.tap.as_fd()].into_iter().chain(self.traced.as_ref().map(|traced| traced.monitor.as_fd()))
    }

    /// Returns the sequence number of the attempt's SYN, once it was seen.
    pub(crate) fn sequence(&self) -> Option<u32> {
        self.ends.sequence
    }

    /// Takes what was seen.
    ///
    /// # Errors
    /// Those of the sockets.
    pub(crate) fn collect(&mut self) -> Result<(), Error> {
        let packets = self.tap.take().map_err(failed("read the tap"))?;
        self.note(packets);
        let Watch { traced: Some(traced), ends, stopped, .. } = self else { return Ok(()) };
        traced.collect(ends, stopped).map_err(|error| failed("read the trace")(error.into()))
    }

    /// Keeps what passed the devices, the attempt's packets apart.
    fn note(&mut self, packets: Vec<Observed>) {
        for packet in packets {
            let Some(header) = PacketHeader::parse(&packet.bytes) else { continue };
            self.ends.learn(&header);
            let Some(subject) = self.ends.subject(&header) else {
                if self.others.len() < MAX_OTHERS {
                    self.others.push(packet);
                }
                continue;
            };
            let interface = self.interfaces.iter().find(|interface| interface.index == packet.interface);
            let interface = interface.map_or_else(|| packet.interface.to_string(), |i| i.name.clone());
            self.seen.push(Seen { subject, header, outgoing: packet.outgoing, interface });
        }
    }

    /// Asks conntrack for the attempt's connection. A translation of its source is watched from now on:
    /// answers carry that address until they are translated back.
    pub(crate) fn ask_conntrack(&mut self, remote: SocketAddr, drops: &DropWatch) {
        let Some(local) = self.ends.local.first().copied() else { return };
        let flow = FiveTuple { protocol: self.ends.protocol, local, remote };
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
            // A translated datagram is known by its end alone.
            let others = mem::take(&mut self.others);
            self.note(others);
            drops.watch(end.port());
            if let Err(error) = self.tap.add(end.port()) {
                log::debug!("{error}");
            }
            if let Some(traced) = &mut self.traced
                && let Err(error) = traced.table.watch(self.ends.protocol, end)
            {
                log::debug!("cannot trace packets to {end}: {error}");
            }
        }
    }

    /// Asks the counters of iptables-legacy which rule ended the attempt's packets, where no traced rule did.
    /// `probe` makes so many further connections.
    pub(crate) fn question_legacy(&mut self, probe: &dyn Fn(usize)) {
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

    /// Ends the watch, and returns what was seen. `flow` is the attempt as policy rules look at it, `own` has the
    /// programs that its socket passes. A thread in
    /// `closing` removes the trace table: the kernel takes some 12 ms to free an owned one.
    pub(crate) fn finish(
        mut self,
        flow: &PolicyFlow,
        own: &Programs,
        drops: &Drops,
        closing: &mut Vec<JoinHandle<()>>,
    ) -> Space {
        let namespace = self.namespace.take();
        let finished = inside(namespace.as_ref(), || self.finish_here(flow, own, drops, closing));
        finished.unwrap_or_else(|error| {
            log::debug!("cannot return to a network namespace: {error}");
            Space::default()
        })
    }

    fn finish_here(
        mut self,
        flow: &PolicyFlow,
        own: &Programs,
        drops: &Drops,
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
        let programs = Programs {
            cgroup_egress: own.cgroup_egress.clone(),
            cgroup_ingress: own.cgroup_ingress.clone(),
            ..programs(&self.interfaces, self.interface.as_deref(), &self.seen)
        };
        let legacy = self.questioned.take().unwrap_or_else(|| {
            self.legacy.evidence(self.legacy.read(), true, None::<fn(usize) -> Vec<LegacyBlob>>)
        });
        Space {
            legacy,
            programs,
            drops: drops.of(self.netns, &self.ends),
            drop_events: drops.state(),
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
