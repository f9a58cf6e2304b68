//! Questions to the routing tables about connections that were lost before the input hook.
use crate::{
    diagnose::ClientConnection,
    host::route::{self, Kind, Query},
    net::{
        Protocol,
        zone::{needs_zone, scoped},
    },
};
use std::{collections::HashMap, net::SocketAddr};

/// Asks whether the end of each connection that was lost is this host's, and by which interface the way back leads.
/// `name` returns an interface's name. Each address is asked for once.
pub(super) fn ask(connections: &mut [ClientConnection], name: &dyn Fn(u32) -> String) {
    let (mut local, mut back) = (HashMap::new(), HashMap::new());
    for connection in connections {
        let lost = connection.answers == 0
            && connection.syn.ended.is_none()
            && (connection.answer.came_to("postrouting") || !connection.syn.came_to("input"));
        if !lost {
            continue;
        }
        let lookup = |end: SocketAddr| {
            let zone = if needs_zone(end.ip()) { connection.interface_index } else { 0 };
            route::lookup(&Query::to(scoped(end.ip(), end.port(), zone), Protocol::Tcp)).ok()
        };
        let is_local = || lookup(connection.server).is_some_and(|route| route.kind == Kind::Local);
        connection.is_local = Some(*local.entry(connection.server.ip()).or_insert_with(is_local));
        let way_back = || lookup(connection.client).map(|route| name(route.interface));
        connection.way_back = back.entry(connection.client.ip()).or_insert_with(way_back).clone();
    }
}
