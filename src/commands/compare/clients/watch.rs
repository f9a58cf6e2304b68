//! The watch over a server's clients: tap, trace, drop events, sockets and counters, from its start to its end.
use super::{
    CompareClients,
    connections::Connections,
    drops::ClientDrops,
    legacy::ClientLegacy,
    routes,
    sockets::ListenerWatch,
    trace::{HandshakeTrace, Traced},
};
use crate::{
    commands::compare::{aftermath::programs_at, failed},
    diagnose::{
        ClientEvidence, DropEvent, LegacyEvidence, PacketHeader, Programs, SocketPrograms, SourceState, Space,
    },
    host::{
        interface,
        rules::Family,
        statistics::{Statistics, StatisticsReader},
        sysctl,
    },
    link::Observer,
    process::signals::{self, Signals},
    report::Error,
};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use std::{
    collections::HashMap,
    os::fd::AsFd,
    time::{Duration, Instant},
};

/// Interval of looking at sockets, of keeping a table without an owner in force, and of looking for a proof.
const TICK: Duration = Duration::from_millis(200);
/// Time for events that follow the last packets.
const TAIL: Duration = Duration::from_millis(150);
/// Time from the first proven cause to the end with --once.
const ONCE: Duration = Duration::from_secs(1);
/// Maximum devices whose programs are listed.
const MAX_DEVICES: usize = 64;

/// A watch under way.
pub(super) struct ClientWatch<'a> {
    asked: &'a CompareClients,
    start: Instant,
    tap: Observer,
    tap_lost: bool,
    traced: Option<HandshakeTrace>,
    /// Why there is no trace.
    untraced: Option<String>,
    drops: ClientDrops,
    connections: Connections,
    listeners: ListenerWatch,
    legacy: [ClientLegacy; 2],
    counters: StatisticsReader,
    before: Statistics,
    programs: HashMap<String, Programs>,
    socket_programs: SocketPrograms,
    strict: Vec<String>,
}

