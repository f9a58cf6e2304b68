//! The sockets that listen on the port, looked at again and again: an accept queue may be full for a moment only.
use crate::{
    diagnose::{ListeningSocket, SocketPrograms},
    host::{
        cgroup,
        listeners::{Listener, Listeners},
        netlink::NetlinkError,
    },
    kernel::{CgroupHook, cgroup_programs},
};

/// Maximum control groups that are looked into: SO_REUSEPORT shares a port among workers of one.
const MAX_GROUPS: usize = 8;

/// The sockets seen so far.
pub(super) struct ListenerWatch {
    socket: Option<Listeners>,
    port: u16,
    seen: Vec<ListeningSocket>,
}

impl ListenerWatch {
    /// Opens a socket in the calling thread's network namespace, and looks.
    pub(super) fn open(port: u16) -> ListenerWatch {
        let socket = Listeners::open().inspect_err(cannot_list).ok();
        let mut watch = ListenerWatch { socket, port, seen: Vec::new() };
        watch.look();
        watch
    }

    /// Returns the programs of the sockets' control groups. Call it while the file system is open.
    pub(super) fn programs(&self) -> SocketPrograms {
        let mut groups: Vec<_> = self.seen.iter().filter_map(|known| known.socket.cgroup).collect();
        groups.sort_unstable();
        groups.dedup();
        let mut programs = SocketPrograms::default();
        for folder in groups.into_iter().take(MAX_GROUPS).filter_map(cgroup::folder_of) {
            let list = |hook| cgroup_programs(&folder, hook).into_iter().map(|program| program.to_string());
            programs.ingress.extend(list(CgroupHook::Ingress));
            programs.egress.extend(list(CgroupHook::Egress));
        }
        for list in [&mut programs.ingress, &mut programs.egress] {
            list.sort();
            list.dedup();
        }
        programs
    }

    /// Looks at the sockets.
    pub(super) fn look(&mut self) {
        let Some(socket) = &mut self.socket else { return };
        match socket.of_port(self.port) {
            Ok(now) => self.merge(&now),
            Err(error) => cannot_list(&error),
        }
    }

    fn merge(&mut self, now: &[Listener]) {
        self.seen.iter_mut().for_each(|known| known.remains = false);
        for socket in now {
            let same = |known: &&mut ListeningSocket| {
                (known.socket.address, known.socket.interface) == (socket.address, socket.interface)
            };
            match self.seen.iter_mut().find(same) {
                Some(known) => {
                    // Sockets of one address (SO_REUSEPORT) are one here, with the fullest queue.
                    if !known.socket.is_full() || socket.is_full() {
                        known.socket = *socket;
                    }
                    known.remains = true;
                }
                None => self.seen.push(ListeningSocket { socket: *socket, remains: true }),
            }
        }
    }

    /// Returns all that were seen.
    pub(super) fn finish(mut self) -> Vec<ListeningSocket> {
        self.look();
        self.seen
    }
}

fn cannot_list(error: &NetlinkError) {
    log::debug!("cannot list the sockets that listen: {error}");
}
