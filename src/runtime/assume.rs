//! An assumed address: netkat probes for it first, so as not to take another host's, then announces it, and
//! resolves neighbours itself, since the kernel's requests carry this host's address.
use super::{Engine, Error};
use crate::{
    neighbour::{Impersonation, LocalAddress},
    net::{MacAddr, zone::ScopedIp},
};
use std::{net::IpAddr, time::Duration};

/// Number of probes.
const PROBES: u32 = 3;
/// Wait for an answer to each probe. RFC 5227 waits longer; a diagnosis does not.
const PROBE_SILENCE: Duration = Duration::from_millis(150);
/// Interval of solicitations (RFC 4861, section 10, RETRANS_TIMER).
const SOLICIT_INTERVAL: Duration = Duration::from_secs(1);

/// Assumes an address, if no host on the segment has it.
///
/// # Errors
/// [`Error::AddressInUse`], or those of the link.
pub(crate) fn assume(engine: &mut Engine, assumed: LocalAddress) -> Result<(), Error> {
    engine.stack.impersonate(assumed);
    for _ in 0..PROBES {
        with(engine, Impersonation::probe);
        let deadline = engine.reactor.now() + PROBE_SILENCE;
        if let Some(mac) = engine.run_until(Some(deadline), |stack| stack.impersonation()?.conflict())? {
            let address = ScopedIp::new(assumed.address, assumed.interface);
            return Err(Error::AddressInUse { address, mac });
        }
    }
    with(engine, Impersonation::announce);
    log::info!("being {} at {}", ScopedIp::new(assumed.address, assumed.interface), assumed.mac);
    Ok(())
}

/// Resolves a neighbour's link address within `wait`.
///
/// # Errors
/// [`Error::NoNeighbour`], or those of the link.
pub(crate) fn resolve(engine: &mut Engine, address: IpAddr, wait: Duration) -> Result<MacAddr, Error> {
    let end = engine.reactor.now() + wait;
    while engine.reactor.now() < end {
        with(engine, |impersonation| impersonation.solicit(address));
        let deadline = end.min(engine.reactor.now() + SOLICIT_INTERVAL);
        if let Some(mac) = engine.run_until(Some(deadline), |stack| stack.impersonation()?.neighbour())? {
            return Ok(mac);
        }
    }
    let interface = engine.stack.impersonation().map_or(0, |disguise| disguise.interface());
    Err(Error::NoNeighbour { address: ScopedIp::new(address, interface), waited: wait })
}

fn with(engine: &mut Engine, work: impl FnOnce(&mut Impersonation)) {
    if let Some(impersonation) = engine.stack.impersonation() {
        work(impersonation);
    }
}
