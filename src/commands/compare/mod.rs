//! Comparing (`--compare`): the kernel connects once with its packets traced, then netkat by its own path
//! with the same five-tuple, and the difference is named. Over UDP (`-u`) each sends a datagram, again every second,
//! and waits for an answer.
//!
//! Order: stand-in bound, watch opened, kernel's attempt, its end by a reset, watch closed, netkat's
//! attempt, privileges given up, decision, output. Everything that a rule's text needs is read while the
//! attempt lasts, so the decision needs no further question.
mod aftermath;
mod drops;
mod ends;
mod kernel_path;
mod legacy;
mod raw_path;
mod ruleset;
mod traced;
mod trials;
mod watch;

use super::{Attempt, text_output};
use crate::{
    diagnose::{Evidence, Outcome, Programs, RawPath, Refused, Space, decide},
    host::{cgroup, policy_route::PolicyFlow, route::Query},
    kernel::{AttemptOrder, AttemptUser, CgroupHook, StandIn, cgroup_programs},
    net::Protocol,
    process::{
        capability::{self, Capability},
        namespace,
        sandbox::Sandbox,
        signals::Signals,
    },
    report::{ComparedTarget, Comparison, Error, JsonReport},
    runtime::{Egress, EgressError},
    stdio,
};
use drops::DropWatch;
use kernel_path::KernelAttempt;
use std::{
    fs::{self, File},
    io::{self, Write},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use trials::Trial;
use watch::{Settings, Watch};

/// Time that a trace table's rules may outlive netkat, beside the attempt's, where the table has no owner.
const AFTERLIFE: Duration = Duration::from_secs(5);

/// Time for the packets of a round of connections.
const ROUND: Duration = Duration::from_millis(20);

/// The identity of the kernel's attempt.
#[derive(Clone, Debug, Default)]
pub(crate) struct Identity {
    pub user: Option<AttemptUser>,
    pub cgroup: Option<PathBuf>,
}

/// A comparison to make.
#[derive(Debug)]
pub(crate) struct Compare {
    pub remote: SocketAddr,
    /// netkat's attempt, whose request has the flow as the kernel's own connect(2) looks it up.
    pub attempt: Attempt,
    /// netkat's path before the local port is known; or why there is none.
    pub egress: Result<Egress, EgressError>,
    /// The interface that both paths are bound to.
    pub interface: Option<String>,
    pub identity: Identity,
    /// netkat's own network namespace, if the attempts are made in another one: that is the calling thread's.
    pub node: Option<File>,
    /// Longest time of each path.
    pub wait: Duration,
    pub sandbox: Sandbox,
    /// Give the trace table an owner where the kernel can.
    pub owner: bool,
    /// Number of trials; `None` tries again only where nothing explains a difference.
    pub trials: Option<usize>,
    /// Watch what the kernel drops where the rights suffice.
    pub drop_events: bool,
}

impl Compare {
    /// Compares, and prints what stands in the way.
    pub(crate) fn run(&self, report: &mut JsonReport) -> Result<(), Error> {
        capability::require(Capability::NetRaw, "observe packets")?;
        capability::require(Capability::NetAdmin, "trace packets through the host's rules")?;
        let mut output = text_output(report)?;
        let width = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let netns = namespace::number();
        let start = Instant::now();
        let (trials, Trial { evidence, raw, finding }) = self.trials()?;
        let target = ComparedTarget { kernel_release: release.trim().to_owned(), netns, trials };
        self.sandbox.enter(&[])?;
        let comparison = Comparison::new(target, &evidence, &finding, raw, start.elapsed());
        if let Some(output) = &mut output {
            output.write_all(comparison.text(width).as_bytes()).map_err(stdio::Error::Output)?;
        }
        report.compared(self.remote, comparison);
        Ok(())
    }

    /// Returns the protocol of both attempts.
    fn protocol(&self) -> Protocol {
        self.attempt.request.query.protocol
    }

    /// Makes both attempts once.
    fn gather(&self) -> Result<Trial, Error> {
        let signals = Signals::catch().map_err(failed("watch for signals"))?;
        let order = AttemptOrder {
            protocol: self.protocol(),
            local: self.local(),
            remote: self.remote,
            interface: self.interface.clone(),
            user: self.identity.user.clone(),
            cgroup: self.identity.cgroup.clone(),
            namespace: None,
        };
        let mut stand_in = StandIn::start(&order).map_err(failed("prepare the kernel's attempt"))?;
        let local = stand_in.local();
        let mut watches = Vec::new();
        let mut drops = DropWatch::open(self.drop_events && local.is_some());
        if let Some(end) = local {
            let settings = Settings {
                protocol: self.protocol(),
                name: if self.node.is_some() { "pod" } else { "here" },
                // Packets name no zones.
                end: SocketAddr::new(end.ip(), end.port()),
                neighbour: self.unresolved(),
                interface: self.egress.as_ref().ok().map(|egress| egress.interface.name.as_str()),
                lifetime: self.wait + AFTERLIFE,
                owner: self.owner,
            };
            drops.watch(end.port());
            watches.push(Watch::open(&settings, None)?);
            if let Some(node) = &self.node {
                let node = node.try_clone().map_err(failed("watch another network namespace"))?;
                let settings = Settings { name: "node", interface: None, neighbour: None, ..settings };
                watches.push(Watch::open(&settings, Some(node))?);
            }
        }
        let attempt = KernelAttempt { remote: self.remote, wait: self.wait };
        let mut kernel = attempt.run(&mut stand_in, &mut watches, &mut drops, &signals)?;
        // Before the attempt's end, which frees packets, too.
        let drops = drops.finish();
        let sequence = watches.iter().find_map(Watch::sequence);
        let asked = self.attempt.request.query;
        let own = || nix::unistd::getuid().as_raw();
        let user = self.identity.user.as_ref().map_or_else(own, |user| user.uid);
        let flow = PolicyFlow {
            query: Query {
                source: local.map(|local| local.ip()).or(asked.source),
                source_port: local.map(|local| local.port()),
                user: Some(user),
                ..asked
            },
            mark: 0,
        };
        let neighbour = self.neighbour();
        let own_report = |by: &Option<IpAddr>| *by == local.map(|local| local.ip());
        if neighbour.as_ref().is_some_and(|neighbour| neighbour.failed)
            && matches!(&kernel.outcome, Outcome::Rejected { by, .. } if own_report(by))
        {
            // The kernel tells its own sockets of a neighbour's silence by an ICMP error.
            kernel.outcome = Outcome::NoNeighbour;
        }
        let cgroup = self.identity.cgroup.clone().or_else(|| cgroup::folder(Path::new("/proc/self")));
        let programs = |hook| {
            let group = cgroup.as_deref();
            let list = group.map(|group| cgroup_programs(group, hook));
            list.into_iter().flatten().map(|program| program.to_string()).collect::<Vec<_>>()
        };
        stand_in.end();
        if kernel.outcome != Outcome::Connected {
            // Before the watch ends: the further connections are not the attempt's.
            let probe = |connections| self.probe(local, connections);
            watches.iter_mut().for_each(|watch| watch.question_legacy(&probe));
        }
        let own = Programs {
            cgroup_egress: programs(CgroupHook::Egress),
            cgroup_ingress: programs(CgroupHook::Ingress),
            ..Programs::default()
        };
        let mut closing = Vec::new();
        let spaces: Vec<Space> =
            watches.into_iter().map(|watch| watch.finish(&flow, &own, &drops, &mut closing)).collect();
        let refused = match &kernel.reported {
            Some(reported) if reported.at_once => refused(&flow),
            _ => None,
        };
        let mut raw_report = JsonReport::default();
        let raw = match &self.egress {
            Ok(egress) => raw_path::run(&self.attempt, egress, local, sequence, self.wait, &mut raw_report)?,
            Err(error) => RawPath::without_route(error),
        };
        closing.into_iter().for_each(|thread| drop(thread.join()));
        let evidence = Evidence {
            protocol: self.protocol(),
            asked: self.remote,
            kernel,
            raw,
            spaces,
            refused,
            neighbour,
            user,
            connect_programs: programs(match self.remote {
                SocketAddr::V4(_) => CgroupHook::Connect4,
                SocketAddr::V6(_) => CgroupHook::Connect6,
            }),
            cgroup: cgroup.as_ref().map(|group| crate::text::beginning(&group.to_string_lossy(), 200)),
            elsewhere: self.node.is_some(),
        };
        Ok(Trial { finding: decide(&evidence), evidence, raw: raw_report })
    }
}

/// Returns what refuses the attempt's route, if the kernel does.
fn refused(flow: &PolicyFlow) -> Option<Refused> {
    let errno = flow.refused().ok().flatten()?;
    let by = flow.refusal().unwrap_or_else(|error| {
        log::debug!("cannot tell what refuses the route: {error}");
        None
    });
    Some(Refused { errno, by })
}

impl RawPath {
    /// Returns the outcome of a path that the routing tables refuse.
    fn without_route(error: &EgressError) -> RawPath {
        RawPath {
            outcome: Outcome::NoRoute,
            error: Some(error.to_string()),
            time: Duration::ZERO,
            local: None,
            next_hop: String::new(),
            interface: String::new(),
            other_port: None,
            past_egress: None,
        }
    }
}

/// Returns a function that makes an error of an operation, a verb phrase.
fn failed(operation: &'static str) -> impl Fn(io::Error) -> Error {
    move |error| Error::Compare { operation, error }
}
