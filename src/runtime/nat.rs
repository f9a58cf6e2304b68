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
pub(crate) fn refuse_translated(setup: &Setup, port: u16) -> Result<(), Error> {
    if !setup.remotes.is_empty() || setup.assumed.is_some() || setup.groups.only {
        return Ok(());
    }
    let at: Vec<_> = setup.local.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
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
pub(crate) fn refuse_masqueraded(setup: &Setup, port: u16) -> Result<(), Error> {
    let found = match setup.remotes.as_slice() {
        _ if setup.groups.only => Ok(None),
        remotes if setup.protocol == Protocol::Udp && (remotes.is_empty() || setup.to_group) => {
            conntrack::at_port(Protocol::Udp, &setup.local, port)
        }
        remotes => {
            let mut tuples = own_tuples(setup, remotes, port);
            tuples.find_map(|tuple| conntrack::translated_connection(&tuple).transpose()).transpose()
        }
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

/// Returns the five-tuples that a client's connections may have.
fn own_tuples<'a>(
    setup: &'a Setup,
    remotes: &'a [SocketAddr],
    port: u16,
) -> impl Iterator<Item = FiveTuple> + 'a {
    let remotes = remotes.iter().filter(|remote| remote.port() != 0);
    remotes.flat_map(move |remote| {
        let locals = setup.local.iter().filter(|ip| ip.is_ipv4() == remote.is_ipv4());
        let tuple = |local: &_| FiveTuple {
            protocol: setup.protocol,
            local: SocketAddr::new(*local, port),
            remote: SocketAddr::new(remote.ip(), remote.port()),
        };
        locals.map(tuple).collect::<Vec<_>>()
    })
}
