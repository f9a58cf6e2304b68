//! Between the link and the stack's door: answers the stack's questions for ways back, and keeps frames that have to
//! wait until a neighbour has told its link address.
use super::{
    Setup,
    way_back::{Found, WaysBack},
};
use crate::{
    host::{interface::Interface, watch::Watch},
    link::Received,
    stack::{Outlet, Question, Stack},
};
use std::{collections::HashMap, net::IpAddr, time::Duration};

/// How long a frame waits for the neighbour's answer. The sender of a SYN repeats it after a second.
const PATIENCE: Duration = Duration::from_secs(1);
/// Frames that wait, and their bytes; further ones are dropped. A kernel keeps as much for one neighbour
/// (net.ipv4.neigh.default.unres_qlen_bytes).
const MAX_PARKED: usize = 64;
const MAX_PARKED_BYTES: usize = 256 << 10;

/// What this host knows.
pub(super) struct Host<'a> {
    pub watch: &'a mut Watch,
    /// Those that we listen to, by index.
    pub interfaces: &'a HashMap<u32, Interface>,
}

/// Shows frames to the stack.
pub(super) struct Doorkeeper {
    ways_back: WaysBack,
    parked: Vec<Parked>,
}

/// A frame whose sender's next hop has been asked for its link address.
struct Parked {
    /// All but the bytes.
    received: Received<'static>,
    frame: Vec<u8>,
    interface: u32,
    neighbour: IpAddr,
    until: Duration,
}

impl Doorkeeper {
    /// Reads the settings, while files may still be opened.
    pub fn new(setup: &Setup, port: u16) -> Doorkeeper {
        Doorkeeper { ways_back: WaysBack::new(setup, port), parked: Vec::new() }
    }

    /// Shows a frame to the stack, and once more if the stack had to know the way back first.
    pub fn show(
        &mut self,
        now: Duration,
        received: Received<'_>,
        stack: &mut Stack,
        host: &mut Host<'_>,
        outlet: &mut Outlet<'_>,
    ) {
        let Received { frame, .. } = received;
        let first = Received { frame: &mut *frame, ..received };
        let Some(question) = stack.ingress_to(now, first, outlet) else { return };
        match self.find(now, &question, stack, host) {
            Found::Way(way) => stack.learn(question, Some(way)),
            Found::None(reason) => {
                log::debug!("no answer to {} on interface {}: {reason}", question.remote, question.interface);
                return stack.learn(question, None);
            }
            Found::Unresolved { from, neighbour } => {
                stack.solicit(now, question.local, &from, neighbour);
                let waiting: usize = self.parked.iter().map(|parked| parked.frame.len()).sum();
                if self.parked.len() < MAX_PARKED && waiting + frame.len() <= MAX_PARKED_BYTES {
                    let (interface, until) = (from.interface, now + PATIENCE);
                    let received = Received { frame: &mut [], ..received };
                    self.parked.push(Parked { received, frame: frame.to_vec(), interface, neighbour, until });
                }
                return;
            }
        }
        stack.ingress_to(now, Received { frame, ..received }, outlet);
    }

    /// Shows those frames again whose neighbour has answered, and forgets those that have waited for too long.
    pub fn show_parked(
        &mut self,
        now: Duration,
        stack: &mut Stack,
        host: &mut Host<'_>,
        outlet: &mut Outlet<'_>,
    ) {
        for mut parked in std::mem::take(&mut self.parked) {
            match stack.solicited(now, parked.interface, parked.neighbour) {
                _ if now >= parked.until => {}
                None => self.parked.push(parked),
                Some(_) => {
                    let received = Received { frame: &mut parked.frame, ..parked.received };
                    self.show(now, received, stack, host, outlet);
                }
            }
        }
    }

    fn find(&self, now: Duration, question: &Question, stack: &Stack, host: &mut Host<'_>) -> Found {
        let solicited = |interface, neighbour| stack.solicited(now, interface, neighbour);
        self.ways_back.find(question, host.watch, host.interfaces, &solicited)
    }
}
