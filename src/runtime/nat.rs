//! Ports that this host's NAT uses: netkat stands before the translation and would get the packets of others.
//!
//! A rule may give packets for a port another destination (a NodePort, a hostPort, a published container
//! port), or conntrack may have a connection whose packets carry a port of this host (masquerading). In
//! neither case has a socket the port, so binding it shows nothing.
use super::{Error, Setup};
use crate::{
    host::{conntrack, interface, rules},
    kernel,
    net::{FiveTuple, Protocol},
};
use std::net::SocketAddr;

/// Refuses a listener's port that a rule translates. Rules do not see the packets of a client's port and of
/// an assumed address, and NAT leaves groups alone.
///
/// # Errors
/// [`Error::Translated`] with the rule's place. Rules that cannot be read are no error.
pub fn refuse_translated(setup: &Setup) -> Result<(), Error> {
    if setup.remote.is_some() || setup.assumed.is_some() || setup.groups.only {
        return Ok(());
    }
    let at: Vec<_> = setup.local.iter().map(|ip| SocketAddr::new(*ip, setup.port)).collect();
    let tables = kernel::legacy_nat_tables();
    match rules::translation(setup.protocol, &at, &ingress_interfaces(setup), &tables) {
        None => Ok(()),
        Some((at, rule)) if setup.force => {
            log::warn!("taking port {} of {} all the same: {rule}", at.port(), at.ip());
            Ok(())
        }
        Some((at, rule)) => Err(Error::Translated { at, rule: Box::new(rule) }),
    }
}

/// Returns index and name of the interfaces by which rules see packets arrive: ours, or the bridge, bond or
/// VRF that one is a port of. A packet that arrives by lo was sent by this host and translated, or not, on its way
/// out (nf_nat_inet_fn in net/netfilter/nf_nat_core.c).
fn ingress_interfaces(setup: &Setup) -> Vec<(u32, String)> {
    let own = setup.interfaces.iter().filter(|interface| !interface.loopback);
    let mut ingress = Vec::new();
    for interface in own {
        ingress.push((interface.index, interface.name.clone()));
        if let Some(master) = interface.master
            && let Some(name) = interface::name(master)
        {
            ingress.push((master, name));
        }
    }
    ingress.sort_unstable();
    ingress.dedup();
    ingress
}

/// Refuses a port whose packets netkat could not tell from those of a masqueraded connection: a client's,
/// whose peer and port are the same, and a UDP listener's, to whom any datagram may be the first. A TCP
/// listener's flow table tells them apart.
///
/// # Errors
/// [`Error::Masqueraded`] with the connection. A kernel that does not tell is no error.
pub fn refuse_masqueraded(setup: &Setup, port: u16) -> Result<(), Error> {
    let found = match (setup.remote, setup.local.as_slice()) {
        _ if setup.groups.only => Ok(None),
        (Some(_), addresses) if setup.to_group => conntrack::at_port(Protocol::Udp, addresses, port),
        (Some(remote), [local, ..]) if remote.port() != 0 => {
            let local = SocketAddr::new(*local, port);
            let remote = SocketAddr::new(remote.ip(), remote.port());
            conntrack::translated_connection(&FiveTuple { protocol: setup.protocol, local, remote })
        }
        (None, addresses) if setup.protocol == Protocol::Udp => {
            conntrack::at_port(Protocol::Udp, addresses, port)
        }
        _ => Ok(None),
    };
    match found {
        Ok(None) => Ok(()),
        Ok(Some(connection)) if setup.force => {
            log::warn!("taking {} port {port} all the same: {connection}", setup.protocol);
            Ok(())
        }
        Ok(Some(connection)) => {
            Err(Error::Masqueraded { protocol: setup.protocol, port, connection: Box::new(connection) })
        }
        Err(error) => {
            log::debug!("cannot ask conntrack whether {} port {port} is in use: {error}", setup.protocol);
            Ok(())
        }
    }
}
