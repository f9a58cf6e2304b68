//! Next hops of flows, which follow a neighbour whose link address changes.
//!
//! A next hop's link address may change: a gateway fails over to its partner, or a host gets
//! another card. The stack learns the new address as a kernel does, from what the neighbours
//! announce (ARP, NDP); the event loop adds what the kernel itself has resolved. When a peer falls
//! silent, the stack solicits the neighbour. An accepted flow follows the link address that its
//! peer's segments come from.
use super::Stack;
use crate::{
    host::interface::Interface,
    link::NextHop,
    neighbour::{Announcement, AnnouncementSource, Impersonation, LocalAddress, Neighbour, Resolution},
    net::{FiveTuple, MacAddr},
};
use std::{net::IpAddr, time::Duration};

impl Stack {
    /// Handles a received ARP packet or NDP message.
    pub(super) fn ingress_resolution(&mut self, now: Duration, message: &Resolution, interface: u32) {
        if let Some(impersonation) = &mut self.impersonation {
            impersonation.handle(message);
        }
        if let Some(Announcement { address, mac, source }) = message.announcement {
            self.solicitations.note(now, interface, address, mac);
            self.move_neighbour(now, interface, address, mac, source);
        }
    }

    /// Handles a neighbour's announcement that its link address is `mac`. Flows whose next hop is
    /// that neighbour follow it.
    pub(crate) fn move_neighbour(
        &mut self,
        now: Duration,
        interface: u32,
        address: IpAddr,
        mac: MacAddr,
        source: AnnouncementSource,
    ) {
        for (tuple, flow) in &mut self.flows {
            if flow.next_hop().interface == interface && flow.move_neighbour(now, address, mac, source) {
                self.touched.insert(*tuple);
            }
        }
        self.datagrams.move_neighbour(interface, address, mac);
    }

    /// Solicits the link address of `neighbour` on the interface of `from`, whose source is our
    /// link address there; at most once a second. [`Stack::solicited`] returns the answer.
    pub(crate) fn solicit(&mut self, now: Duration, local: IpAddr, from: &NextHop, neighbour: IpAddr) {
        self.solicitations.solicit(now, local, from, neighbour);
    }

    /// Returns the link address that a neighbour gave to a solicitation within the last 30 seconds.
    pub(crate) fn solicited(&self, now: Duration, interface: u32, neighbour: IpAddr) -> Option<MacAddr> {
        self.solicitations.answer(now, interface, neighbour)
    }

    /// Takes the link address that a neighbour gave to a solicitation. Another one is solicited in its place.
    pub(crate) fn take_solicited(&mut self, interface: u32, neighbour: IpAddr) -> Option<MacAddr> {
        self.solicitations.take_answer(interface, neighbour)
    }

    /// Returns the flows that are stalled and whose neighbour's IP address is unknown. The routing
    /// table may know the address: see [`Stack::locate`].
    pub(crate) fn take_unlocated(&mut self) -> Vec<FiveTuple> {
        std::mem::take(&mut self.unlocated)
    }

    /// Sets the IP address of the neighbour that an accepted flow's packets go to.
    pub(crate) fn locate(&mut self, tuple: &FiveTuple, address: IpAddr) {
        if let Some(flow) = self.flow(tuple) {
            flow.locate(address);
        }
    }

    /// Solicits the neighbour of a stalled flow, which may have moved.
    pub(super) fn look_for_neighbour(&mut self, now: Duration, tuple: FiveTuple) {
        let Some(flow) = self.flows.get(&tuple).filter(|flow| flow.is_stalled(now)) else { return };
        let next_hop = flow.next_hop();
        match flow.neighbour() {
            Neighbour::At(address) | Neighbour::Sender(Some(address)) => {
                self.solicitations.solicit(now, tuple.local.ip(), &next_hop, address);
            }
            Neighbour::Sender(None) if next_hop.destination().is_some() => self.unlocated.push(tuple),
            Neighbour::Sender(None) | Neighbour::Fixed => {}
        }
    }

    /// Applies a change of an interface's MTU or link address.
    pub(crate) fn change_interface(&mut self, now: Duration, was: &Interface, is: &Interface) {
        for (tuple, flow) in &mut self.flows {
            if flow.next_hop().interface == is.index {
                flow.change_interface(now, was, is);
                self.touched.insert(*tuple);
            }
        }
        if let Some(path) = self.listener.as_mut().and_then(|listener| listener.paths.get_mut(&is.index)) {
            path.mtu = is.mtu as usize;
        }
        self.datagrams.change_interface(was, is);
    }

    /// Starts to answer for an address that this host does not own.
    pub fn impersonate(&mut self, assumed: LocalAddress) {
        self.impersonation = Some(Impersonation::new(assumed));
    }

    /// Returns the impersonation, if there is one.
    pub(crate) fn impersonation(&mut self) -> Option<&mut Impersonation> {
        self.impersonation.as_mut()
    }
}
