//! A port whose packets the host's rules give another destination: a NodePort, a hostPort, a published container port.
//!
//! Its clients reach no socket of this host, so that no socket shows that the port is taken. netkat stands before the
//! translation: it would get all of its packets, those of established connections, too.
use super::{Error, Setup};
use crate::{
    host::{interface, rules},
    kernel,
};
use std::net::SocketAddr;

/// Refuses a listener's port that a rule translates. A client's port and that of an assumed address are nobody's
/// service: rules see neither's packets.
///
/// # Errors
/// [`Error::Translated`] with the rule's place. What can't be read is no error.
pub fn refuse(setup: &Setup) -> Result<(), Error> {
    if setup.remote.is_some() || setup.persona.is_some() {
        return Ok(());
    }
    let at: Vec<_> = setup.local.iter().map(|ip| SocketAddr::new(*ip, setup.port)).collect();
    let tables = kernel::legacy_nat_tables();
    match rules::translation(setup.protocol, &at, &arrivals(setup), &tables) {
        None => Ok(()),
        Some((at, rule)) if setup.force => {
            log::warn!("taking port {} of {} with --force: {rule}", at.port(), at.ip());
            Ok(())
        }
        Some((at, rule)) => Err(Error::Translated { at, rule: Box::new(rule) }),
    }
}

/// The interfaces by which rules see the packets come in: ours, or the bridge, bond or VRF that one is a port of. What
/// comes by lo was sent by this host and has been translated, or not, on its way out (nf_nat_inet_fn in
/// net/netfilter/nf_nat_core.c).
fn arrivals(setup: &Setup) -> Vec<(u32, String)> {
    let own = setup.interfaces.iter().filter(|interface| !interface.loopback);
    let mut arrivals = Vec::new();
    for interface in own {
        arrivals.push((interface.index, interface.name.clone()));
        if let Some(master) = interface.master
            && let Some(name) = interface::name(master)
        {
            arrivals.push((master, name));
        }
    }
    arrivals.sort_unstable();
    arrivals.dedup();
    arrivals
}
