//! Memberships of groups: the kernel tells the routers and switches (IGMP, MLD) and the device that this host is a
//! member, so that the group's frames arrive. A membership ends with its socket, however the program ends.
use super::error::KernelError;
use socket2::{Domain, InterfaceIndexOrAddress, Socket, Type};
use std::{io, net::IpAddr};

/// A membership at one interface.
#[derive(Debug)]
pub(crate) struct Membership(#[allow(dead_code, reason = "kept open")] Socket);

impl Membership {
    /// Joins a group at each of these interfaces that can carry it. Each has a socket of its own, since a socket's
    /// memberships are limited (net.ipv4.igmp_max_memberships).
    ///
    /// # Errors
    /// [`KernelError::Membership`] if there are interfaces, and none takes the membership.
    pub(crate) fn join_all(group: IpAddr, interfaces: &[u32]) -> Result<Vec<Membership>, KernelError> {
        let (mut joined, mut refused) = (Vec::with_capacity(interfaces.len()), None);
        for &interface in interfaces {
            match Membership::join(group, interface) {
                Ok(membership) => joined.push(membership),
                Err(source) => {
                    log::debug!("cannot join {group} at interface {interface}: {source}");
                    refused = Some(source);
                }
            }
        }
        match refused {
            Some(source) if joined.is_empty() => Err(KernelError::Membership { group, source }),
            _ => Ok(joined),
        }
    }

    fn join(group: IpAddr, interface: u32) -> io::Result<Membership> {
        let domain = if group.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::DGRAM, None)?;
        match group {
            IpAddr::V4(group) => {
                socket.join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(interface))?;
            }
            IpAddr::V6(group) => socket.join_multicast_v6(&group, interface)?,
        }
        Ok(Membership(socket))
    }
}
