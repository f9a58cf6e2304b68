//! An observer: a packet socket on all interfaces that sees the packets of a few ports in both directions,
//! and takes none.
//!
//! The kernel hands it what the device received, after XDP and before tc ingress and netfilter, and what
//! the device is about to send, after tc egress, the queueing discipline and nft's netdev egress
//! (dev_queue_xmit_nit and __netif_receive_skb_core in net/core/dev.c).
use super::{
    LinkError,
    bpf_code::{
        ETHERTYPE, JUMP_EQUAL, LOAD_BYTE, LOAD_HALF, LOAD_HALF_INDEXED, LOAD_IP_LENGTH, RETURN, SET_X,
    },
};
use crate::net::Protocol;
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket, sockopt,
    },
};
use socket2::{SockFilter, SockRef};
use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

/// Bytes kept of a packet, from its network header: headers, and what an ICMP error quotes.
const SNAP: u32 = 160;
/// Receive buffer, in bytes.
const RECEIVE_BUFFER: usize = 1 << 20;
/// PACKET_OUTGOING (linux/if_packet.h).
const OUTGOING: u8 = 4;
/// PACKET_OTHERHOST: the frame is for another link address.
const OTHER_HOST: u8 = 3;
/// Maximum ports, which jumps of the filter can span.
const MAX_PORTS: usize = 16;

/// A packet that passed by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Observed {
    /// Index of the interface.
    pub interface: u32,
    /// This host sends it.
    pub outgoing: bool,
    /// The frame is for another link address.
    pub other_host: bool,
    /// The packet's beginning, from the network header.
    pub bytes: Vec<u8>,
}

/// A packet socket that observes ports.
#[derive(Debug)]
pub(crate) struct Observer {
    fd: OwnedFd,
    protocol: Protocol,
    ports: Vec<u16>,
}

impl Observer {
    /// Observes packets from and to a port of a protocol, of IPv4 and IPv6, and ICMP errors that quote them, in the
    /// network namespace of the calling thread.
    ///
    /// # Errors
    /// [`LinkError::Io`], without CAP_NET_RAW among others.
    pub(crate) fn open(protocol: Protocol, port: u16) -> Result<Observer, LinkError> {
        let failed = |operation, hint| {
            move |error: io::Error| LinkError::Io {
                operation,
                interface: "all interfaces".into(),
                error,
                hint,
            }
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Packet, SockType::Datagram, flags, SockProtocol::EthAll)
            .map_err(|errno| failed("open a packet socket", "; it needs CAP_NET_RAW")(errno.into()))?;
        let mut observer = Observer { fd, protocol, ports: Vec::new() };
        let buffer = setsockopt(&observer.fd, sockopt::RcvBufForce, &RECEIVE_BUFFER);
        buffer.unwrap_or_else(|errno| log::debug!("cannot enlarge an observer's receive buffer: {errno}"));
        observer.add(port)?;
        // Packets that came before the filter.
        observer.take().map_err(failed("read a packet socket", ""))?;
        Ok(observer)
    }

    /// Observes one more port; more than 16 are not observed.
    ///
    /// # Errors
    /// [`LinkError::Io`].
    pub(crate) fn add(&mut self, port: u16) -> Result<(), LinkError> {
        if self.ports.contains(&port) || self.ports.len() == MAX_PORTS {
            return Ok(());
        }
        self.ports.push(port);
        SockRef::from(&self.fd).attach_filter(&filter(self.protocol, &self.ports)).map_err(|error| {
            LinkError::Io {
                operation: "attach a filter to a packet socket",
                interface: "all interfaces".into(),
                error,
                hint: "",
            }
        })
    }

    /// Returns the packets that have passed. Does not wait.
    ///
    /// # Errors
    /// Those of recvfrom(2); a device that goes down is none.
    pub(crate) fn take(&mut self) -> io::Result<Vec<Observed>> {
        let mut observed = Vec::new();
        let mut buffer = [0; SNAP as usize];
        loop {
            match recvfrom::<LinkAddr>(self.fd.as_raw_fd(), &mut buffer) {
                Ok((length, Some(from))) => observed.push(Observed {
                    interface: u32::try_from(from.ifindex()).unwrap_or(0),
                    outgoing: from.pkttype() == OUTGOING,
                    other_host: from.pkttype() == OTHER_HOST,
                    bytes: buffer.get(..length).unwrap_or_default().to_vec(),
                }),
                Ok((_, None)) | Err(Errno::EINTR | Errno::ENETDOWN) => {}
                Err(Errno::EAGAIN) => return Ok(observed),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl AsFd for Observer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Returns a classic filter (linux/filter.h) for a protocol's packets of these ports.
fn filter(protocol: Protocol, ports: &[u16]) -> Vec<SockFilter> {
    let mut code = vec![SockFilter::new(LOAD_HALF, 0, 0, ETHERTYPE)];
    // Each section compares the halves at two offsets from X with each port, and ends with "no".
    let section = |offset: u32| {
        let mut part = Vec::new();
        for at in [offset, offset + 2] {
            part.push(SockFilter::new(LOAD_HALF_INDEXED, 0, 0, at));
            part.extend(
                ports
                    .iter()
                    .map(|port| SockFilter::new(JUMP_EQUAL, 0, 1, u32::from(*port)))
                    .flat_map(|jump| [jump, SockFilter::new(RETURN, 0, 0, SNAP)]),
            );
        }
        part.push(SockFilter::new(RETURN, 0, 0, 0));
        part
    };
    // By family: set X to the transport header, load the protocol, then a section for the protocol and one for ICMP.
    let family = |set_x: SockFilter, protocol_at: u32, icmp: u32, quoted: u32| {
        let (own, error) = (section(0), section(quoted));
        let length = own.len() as u8;
        let mut part = vec![set_x, SockFilter::new(LOAD_BYTE, 0, 0, protocol_at)];
        part.push(SockFilter::new(JUMP_EQUAL, 0, length, protocol.number().into()));
        part.extend(own);
        part.push(SockFilter::new(JUMP_EQUAL, 1, 0, icmp));
        part.push(SockFilter::new(RETURN, 0, 0, 0));
        part.extend(error);
        part
    };
    let v4 = family(SockFilter::new(LOAD_IP_LENGTH, 0, 0, 0), 9, 1, 28);
    let v6 = family(SockFilter::new(SET_X, 0, 0, 40), 6, 58, 48);
    code.push(SockFilter::new(JUMP_EQUAL, 0, v4.len() as u8, libc::ETH_P_IP as u32));
    code.extend(v4);
    code.push(SockFilter::new(JUMP_EQUAL, 1, 0, libc::ETH_P_IPV6 as u32));
    code.push(SockFilter::new(RETURN, 0, 0, 0));
    code.extend(v6);
    code
}
