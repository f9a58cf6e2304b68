//! A raw packet socket on one interface, for the link emulator and for tests that send frames of their own.
//!
//! With the virtio-net header in front of each frame (PACKET_VNET_HDR, packet(7)), segments that the kernel
//! has not cut yet (GSO) come whole, and go out whole. Calls that no safe wrapper covers are here only.
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt,
};
use std::{
    ffi::CString,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

/// Options of a socket. The default is the plainest.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mode {
    /// A virtio-net header stands before each frame, in both directions.
    pub vnet_header: bool,
    /// Receive frames for other hosts, too.
    pub promiscuous: bool,
    /// Send past the interface's egress qdisc.
    pub qdisc_bypass: bool,
    /// Size of each direction's buffer in bytes; 0 for the system's default.
    pub buffer: usize,
}

/// A non-blocking AF_PACKET socket for the incoming frames of an interface.
pub struct PacketSocket(OwnedFd);

impl PacketSocket {
    /// Opens the socket on an interface of the calling thread's network namespace; needs CAP_NET_RAW.
    pub fn open(interface: &str, mode: Mode) -> io::Result<Self> {
        let index = nix::net::if_::if_nametoindex(CString::new(interface)?.as_c_str())?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        // Protocol 0 hears nothing before bind() names the interface.
        let fd = socket(AddressFamily::Packet, SockType::Raw, flags, None::<SockProtocol>)?;
        let socket = Self(fd);
        socket.set(libc::PACKET_IGNORE_OUTGOING, &1)?;
        if mode.vnet_header {
            socket.set(libc::PACKET_VNET_HDR, &1)?;
        }
        if mode.qdisc_bypass {
            socket.set(libc::PACKET_QDISC_BYPASS, &1)?;
        }
        if mode.promiscuous {
            let membership = libc::packet_mreq {
                mr_ifindex: index as libc::c_int,
                mr_type: libc::PACKET_MR_PROMISC as libc::c_ushort,
                mr_alen: 0,
                mr_address: [0; 8],
            };
            socket.set(libc::PACKET_ADD_MEMBERSHIP, &membership)?;
        }
        if mode.buffer > 0 {
            setsockopt(&socket.0, sockopt::RcvBufForce, &mode.buffer)?;
            setsockopt(&socket.0, sockopt::SndBufForce, &mode.buffer)?;
        }
        socket.bind(index as libc::c_int)?;
        Ok(socket)
    }

    fn set<T: Copy>(&self, option: libc::c_int, value: &T) -> io::Result<()> {
        let length = size_of::<T>() as libc::socklen_t;
        // SAFETY: the kernel reads `length` bytes from `value`, which is that long and lives through the call.
        let done = unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                libc::SOL_PACKET,
                option,
                std::ptr::from_ref(value).cast(),
                length,
            )
        };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn bind(&self, index: libc::c_int) -> io::Result<()> {
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as libc::c_ushort,
            sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
            sll_ifindex: index,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the kernel reads `length` bytes from `address`, which is that long and lives through the call.
        let done = unsafe { libc::bind(self.0.as_raw_fd(), std::ptr::from_ref(&address).cast(), length) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Returns the next frame's length, its virtio-net header included; `None` without a frame.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match recv(self.0.as_raw_fd(), buffer, MsgFlags::empty()) {
            Ok(n) => Ok(Some(n)),
            // EINVAL: a frame that the virtio-net header cannot describe, which the kernel then
            // drops (packet(7)).
            Err(nix::Error::EAGAIN | nix::Error::EINTR | nix::Error::EINVAL) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Sends one frame; ENOBUFS says that an egress rule or qdisc of this host dropped it.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        send(self.0.as_raw_fd(), frame, MsgFlags::empty())?;
        Ok(())
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
