//! A packet socket (packet(7)): the only entry and exit of frames.
//!
//! The order at start lets no frame in unfiltered and misses none: [`PacketSocket::open`] makes a
//! socket that receives nothing and attaches the capture program; [`PacketSocket::bind`] opens the
//! tap. The tap is for ETH_P_ALL, because the kernel runs only such taps before tc ingress, where
//! the guard drops the kernel's copy.
#![allow(unsafe_code)]

use super::{
    ChecksumState, Link, LinkError, LinkHeader, MAX_LINK_HEADER, NextHop, Offloads, Outgoing, Received,
    VlanTag, coalesce::Joined, ethtool, header, ring::Ring, virtio,
};
use crate::{
    host::{
        features::FeatureOverrides,
        interface::{self, Interface},
    },
    net::arphrd,
};
use nix::{
    errno::Errno,
    sys::socket::{self, MsgFlags},
};
use std::{
    cell::Cell,
    io,
    mem::{size_of, zeroed},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    ptr,
    time::{Duration, SystemTime},
};

/// Maximum coalesced frame, in bytes: gso_max_size goes up to 8 × 65535 (linux/netdevice.h,
/// GSO_MAX_SIZE). The kernel allocates no page that no frame reaches.
const FRAME_ROOM: usize = 8 * 65536 + 256;
/// Segments that make a burst. A dialogue has fewer.
const BURST: usize = 32;
/// Size of the control buffer, in bytes: more than auxiliary data and a timestamp need.
const CONTROL_ROOM: usize = 256;

/// Options of a packet socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options<'a> {
    /// The interface's index; `None` receives on all interfaces.
    pub interface: Option<u32>,
    /// The socket filter; without one, every frame arrives.
    pub filter: Option<SocketFilter<'a>>,
    /// Enable the virtio-net header, which offloads depend on.
    pub vnet_header: bool,
    /// Pretend that the kernel lacks these features.
    pub overrides: FeatureOverrides,
    /// Let the kernel cut super-frames.
    pub segmentation: bool,
    /// Send past the programs at egress and the queueing disciplines (packet(7), PACKET_QDISC_BYPASS). Taps do not see what
    /// is sent so, and the kernel segments no super-frame.
    pub past_egress: bool,
    /// Receive this host's own frames, too.
    pub outgoing: bool,
    /// Report the kernel's receive times.
    pub timestamps: bool,
    /// Receive buffer, in bytes (SO_RCVBUFFORCE; without CAP_NET_ADMIN, net.core.rmem_max is the
    /// maximum).
    pub receive_buffer: usize,
}

/// A program that decides which frames the socket receives.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SocketFilter<'a> {
    /// A loaded eBPF program of type BPF_PROG_TYPE_SOCKET_FILTER.
    Extended(BorrowedFd<'a>),
    /// A program of classic BPF, whose positions count from the first byte of the frame.
    Classic(&'a [libc::sock_filter]),
}

impl<'a> Options<'a> {
    /// Returns the options for an end of a command's device, which hands over super-frames whole.
    pub(crate) fn of_device(interface: u32, filter: Option<SocketFilter<'a>>, receive_buffer: usize) -> Self {
        Options {
            interface: Some(interface),
            filter,
            vnet_header: true,
            overrides: FeatureOverrides::default(),
            segmentation: true,
            past_egress: false,
            outgoing: false,
            timestamps: false,
            receive_buffer,
        }
    }
}

/// The kernel's counters since the previous query (packet(7), PACKET_STATISTICS).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Statistics {
    /// Frames that passed the filter, including dropped ones.
    pub received: u32,
    /// Frames dropped for a full receive buffer, or because the virtio-net header cannot describe
    /// them.
    pub dropped: u32,
}

