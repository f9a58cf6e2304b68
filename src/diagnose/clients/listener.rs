//! Sockets that listen as the cause: there is none for the SYN's end, or a queue of it is full.
use super::{
    super::{
        finding::{Action, Certainty, Culprit, CulpritKind},
        packet::Subject,
    },
    ClientConnection, ClientEvidence, ListeningSocket,
    fate::Fate,
};
use crate::{
    host::listeners::Listener,
    net::{count, zone::endpoint},
};

/// Maximum listeners that a line names.
const MAX_NAMED: usize = 4;

/// Returns that no socket takes the SYN, as far as the list of sockets tells.
pub(super) fn nothing_listens(evidence: &ClientEvidence, connection: &ClientConnection) -> Culprit {
    let named = |listening: &ListeningSocket| {
        let Listener { address, v6_only, .. } = listening.socket;
        let narrow = v6_only && address.ip().is_unspecified() && connection.server.is_ipv4();
        format!("{}{}", endpoint(&address), if narrow { " for IPv6" } else { "" })
    };
    let others: Vec<String> = evidence.listeners.iter().filter(|l| l.remains).map(named).collect();
    let only = match others.as_slice() {
        [] => String::new(),
        named if named.len() <= MAX_NAMED => format!(", only on {}", named.join(", ")),
        many => format!(", only on {} other addresses", many.len()),
    };
    let server = endpoint(&connection.server);
    let place = format!("the kernel: nothing listens on {server}{only}");
    let mut culprit = Culprit::new(Action::Refuse, CulpritKind::Listener, Certainty::Inferred, place);
    culprit.evidence = vec!["sock_diag".to_owned()];
    culprit.remedy = Some(format!("ss -ltn 'sport = :{}'", connection.server.port()));
    culprit
}

/// Returns that a queue of the listener is full, if counters say that packets met a full one.
pub(super) fn full(evidence: &ClientEvidence, connection: &ClientConnection) -> Option<Fate> {
    let takers = || evidence.takers(connection.server.ip(), connection.interface_index);
    let is_full = |listening: &&ListeningSocket| evidence.overflows > 0 && listening.socket.is_full();
    let Some(ListeningSocket { socket, .. }) = takers().find(is_full) else {
        let listening = takers().next().filter(|_| evidence.request_drops > 0)?;
        let place = format!(
            "the listener on {}: its queue of half-open connections is full, and SYN cookies are off",
            endpoint(&listening.socket.address)
        );
        let mut culprit = Culprit::new(Action::Drop, CulpritKind::Listener, Certainty::Inferred, place);
        culprit.evidence = vec!["counter TCPReqQFullDrop".to_owned()];
        culprit.remedy = Some("sysctl net.ipv4.tcp_syncookies net.ipv4.tcp_max_syn_backlog".to_owned());
        return Some(Fate::stopped(evidence, connection, Subject::Syn, "dropped", culprit));
    };
    let waiting = count(socket.queue.into(), "connection");
    let place = format!(
        "the listener on {}: its accept queue is full ({waiting} in a backlog of {})",
        endpoint(&socket.address),
        socket.backlog
    );
    let mut culprit = Culprit::new(Action::Drop, CulpritKind::Listener, Certainty::Inferred, place);
    culprit.evidence = vec!["counter ListenOverflows".to_owned(), "sock_diag".to_owned()];
    culprit.note = Some("its process does not call accept() often enough".to_owned());
    culprit.remedy = Some(format!("ss -ltnp 'sport = :{}'", connection.server.port()));
    Some(Fate::stopped(evidence, connection, Subject::Syn, "dropped", culprit))
}
