//! An assumed address of a command's: netkat probes for it first, so as not to take another host's, and then
//! announces it.
use super::Error;
use crate::{
    link::{Link, LinkHeader, PacketSocket},
    neighbour::{self, Impersonation, LocalAddress},
    net::zone::ScopedIp,
    runtime,
    sniffer::tap::Tap,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::{
    os::fd::AsFd,
    time::{Duration, Instant},
};

/// Number of probes, and the wait for an answer to each (RFC 5227 waits longer; a diagnosis does not).
const PROBES: u32 = 3;
const SILENCE: Duration = Duration::from_millis(150);

/// Assumes an address, if no host on the segment has it. Returns what answers for the address from then on.
///
/// # Errors
/// [`runtime::Error::AddressInUse`], or those of the wire.
pub(super) fn assume(wire: &mut Tap<PacketSocket>, assumed: LocalAddress) -> Result<Impersonation, Error> {
    let mut impersonation = Impersonation::new(assumed);
    for _ in 0..PROBES {
        impersonation.probe();
        impersonation.send(wire)?;
        let end = Instant::now() + SILENCE;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            let wait = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
            let _ = poll(&mut [PollFd::new(wire.as_fd(), PollFlags::POLLIN)], wait);
            while let Some(received) = wire.receive()? {
                let LinkHeader::Ethernet { destination: from, .. } = received.reply.header else { continue };
                let packet = received.frame.get(received.network..).unwrap_or_default();
                if let Some(resolution) = neighbour::parse(received.ethertype, packet, from) {
                    impersonation.handle(&resolution);
                }
                if let Some(mac) = impersonation.conflict() {
                    return Err(runtime::Error::AddressInUse {
                        address: ScopedIp::new(assumed.address, assumed.interface),
                        mac,
                    }
                    .into());
                }
            }
        }
    }
    impersonation.announce();
    impersonation.send(wire)?;
    log::info!("being {} at {}", assumed.address, assumed.mac);
    Ok(impersonation)
}
