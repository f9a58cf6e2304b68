//! Questions to the routing and neighbour tables about connections that were not answered.
use crate::{
    diagnose::{ClientConnection, Refused},
    host::{
        neighbour::{self, NeighbourState},
        policy_route::PolicyFlow,
        route::{self, Query, TableAnswer},
    },
    net::{
        Protocol,
        zone::{needs_zone, scoped},
    },
};
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

/// Answers by address, each asked for once.
#[derive(Default)]
struct Answers {
    routes: HashMap<IpAddr, Option<TableAnswer>>,
    refusals: HashMap<(IpAddr, IpAddr), Option<Refused>>,
}

/// Asks whether the end of each connection is this host's, by which interface the way back leads, what refuses it, and
/// whether its next hop is silent; not for connections that were answered or ended by a rule. `name` returns an
/// interface's name.
pub(super) fn ask(connections: &mut [ClientConnection], name: &dyn Fn(u32) -> String) {
    let mut answers = Answers::default();
    for connection in connections {
        let ended = connection.syn.ended.or(connection.answer.ended).is_some();
        if connection.answers > 0 || ended {
            continue;
        }
        let zone = connection.interface_index;
        let local = answers.route(connection.server, zone);
        connection.is_local = Some(local.is_some_and(|route| route.is_local));
        let back = answers.route(connection.client, zone);
        connection.way_back = back.map(|route| name(route.interface));
        connection.refused = answers.refused(connection.server, connection.client);
        let hop = back.filter(|_| connection.answer.came_to("postrouting"));
        connection.silent_neighbour = hop.and_then(silent);
    }
}

impl Answers {
    fn route(&mut self, end: SocketAddr, interface: u32) -> Option<TableAnswer> {
        *self.routes.entry(end.ip()).or_insert_with(|| {
            let zone = if needs_zone(end.ip()) { interface } else { 0 };
            route::by_tables(&Query::to(scoped(end.ip(), end.port(), zone), Protocol::Tcp))
        })
    }

    /// Returns what refuses a route from the server's end to the client.
    fn refused(&mut self, server: SocketAddr, client: SocketAddr) -> Option<Refused> {
        if needs_zone(client.ip()) {
            return None;
        }
        let ask = || {
            let query = Query {
                source: Some(server.ip()),
                source_port: Some(server.port()),
                ..Query::to(client, Protocol::Tcp)
            };
            let flow = PolicyFlow { query, mark: 0 };
            let errno = flow.refused().ok().flatten()?;
            Some(Refused { errno, by: flow.refusal().ok().flatten() })
        };
        self.refusals.entry((server.ip(), client.ip())).or_insert_with(ask).clone()
    }
}

/// Returns the next hop of a route if it does not answer for its link address.
fn silent(route: TableAnswer) -> Option<IpAddr> {
    let hop = route.next_hop;
    let entry = neighbour::lookup(route.interface, hop).ok().flatten()?;
    matches!(entry.state, NeighbourState::Failed | NeighbourState::Incomplete).then_some(hop)
}
