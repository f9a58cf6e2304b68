//! An observer of probes: a packet socket on all interfaces that sees the packets of one port in both directions, and all
//! ICMP messages, with the kernel's times. It takes none of them.
//!
//! The capture program of a flow passes on the ICMP errors that quote the flow as it left. This socket sees those, too,
//! whose quote a NAT has changed.
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
        AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recvmsg,
        setsockopt, socket, sockopt,
    },
};
use socket2::{SockFilter, SockRef};
use std::{
    io::{self, IoSliceMut},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    time::{Duration, SystemTime},
};

/// Bytes kept of a packet: more than any ICMP error has (RFC 1812, section 4.3.2.3; RFC 4443, section 2.4).
const SNAP: u32 = 2048;
/// Receive buffer, in bytes.
const RECEIVE_BUFFER: usize = 4 << 20;
/// PACKET_OUTGOING (linux/if_packet.h).
const OUTGOING: u8 = 4;

/// A packet that passed by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Passed {
    /// This host sends it.
    pub outgoing: bool,
    /// The kernel's time, since 1970.
    pub time: Duration,
    /// The packet's beginning, from the network header.
    pub bytes: Vec<u8>,
}

/// A packet socket that observes a port and ICMP.
#[derive(Debug)]
pub(crate) struct PathObserver {
    fd: OwnedFd,
}

impl PathObserver {
    /// Observes from now on.
    ///
    /// # Errors
    /// [`LinkError::Io`], without CAP_NET_RAW among others.
    pub(crate) fn open(protocol: Protocol, port: u16) -> Result<PathObserver, LinkError> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Packet, SockType::Datagram, flags, SockProtocol::EthAll)
            .map_err(|errno| failed("open a packet socket", errno.into()))?;
        SockRef::from(&fd)
            .attach_filter(&filter(protocol, port))
            .map_err(|error| failed("attach a filter to a packet socket", error))?;
        setsockopt(&fd, sockopt::ReceiveTimestampns, &true)
            .map_err(|errno| failed("ask for timestamps on a packet socket", errno.into()))?;
        let buffer = setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER);
        buffer.unwrap_or_else(|errno| log::debug!("cannot enlarge an observer's receive buffer: {errno}"));
        let mut observer = PathObserver { fd };
        // Packets that came before the filter.
        observer.take()?;
        Ok(observer)
    }

    /// Makes the kernel stamp packets for as long as the value lives: it begins a while after it is asked to.
    pub(crate) fn stamps() -> Option<OwnedFd> {
        let fd = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).ok()?;
        setsockopt(&fd, sockopt::ReceiveTimestampns, &true).ok()?;
        Some(fd)
    }

    /// Returns the packets that have passed. Does not wait.
    ///
    /// # Errors
    /// [`LinkError::Io`]; a device that goes down is none.
    pub(crate) fn take(&mut self) -> Result<Vec<Passed>, LinkError> {
        let mut passed = Vec::new();
        let mut buffer = [0; SNAP as usize];
        let mut control = nix::cmsg_space!(libc::timespec);
        loop {
            let mut pieces = [IoSliceMut::new(&mut buffer)];
            let flags = MsgFlags::MSG_DONTWAIT;
            let (length, outgoing, time) =
                match recvmsg::<LinkAddr>(self.fd.as_raw_fd(), &mut pieces, Some(&mut control), flags) {
                    Ok(message) => {
                        let outgoing = message.address.is_some_and(|from| from.pkttype() == OUTGOING);
                        let times = message.cmsgs().into_iter().flatten();
                        let time = times.into_iter().find_map(|control| match control {
                            ControlMessageOwned::ScmTimestampns(time) => Some(Duration::from(time)),
                            _ => None,
                        });
                        (message.bytes, outgoing, time.unwrap_or_else(wall_clock))
                    }
                    Err(Errno::EINTR | Errno::ENETDOWN) => continue,
                    Err(Errno::EAGAIN) => return Ok(passed),
                    Err(errno) => return Err(failed("read a packet socket", errno.into())),
                };
            let bytes = buffer.get(..length).unwrap_or_default().to_vec();
            passed.push(Passed { outgoing, time, bytes });
        }
    }
}

fn failed(operation: &'static str, error: io::Error) -> LinkError {
    LinkError::Io { operation, interface: "all interfaces".into(), error, hint: "" }
}

/// Returns the time since 1970, as the kernel stamps packets.
pub(crate) fn wall_clock() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

impl AsFd for PathObserver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Returns a classic filter (linux/filter.h) for packets of this port, and ICMP.
fn filter(protocol: Protocol, port: u16) -> Vec<SockFilter> {
    let (protocol, port) = (u32::from(protocol.number()), u32::from(port));
    let returns = |length| SockFilter::new(RETURN, 0, 0, length);
    // By family: the transport header's offset in X; ICMP; the port at either end.
    let family = |set_x: SockFilter, protocol_at: u32, icmp: u32| {
        [
            set_x,
            SockFilter::new(LOAD_BYTE, 0, 0, protocol_at),
            SockFilter::new(JUMP_EQUAL, 5, 0, icmp),
            SockFilter::new(JUMP_EQUAL, 0, 5, protocol),
            SockFilter::new(LOAD_HALF_INDEXED, 0, 0, 0),
            SockFilter::new(JUMP_EQUAL, 2, 0, port),
            SockFilter::new(LOAD_HALF_INDEXED, 0, 0, 2),
            SockFilter::new(JUMP_EQUAL, 0, 1, port),
            returns(SNAP),
            returns(0),
        ]
    };
    let v4 = family(SockFilter::new(LOAD_IP_LENGTH, 0, 0, 0), 9, 1);
    let v6 = family(SockFilter::new(SET_X, 0, 0, 40), 6, 58);
    let mut code = vec![SockFilter::new(LOAD_HALF, 0, 0, ETHERTYPE)];
    code.push(SockFilter::new(JUMP_EQUAL, 0, v4.len() as u8, libc::ETH_P_IP as u32));
    code.extend(v4);
    code.push(SockFilter::new(JUMP_EQUAL, 1, 0, libc::ETH_P_IPV6 as u32));
    code.push(returns(0));
    code.extend(v6);
    code
}
