//! Ports that a connection of others uses already, by this host's translation of addresses.
//!
//! netkat stands before that translation. Of a listener's port, the flow table tells whose a TCP segment is. A
//! client whose peer and port are the same as theirs, and a UDP listener, to whom any datagram may be the first,
//! can only take another port.
use super::{Error, Setup};
use crate::{
    host::conntrack,
    net::{FiveTuple, Protocol},
};
use std::net::SocketAddr;

/// Refuses a port of ours whose packets could not be told from those of a translated connection.
///
/// # Errors
/// [`Error::Masqueraded`] with the connection. What can't be asked is no error.
pub fn refuse(setup: &Setup, port: u16) -> Result<(), Error> {
    let found = match (setup.remote, setup.local.as_slice()) {
        (Some(remote), [local, ..]) if remote.port() != 0 => {
            let local = SocketAddr::new(*local, port);
            conntrack::twin(&FiveTuple { protocol: setup.protocol, local, remote })
        }
        (None, addresses) if setup.protocol == Protocol::Udp => {
            conntrack::at_port(Protocol::Udp, addresses, port)
        }
        _ => Ok(None),
    };
    match found {
        Ok(None) => Ok(()),
        Ok(Some(connection)) if setup.force => {
            log::warn!("taking {} port {port} with --force: {connection}", setup.protocol);
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
