//! Being another host on the segment: its address is asked for first, so that nobody's is stolen, then
//! announced; neighbours are found by our own questions, since the kernel's carry the host's address.
use super::{Engine, Error};
use crate::{
    net::MacAddr,
    stack::{Disguise, Persona},
};
use std::{net::IpAddr, time::Duration};

/// Probes and the silence after each. RFC 5227 waits longer; a diagnosis does not.
const PROBES: u32 = 3;
const PROBE_SILENCE: Duration = Duration::from_millis(150);
/// How often a neighbour is asked again (RFC 4861, section 10, RETRANS_TIMER).
const SOLICIT_INTERVAL: Duration = Duration::from_secs(1);

/// Takes on an address, if nobody has it.
pub fn assume(engine: &mut Engine, persona: Persona) -> Result<(), Error> {
    engine.stack.impersonate(persona);
    for _ in 0..PROBES {
        with(engine, Disguise::probe);
        let deadline = engine.reactor.now() + PROBE_SILENCE;
        if let Some(mac) = engine.run_until(Some(deadline), |stack| stack.disguise()?.rival())? {
            return Err(Error::AddressInUse { address: persona.address, mac });
        }
    }
    with(engine, Disguise::announce);
    log::info!("being {} at {}", persona.address, persona.mac);
    Ok(())
}

/// Finds a neighbour's link address; gives up after `wait`.
pub fn resolve(engine: &mut Engine, address: IpAddr, wait: Duration) -> Result<MacAddr, Error> {
    let end = engine.reactor.now() + wait;
    while engine.reactor.now() < end {
        with(engine, |disguise| disguise.solicit(address));
        let deadline = end.min(engine.reactor.now() + SOLICIT_INTERVAL);
        if let Some(mac) = engine.run_until(Some(deadline), |stack| stack.disguise()?.neighbour())? {
            return Ok(mac);
        }
    }
    Err(Error::NoNeighbour { address, waited: wait })
}

fn with(engine: &mut Engine, work: impl FnOnce(&mut Disguise)) {
    if let Some(disguise) = engine.stack.disguise() {
        work(disguise);
    }
}