impl<'a> ClientWatch<'a> {
    /// Opens everything in the calling thread's network namespace.
    ///
    /// # Errors
    /// Where the tap cannot be opened, or the trace for lack of CAP_NET_ADMIN. A kernel without nf_tables costs the
    /// trace.
    pub(super) fn open(asked: &'a CompareClients) -> Result<ClientWatch<'a>, Error> {
        let port = asked.asked.port();
        let interfaces = interface::all()?;
        let up = || interfaces.iter().filter(|interface| interface.up).take(MAX_DEVICES);
        let programs = up().map(|interface| (interface.name.clone(), programs_at(interface.index))).collect();
        let is_strict = |name: &String| sysctl::is_reverse_path_strict(name).unwrap_or(false);
        let strict = up().map(|interface| interface.name.clone()).filter(is_strict).collect();
        let mut counters = StatisticsReader::open();
        let drops = ClientDrops::open(port, asked.drop_events);
        let before = counters.read();
        let legacy = [Family::V4, Family::V6].map(ClientLegacy::open);
        let tap = Observer::open_handshakes(port)?;
        let (traced, untraced) = match HandshakeTrace::open(asked, &interfaces) {
            Ok(traced) => (Some(traced), None),
            Err(error) if error.errno() == Some(Errno::EPERM) => {
                return Err(failed("trace packets")(error.into()));
            }
            Err(error) => (None, Some(format!("nf_tables: {error}"))),
        };
        let listeners = ListenerWatch::open(port);
        let start = Instant::now();
        Ok(ClientWatch {
            asked,
            start,
            tap,
            tap_lost: false,
            traced,
            untraced,
            drops,
            connections: Connections::new(asked, interfaces, start),
            socket_programs: listeners.programs(),
            listeners,
            legacy,
            counters,
            before,
            programs,
            strict,
        })
    }

    /// Watches until the time is over or a signal comes; with --once, until soon after the first proven cause.
    ///
    /// # Errors
    /// Those of the sockets.
    pub(super) fn run(&mut self, signals: &Signals) -> Result<(), Error> {
        let mut end = self.start + self.asked.wait;
        let mut tick = self.start + TICK;
        let mut proven = false;
        while Instant::now() < end && signals::ending().is_none() {
            self.wait(Some(signals), end.min(tick))?;
            self.collect()?;
            let now = Instant::now();
            if now < tick {
                continue;
            }
            tick = now + TICK;
            self.refresh();
            if self.asked.once && !proven && self.has_proof() {
                proven = true;
                end = end.min(now + ONCE);
            }
        }
        // A second signal does not end that.
        let tail = Instant::now() + TAIL;
        while Instant::now() < tail {
            self.wait(None, tail)?;
            self.collect()?;
        }
        Ok(())
    }

    /// Waits until something is to be read, or until `until`.
    fn wait(&self, signals: Option<&Signals>, until: Instant) -> Result<(), Error> {
        let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds = vec![readable(self.tap.as_fd())];
        fds.extend(signals.map(|signals| readable(signals.as_fd())));
        fds.extend(self.traced.as_ref().map(|traced| readable(traced.monitor.as_fd())));
        fds.extend(self.drops.descriptor().map(readable));
        let time = until.saturating_duration_since(Instant::now());
        // Rounded up, or the last fraction of a millisecond becomes a busy loop.
        let milliseconds = time.as_micros().div_ceil(1000);
        match poll(&mut fds, PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(failed("wait for clients")(errno.into())),
        }
        if let Some(signals) = signals {
            signals.take().map_err(failed("read a signal"))?;
        }
        Ok(())
    }

    /// Takes what was seen: packets at devices first, since the rest is about those.
    fn collect(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        for packet in self.tap.take().map_err(failed("read the tap"))? {
            if let Some(header) = PacketHeader::parse(&packet.bytes) {
                self.connections.observe(&packet, &header, now);
            }
        }
        if let Some(traced) = &mut self.traced {
            let taken = traced.collect(&mut self.connections, now);
            taken.map_err(|error| failed("read the trace")(error.into()))?;
        }
        self.drops.collect(&mut self.connections, now)
    }

    /// Does what is to be done from time to time.
    fn refresh(&mut self) {
        if self.connections.iter().any(|connection| connection.answers != 1) {
            self.listeners.look();
        }
        self.tap_lost |= self.tap.lost() > 0;
        if let Some(traced) = &mut self.traced {
            traced.refresh();
        }
    }

    /// Returns whether an event about a client's packet says what stops it.
    fn has_proof(&self) -> bool {
        self.connections.iter().any(|connection| {
            let by_rule = connection.syn.ended.or(connection.answer.ended).is_some();
            connection.answers == 0 && (by_rule || connection.drops.iter().any(DropEvent::is_a_loss))
        })
    }

    /// Ends the watch: removes the trace table, and returns what was seen.
    pub(super) fn finish(mut self) -> ClientEvidence {
        let end = Instant::now();
        self.refresh();
        let after = self.counters.read();
        let moved = |name| after.moved(&self.before, name);
        let (overflows, request_drops, reverse_path_drops) = (
            moved("TcpExt.ListenOverflows"),
            moved("TcpExt.TCPReqQFullDrop"),
            moved("TcpExt.IPReversePathFilter"),
        );
        let port = self.asked.asked.port();
        let mut trace = SourceState { why: self.untraced, ..SourceState::default() };
        let mut traced_ways = Traced::default();
        if let Some(traced) = self.traced.take() {
            let (events, lost) = (traced.monitor.events, traced.monitor.lost);
            trace = SourceState { used: true, why: None, events, lost };
            traced_ways = traced.finish(&mut self.connections);
        }
        let Traced { ends, translations, ruleset_changed } = traced_ways;
        let suspects = self.legacy.each_ref().map(|legacy| legacy.suspects(&self.connections, port));
        let space = Space {
            name: "here".to_owned(),
            trace,
            tap: SourceState { used: true, lost: self.tap_lost, ..SourceState::default() },
            drop_events: self.drops.state.clone(),
            legacy: LegacyEvidence {
                present: self.legacy.iter().any(ClientLegacy::is_present),
                unreadable: self.legacy.iter().find_map(ClientLegacy::unreadable),
                ..LegacyEvidence::default()
            },
            reverse_path_drops,
            strict: self.strict,
            ruleset_changed,
            ..Space::default()
        };
        let (connections, beyond_syns) = self.connections.finish(end, routes::ask);
        ClientEvidence {
            asked: self.asked.asked,
            time: end.saturating_duration_since(self.start),
            space,
            connections,
            beyond_syns,
            ends,
            translations,
            listeners: self.listeners.finish(),
            overflows,
            request_drops,
            legacy: suspects,
            programs: self.programs,
            socket_programs: self.socket_programs,
        }
    }
}
