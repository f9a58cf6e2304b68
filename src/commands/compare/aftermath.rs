//! Questions to a namespace after the attempt: routes for its marks, the return route, queues, programs.
use crate::{
    diagnose::{Observation, Programs, Refused, Seen, Subject},
    host::{
        interface::{self, Interface},
        policy_route::PolicyFlow,
        route,
    },
    kernel::{ListedProgram, egress_programs, ingress_programs, xdp_programs},
};
use std::{fs, net::IpAddr};

/// Lists the programs that the attempt's packets pass at the devices: that of the route, and that by which an answer
/// came in.
pub(super) fn programs(interfaces: &[Interface], route: Option<&str>, seen: &[Seen]) -> Programs {
    let index = |name: &str| interfaces.iter().find(|i| i.name == name).map(|i| i.index);
    let out = route.and_then(index);
    let arrived = seen.iter().find(|seen| !seen.outgoing).and_then(|seen| index(&seen.interface));
    let list = |interface: Option<u32>, list: fn(u32) -> Vec<ListedProgram>| {
        interface.map(list).unwrap_or_default().iter().map(ToString::to_string).collect()
    };
    Programs {
        egress: list(out, egress_programs),
        ingress: list(arrived.or(out), ingress_programs),
        xdp: list(arrived.or(out), xdp_programs),
        ..Programs::default()
    }
}

/// Lists the programs that packets pass at one device.
pub(super) fn programs_at(interface: u32) -> Programs {
    let list =
        |list: fn(u32) -> Vec<ListedProgram>| list(interface).iter().map(ToString::to_string).collect();
    Programs {
        egress: list(egress_programs),
        ingress: list(ingress_programs),
        xdp: list(xdp_programs),
        ..Programs::default()
    }
}

/// Returns a mark of the SYN for which the kernel has no route, and why.
pub(super) fn refused_mark(observations: &[Observation], flow: &PolicyFlow) -> Option<(u32, Refused)> {
    let mut syns = observations.iter().filter(|observation| observation.subject == Subject::Syn);
    let lost =
        |way: &&Observation| way.end().is_none() && way.came_to("output") && !way.came_to("postrouting");
    let mark = syns.find(lost)?.mark()?;
    let marked = PolicyFlow { mark, ..*flow };
    let errno = marked.refused().ok().flatten()?;
    Some((mark, Refused { errno, by: marked.refusal().ok().flatten() }))
}

/// Returns the interface that leads to the sender of an answer.
pub(super) fn way_back(sender: IpAddr, flow: &PolicyFlow) -> Option<String> {
    let query = route::Query { destination: sender, ..flow.query };
    let route = route::lookup(&query).ok()?;
    interface::name(route.interface)
}

/// Returns the queues that programs have bound (nfnetlink_queue's list): number, and the program.
pub(super) fn queues() -> Vec<(u16, String)> {
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