/// A packet socket on one interface or on all.
#[derive(Debug)]
pub(crate) struct PacketSocket {
    fd: OwnedFd,
    interface: Option<u32>,
    name: String,
    /// One frame, behind its virtio-net header if that is enabled.
    buffer: Vec<u8>,
    vnet_header: bool,
    /// The type of the only interface if recv(2), the cheapest call, suffices: interface,
    /// virtio-net header and frame then tell everything.
    plain: Option<u16>,
    /// Frames arrive in it, and only those that exceed its slots in the queue.
    ring: Option<Ring>,
    /// Segments that came by the ring since the previous [`PacketSocket::has_taken_burst`].
    taken: Cell<usize>,
    /// Set for a sniffer, which wants every frame.
    sniffs: bool,
    /// A full send buffer makes [`Link::transmit`] wait.
    blocks: bool,
    /// Frames that the virtio-net header cannot describe, lost since the previous
    /// [`PacketSocket::statistics`].
    undescribed: Cell<u32>,
    offloads: Offloads,
}

impl PacketSocket {
    /// Opens a socket that has its filter and options but receives nothing yet.
    ///
    /// A kernel without `PACKET_VNET_HDR` for raw sockets costs the offloads; one without
    /// `PACKET_IGNORE_OUTGOING` (before 4.20) makes netkat skip outgoing frames itself.
    ///
    /// # Errors
    /// [`LinkError::Io`], without CAP_NET_RAW among others.
    pub(crate) fn open(options: &Options<'_>) -> Result<PacketSocket, LinkError> {
        let name = name_of(options.interface);
        let failed = |operation, hint| {
            let error = io::Error::last_os_error();
            LinkError::Io { operation, interface: name.clone(), error, hint }
        };
        // SAFETY: socket(2) takes no pointers.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(failed("open a packet socket", "; it needs CAP_NET_RAW"));
        }
        // SAFETY: the descriptor is new and has no other owner.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let set = |level, option, value: libc::c_int| set_option(fd.as_raw_fd(), level, option, &value);
        if !options.filter.is_none_or(|filter| attach(&fd, filter)) {
            return Err(failed("attach the capture program to a packet socket", ""));
        }
        let incoming = !options.outgoing && set(libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1);
        if !options.outgoing && !incoming {
            log::info!("the kernel cannot ignore outgoing packets (before 4.20); netkat skips them itself");
        }
        let vnet_header = options.vnet_header
            && !options.overrides.no_vnet_header
            && set(libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1);
        if options.vnet_header && !vnet_header {
            log::info!("the kernel has no virtio-net header for packet sockets: no offloads on {name}");
        }
        // The virtio-net header replaces auxiliary data except for VLAN tags, which only a sniffer
        // needs.
        if (!vnet_header || options.outgoing) && !set(libc::SOL_PACKET, libc::PACKET_AUXDATA, 1) {
            return Err(failed("ask for auxiliary data on a packet socket", ""));
        }
        if options.past_egress && !set(libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1) {
            return Err(failed("send past the queueing discipline by a packet socket", ""));
        }
        if options.timestamps && !set(libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1) {
            return Err(failed("ask for timestamps on a packet socket", ""));
        }
        let size = options.receive_buffer.min(libc::c_int::MAX as usize / 2) as libc::c_int;
        if !set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, size) && !set(libc::SOL_SOCKET, libc::SO_RCVBUF, size)
        {
            return Err(failed("size the receive buffer of a packet socket", ""));
        }
        Ok(PacketSocket {
            fd,
            interface: options.interface,
            buffer: vec![0; virtio::LEN + FRAME_ROOM],
            vnet_header,
            plain: (incoming && vnet_header && !options.timestamps && options.interface.is_some())
                .then_some(0),
            ring: None,
            taken: Cell::new(0),
            sniffs: options.outgoing,
            blocks: true,
            undescribed: Cell::new(0),
            offloads: Offloads {
                checksum: vnet_header,
                // __dev_direct_xmit() (net/core/dev.c) drops what it would have to cut in software.
                segmentation: vnet_header && options.segmentation && !options.past_egress,
            },
            name,
        })
    }

    /// Makes [`Link::transmit`] fail with [`LinkError::Full`] where it would wait for room.
    pub(crate) fn set_nonblocking(&mut self) {
        self.blocks = false;
    }

    /// Returns the next hop with this link header on the socket's only interface.
    pub(crate) fn next_hop(&self, header: LinkHeader) -> NextHop {
        NextHop { interface: self.interface.unwrap_or(0), header }
    }

    /// Returns the descriptor of a bound socket, for another process.
    pub(crate) fn into_descriptor(self) -> OwnedFd {
        self.fd
    }

    /// Returns the socket that another process has opened, with the virtio-net header, and bound to one
    /// Ethernet-like interface of its own network namespace. Errors call the interface `name`. The receive
    /// buffer grows to `receive_buffer` bytes, which that process may lack the privilege for.
    pub(crate) fn adopt(fd: OwnedFd, interface: u32, name: &str, receive_buffer: usize) -> PacketSocket {
        let size = receive_buffer.min(libc::c_int::MAX as usize / 2) as libc::c_int;
        if !set_option(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &size) {
            log::debug!("the receive buffer of {name} stays at net.core.rmem_max");
        }
        PacketSocket {
            fd,
            interface: Some(interface),
            name: name.to_owned(),
            buffer: vec![0; virtio::LEN + FRAME_ROOM],
            vnet_header: true,
            plain: Some(arphrd::ETHER),
            ring: None,
            taken: Cell::new(0),
            sniffs: false,
            blocks: false,
            undescribed: Cell::new(0),
            offloads: Offloads { checksum: true, segmentation: true },
        }
    }

    /// Receives by a ring of about `bytes` bytes from now on, if frames arrive segment by segment on one of `interfaces`:
    /// reading them costs no system call each, and segments that follow each other reach the stack as one frame. Call it
    /// before [`PacketSocket::bind`]. A ring takes memory, and setting it up waits for a grace period, so super-frames do
    /// without it. Kernels that refuse it do, too.
    pub(crate) fn receive_by_ring<'n>(
        &mut self,
        interfaces: impl IntoIterator<Item = &'n Interface>,
        bytes: usize,
    ) {
        let in_segments = |interface: &&Interface| {
            !interface.loopback
                && ethtool::arrives_in_segments(self.fd.as_fd(), &interface.name, interface.kind.as_deref())
        };
        let mtu = interfaces.into_iter().filter(in_segments).map(|interface| interface.mtu as usize).max();
        let Some(mtu) = mtu.filter(|_| self.vnet_header) else { return };
        match Ring::set_up(self.fd.as_fd(), mtu, bytes) {
            Ok(ring) => {
                log::info!(
                    "frames arrive segment by segment on {}: receiving by a ring of {} slots",
                    self.name,
                    ring.slots()
                );
                self.ring = Some(ring);
            }
            Err(error) => log::info!("no ring to receive by on {}: {error}", self.name),
        }
    }

    /// Opens the tap: frames arrive from now on.
    ///
    /// # Errors
    /// The error of bind(2), as a [`LinkError`].
    pub(crate) fn bind(&mut self) -> Result<(), LinkError> {
        let address = link_address(self.interface.unwrap_or(0), libc::ETH_P_ALL as u16);
        // SAFETY: the pointer and the length describe one sockaddr_ll that outlives the call.
        let result = unsafe {
            libc::bind(
                self.fd.as_raw_fd(),
                ptr::from_ref(&address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if result < 0 {
            return Err(self.failed("bind a packet socket"));
        }
        let hardware = self.bound().map(|address| address.sll_hatype);
        self.plain = self.plain.and(hardware).filter(|hardware| header::is_ethernet(*hardware));
        Ok(())
    }

    /// Returns the address that the socket is bound to.
    fn bound(&self) -> Option<libc::sockaddr_ll> {
        let mut address = link_address(0, 0);
        let mut len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the pointer and the length describe one writable sockaddr_ll that outlives the
        // call.
        let result =
            unsafe { libc::getsockname(self.fd.as_raw_fd(), ptr::from_mut(&mut address).cast(), &mut len) };
        (result == 0).then_some(address)
    }

    /// Receives every frame on the segment, not just this host's, until the socket closes.
    ///
    /// # Errors
    /// The error of setsockopt(2), as a [`LinkError`].
    pub(crate) fn set_promiscuous(&self, interface: u32) -> Result<(), LinkError> {
        let membership = libc::packet_mreq {
            mr_ifindex: interface as libc::c_int,
            mr_type: libc::PACKET_MR_PROMISC as libc::c_ushort,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        if set_option(self.fd.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &membership) {
            Ok(())
        } else {
            Err(self.failed("make promiscuous"))
        }
    }

    /// Returns the kernel's counters since the previous call, and resets them.
    ///
    /// # Errors
    /// The error of getsockopt(2).
    pub(crate) fn statistics(&self) -> io::Result<Statistics> {
        let stats = kernel_statistics(self.fd.as_fd())?;
        let dropped = stats.tp_drops.saturating_add(self.undescribed.take());
        Ok(Statistics { received: stats.tp_packets, dropped })
    }

    /// Returns whether a burst of segments has come by the ring since the previous call, so that more are likely to come.
    pub(crate) fn has_taken_burst(&self) -> bool {
        self.taken.take() >= BURST
    }

    /// Handles the loss of a coalesced frame that the virtio-net header cannot describe (neither
    /// TCP nor UDP). A sniffer disables the header, so that it sees the next such frame; a flow has
    /// no use for them.
    fn forgo_vnet_header(&mut self) {
        self.undescribed.set(self.undescribed.get().saturating_add(1));
        if self.sniffs
            && set_option(self.fd.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_VNET_HDR, &(0 as libc::c_int))
        {
            self.vnet_header = false;
            self.offloads = Offloads { checksum: false, segmentation: false };
            log::warn!(
                "{}: the kernel dropped a coalesced frame that it could not describe; from here on coalesced frames \
                 are shown without the size of their segments",
                self.name
            );
        }
    }

    /// Returns whether the bound interface is gone: the kernel then sets its index to -1
    /// (net/packet/af_packet.c, packet_notifier).
    fn has_lost_interface(&self) -> bool {
        self.bound().is_some_and(|address| address.sll_ifindex == -1)
    }

    fn failed(&self, operation: &'static str) -> LinkError {
        self.explain(operation, io::Error::last_os_error())
    }

    /// Classifies an error by its consequence for the connection.
    fn explain(&self, operation: &'static str, error: io::Error) -> LinkError {
        self.explain_on(self.interface, operation, error)
    }

    fn explain_on(&self, index: Option<u32>, operation: &'static str, error: io::Error) -> LinkError {
        let interface = if index == self.interface { self.name.clone() } else { name_of(index) };
        match error.raw_os_error() {
            Some(libc::ENOBUFS) => LinkError::EgressDropped { interface },
            // sendto(2) tells Gone from Down; recvmsg(2) returns ENETDOWN for both.
            Some(libc::ENXIO | libc::ENODEV) => LinkError::Gone { interface },
            Some(libc::ENETDOWN) if self.has_lost_interface() => LinkError::Gone { interface },
            Some(libc::ENETDOWN) => LinkError::Down { interface },
            _ => LinkError::Io { operation, interface, error, hint: "" },
        }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A frame in the buffer, and its metadata from the kernel.
struct Arrival {
    /// Bytes in the buffer and on the wire, both with the virtio-net header.
    len: usize,
    wire_len: usize,
    interface: u32,
    hardware_type: u16,
    protocol: u16,
    outgoing: bool,
    ancillary: Ancillary,
}

impl PacketSocket {
    /// Receives one frame into the buffer.
    fn take(&mut self) -> io::Result<Arrival> {
        let Some(ring) = &mut self.ring else { return self.take_queued() };
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
        while let Some(slot) = ring.first() {
            let mut arrival = Arrival {
                len: slot.bytes.len().min(self.buffer.len()),
                wire_len: slot.wire_len,
                interface: slot.interface,
                hardware_type: slot.hardware_type,
                protocol: slot.protocol,
                outgoing: slot.packet_type == libc::PACKET_OUTGOING,
                ancillary: Ancillary::NONE,
            };
            if slot.queued {
                // Without its address, which only the slot has (net/packet/af_packet.c, tpacket_rcv()).
                let received = socket::recv(self.fd.as_raw_fd(), &mut self.buffer, flags);
                ring.release();
                arrival.wire_len = match received {
                    Err(Errno::EAGAIN) => continue,
                    received => received?,
                };
                arrival.len = arrival.wire_len.min(self.buffer.len());
            } else {
                self.buffer[..arrival.len].copy_from_slice(&slot.bytes[..arrival.len]);
                ring.release();
                self.taken.set(self.taken.get() + 1);
            }
            return Ok(arrival);
        }
        // An error, as of an interface that goes down, waits in the socket. A frame in the queue waits for its slot.
        let pending = socket::recv(self.fd.as_raw_fd(), &mut self.buffer, flags | MsgFlags::MSG_PEEK);
        Err(pending.err().unwrap_or(Errno::EAGAIN).into())
    }

    /// Receives one frame of the socket's queue into the buffer.
    fn take_queued(&mut self) -> io::Result<Arrival> {
        match (self.plain, self.interface) {
            (Some(hardware_type), Some(interface)) => {
                let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
                let wire_len = socket::recv(self.fd.as_raw_fd(), &mut self.buffer, flags)?;
                Ok(Arrival {
                    len: wire_len.min(self.buffer.len()),
                    wire_len,
                    interface,
                    hardware_type,
                    protocol: 0,
                    outgoing: false,
                    ancillary: Ancillary::NONE,
                })
            }
            _ => self.take_message(),
        }
    }

    /// Receives one frame into the buffer, with all of the kernel's metadata.
    fn take_message(&mut self) -> io::Result<Arrival> {
        let mut control = [0u64; CONTROL_ROOM / 8];
        // SAFETY: sockaddr_ll and msghdr are plain integers and pointers, for which zero is valid.
        let (mut from, mut message): (libc::sockaddr_ll, libc::msghdr) = unsafe { zeroed() };
        let mut piece = libc::iovec { iov_base: self.buffer.as_mut_ptr().cast(), iov_len: self.buffer.len() };
        message.msg_name = ptr::from_mut(&mut from).cast();
        message.msg_namelen = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        message.msg_iov = ptr::from_mut(&mut piece);
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = CONTROL_ROOM as _;
        // SAFETY: every pointer in `message` is to a local or to self.buffer, with its length; all
        // outlive the call.
        let got =
            unsafe { libc::recvmsg(self.fd.as_raw_fd(), &mut message, libc::MSG_DONTWAIT | libc::MSG_TRUNC) };
        let Ok(wire_len) = usize::try_from(got) else { return Err(io::Error::last_os_error()) };
        Ok(Arrival {
            len: wire_len.min(self.buffer.len()),
            wire_len,
            interface: from.sll_ifindex as u32,
            hardware_type: from.sll_hatype,
            protocol: u16::from_be(from.sll_protocol),
            outgoing: from.sll_pkttype == libc::PACKET_OUTGOING,
            ancillary: ancillary(&message),
        })
    }
}

impl Link for PacketSocket {
    fn receive(&mut self) -> Result<Option<Received<'_>>, LinkError> {
        let arrival = loop {
            match self.take() {
                Ok(arrival) => break arrival,
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => return Ok(None),
                    Some(libc::EINTR) => {}
                    Some(libc::EINVAL) if self.vnet_header => self.forgo_vnet_header(),
                    _ => return Err(self.explain("receive", error)),
                },
            }
        };
        let Arrival { len, wire_len, interface, hardware_type, protocol, outgoing, ancillary } = arrival;
        let before = if self.vnet_header { virtio::LEN.min(len) } else { 0 };
        let (before, room) = self.buffer.split_at_mut(before);
        let mut len = len - before.len();
        let (mut checksum, mut segment_size) =
            before.first_chunk().map_or((ancillary.checksum, 0), virtio::decode);
        let link = header::parse(&room[..len], hardware_type, protocol);
        let mut wire_len = wire_len - before.len();
        if let Some(ring) = &mut self.ring
            && (segment_size, wire_len) == (0, len)
            && let Some(joined) = join(ring, room, len, &link, checksum.is_trusted(), interface)
        {
            self.taken.set(self.taken.get() + joined.segments() - 1);
            (len, wire_len) = (joined.end(), joined.end());
            (checksum, segment_size) = (ChecksumState::Verified, joined.segment_size());
        }
        let frame = &mut room[..len];
        Ok(Some(Received {
            reply: NextHop { interface, header: link.reply },
            network: link.len,
            ethertype: link.ethertype,
            checksum,
            segment_size,
            hardware_type,
            vlan: ancillary.vlan,
            outgoing,
            wire_len,
            time: ancillary.time,
            frame,
        }))
    }

    fn transmit(&mut self, next_hop: &NextHop, packet: &Outgoing<'_>) -> Result<(), LinkError> {
        let mut link = [0u8; MAX_LINK_HEADER];
        let link_len = next_hop.header.write(packet.ethertype, &mut link);
        let vnet = virtio::encode(packet, link_len);
        let address = link_address(next_hop.interface, packet.ethertype);
        let piece = |bytes: &[u8]| libc::iovec { iov_base: bytes.as_ptr() as *mut _, iov_len: bytes.len() };
        let mut pieces = [
            piece(&vnet),
            piece(&link[..link_len]),
            piece(packet.headers),
            piece(packet.payload[0]),
            piece(packet.payload[1]),
        ];
        let skip = usize::from(!self.vnet_header);
        // SAFETY: msghdr is plain integers and pointers, for which zero is valid.
        let mut message: libc::msghdr = unsafe { zeroed() };
        message.msg_name = ptr::from_ref(&address) as *mut _;
        message.msg_namelen = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        message.msg_iov = pieces[skip..].as_mut_ptr();
        message.msg_iovlen = (pieces.len() - skip) as _;
        let flags = if self.blocks { 0 } else { libc::MSG_DONTWAIT };
        loop {
            // SAFETY: every pointer in `message` is to a local or to the caller's packet, with its
            // length; sendmsg only reads through them.
            if unsafe { libc::sendmsg(self.fd.as_raw_fd(), &message, flags) } >= 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            let interface = || name_of(Some(next_hop.interface));
            return Err(match error.raw_os_error() {
                Some(libc::EINTR) => continue,
                Some(libc::EAGAIN) => LinkError::Full { interface: interface() },
                Some(libc::EINVAL | libc::EIO) if packet.segmentation.is_some() => {
                    self.offloads.segmentation = false;
                    LinkError::OffloadRefused { offload: "segmentation offload", interface: interface() }
                }
                Some(libc::EINVAL | libc::EIO) if packet.checksum.is_some() => {
                    self.offloads = Offloads { checksum: false, segmentation: false };
                    LinkError::OffloadRefused { offload: "checksum offload", interface: interface() }
                }
                Some(libc::EMSGSIZE) => {
                    LinkError::TooLong { len: link_len + packet.len(), interface: interface() }
                }
                _ => self.explain_on(Some(next_hop.interface), "send", error),
            });
        }
    }

    fn offloads(&self) -> Offloads {
        self.offloads
    }
}

/// Joins the segments in the ring that continue the frame at the front of `room` to it. Returns `None` if there is none.
fn join(
    ring: &mut Ring,
    room: &mut [u8],
    len: usize,
    link: &header::Parsed,
    trusted: bool,
    interface: u32,
) -> Option<Joined> {
    let mut joined = Joined::begin(&room[..len], link.len, link.ethertype, trusted)?;
    while let Some(slot) = ring.first() {
        let Some((header, next)) = slot.bytes.split_first_chunk() else { break };
        let (checksum, segment_size) = virtio::decode(header);
        if slot.queued
            || slot.interface != interface
            || (segment_size, slot.wire_len) != (0, slot.bytes.len())
            || !joined.append(room, next, link.ethertype, checksum.is_trusted())
        {
            break;
        }
        ring.release();
    }
    (joined.segments() > 1).then(|| {
        joined.finish(room);
        joined
    })
}

/// The control messages of a frame.
struct Ancillary {
    checksum: ChecksumState,
    vlan: Option<VlanTag>,
    time: Option<SystemTime>,
}

impl Ancillary {
    const NONE: Ancillary = Ancillary { checksum: ChecksumState::Unverified, vlan: None, time: None };
}

fn ancillary(message: &libc::msghdr) -> Ancillary {
    let mut found = Ancillary::NONE;
    // SAFETY: the kernel filled msg_control up to msg_controllen; CMSG_FIRSTHDR and CMSG_NXTHDR
    // stay inside. The code reads data unaligned, and only from messages whose length covers it.
    unsafe {
        let mut at = libc::CMSG_FIRSTHDR(message);
        while let Some(head) = at.as_ref() {
            let data = libc::CMSG_DATA(at);
            #[allow(clippy::unnecessary_cast, reason = "32 bits in musl's msghdr")]
            let holds = |size: usize| head.cmsg_len as usize >= libc::CMSG_LEN(size as u32) as usize;
            match (head.cmsg_level, head.cmsg_type) {
                (libc::SOL_PACKET, libc::PACKET_AUXDATA) if holds(size_of::<libc::tpacket_auxdata>()) => {
                    let aux = data.cast::<libc::tpacket_auxdata>().read_unaligned();
                    if aux.tp_status & libc::TP_STATUS_CSUMNOTREADY != 0 {
                        found.checksum = ChecksumState::Partial;
                    } else if aux.tp_status & libc::TP_STATUS_CSUM_VALID != 0 {
                        found.checksum = ChecksumState::Verified;
                    }
                    if aux.tp_status & libc::TP_STATUS_VLAN_VALID != 0 {
                        let tpid = match aux.tp_status & libc::TP_STATUS_VLAN_TPID_VALID {
                            0 => libc::ETH_P_8021Q as u16,
                            _ => aux.tp_vlan_tpid,
                        };
                        found.vlan = Some(VlanTag { tpid, tci: aux.tp_vlan_tci });
                    }
                }
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) if holds(size_of::<libc::timespec>()) => {
                    let time = data.cast::<libc::timespec>().read_unaligned();
                    let since_epoch = Duration::new(time.tv_sec as u64, time.tv_nsec as u32);
                    found.time = SystemTime::UNIX_EPOCH.checked_add(since_epoch);
                }
                _ => {}
            }
            at = libc::CMSG_NXTHDR(message, at);
        }
    }
    found
}

/// Attaches a filter. The kernel copies a classic program.
fn attach(socket: &OwnedFd, filter: SocketFilter<'_>) -> bool {
    match filter {
        SocketFilter::Extended(program) => {
            set_option(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ATTACH_BPF, &program.as_raw_fd())
        }
        SocketFilter::Classic(program) => {
            let Ok(len) = u16::try_from(program.len()) else { return false };
            let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
            set_option(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
        }
    }
}

fn link_address(interface: u32, protocol: u16) -> libc::sockaddr_ll {
    // SAFETY: sockaddr_ll is plain integers.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = interface as libc::c_int;
    address
}

pub(super) fn set_option<T>(fd: RawFd, level: libc::c_int, option: libc::c_int, value: &T) -> bool {
    // SAFETY: the pointer and the length describe one T that outlives the call.
    let result = unsafe {
        libc::setsockopt(fd, level, option, ptr::from_ref(value).cast(), size_of::<T>() as libc::socklen_t)
    };
    result == 0
}

fn name_of(interface: Option<u32>) -> String {
    match interface {
        None => "any interface".to_owned(),
        Some(index) => interface::name(index).unwrap_or_else(|| format!("interface {index}")),
    }
}

/// Returns the kernel's counters of a packet socket since the previous call, and resets them.
fn kernel_statistics(fd: BorrowedFd<'_>) -> io::Result<libc::tpacket_stats> {
    // SAFETY: tpacket_stats is plain integers.
    let mut stats: libc::tpacket_stats = unsafe { zeroed() };
    let mut len = size_of::<libc::tpacket_stats>() as libc::socklen_t;
    // SAFETY: the pointer and the length describe one writable tpacket_stats.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            ptr::from_mut(&mut stats).cast(),
            &mut len,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(stats)
}

/// Returns how many packets a packet socket has lost since the previous call, because its receive buffer was full.
///
/// # Errors
/// The error of getsockopt(2).
pub(super) fn dropped_packets(fd: BorrowedFd<'_>) -> io::Result<u32> {
    kernel_statistics(fd).map(|stats| stats.tp_drops)
}
