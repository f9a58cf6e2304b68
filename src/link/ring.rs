//! A receive ring (`PACKET_RX_RING`): memory that the kernel copies frames into, and that this process reads without a
//! system call for each.
//!
//! The slots are those of `TPACKET_V2` (Documentation/networking/packet_mmap.rst; linux/if_packet.h): a header, the
//! sender's link-layer address, the virtio-net header, the frame. The kernel fills them in order and hands each over by
//! its status; `TPACKET_V3` hands over whole blocks, up to a millisecond late. A frame longer than a slot goes to the
//! socket's queue, too (`PACKET_COPY_THRESH`), where [`Slot::queued`] sends the reader.
#![allow(unsafe_code)]

use super::{packet_socket::set_option, virtio};
use std::{
    io,
    mem::{offset_of, size_of},
    os::fd::{AsRawFd, BorrowedFd},
    ptr::{self, NonNull},
    sync::atomic::{AtomicU32, Ordering},
};

/// A block's size, in bytes: the kernel takes it from the page allocator in one piece.
const BLOCK: usize = 64 << 10;
/// Bytes of a slot in front of the network header, at most: the kernel's header and address (52), aligned to 16 together
/// with the link header, and the virtio-net header (net/packet/af_packet.c, tpacket_rcv()).
const HEAD_ROOM: usize = 128;
/// Offset of the sender's address in a slot, in bytes (TPACKET_ALIGN of the header's size).
const ADDRESS: usize = size_of::<libc::tpacket2_hdr>().next_multiple_of(libc::TPACKET_ALIGNMENT);

/// A receive ring of a packet socket.
#[derive(Debug)]
pub(super) struct Ring {
    base: NonNull<u8>,
    slot: usize,
    slots: usize,
    next: usize,
}

/// A frame in the ring.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot<'a> {
    /// The virtio-net header and the frame, or their front.
    pub bytes: &'a [u8],
    /// Length of both, in bytes.
    pub wire_len: usize,
    /// The interface's index.
    pub interface: u32,
    /// The interface's hardware type (ARPHRD_*).
    pub hardware_type: u16,
    /// The network protocol's ethertype, in host byte order.
    pub protocol: u16,
    /// The kernel's name for the frame's direction and receiver (PACKET_HOST and others).
    pub packet_type: u8,
    /// The whole frame is the next one in the socket's queue.
    pub queued: bool,
}

impl Ring {
    /// Gives a socket with the virtio-net header a ring of about `bytes` bytes, whose slots hold packets of `mtu` bytes.
    /// Call it before bind(2): the kernel receives nothing meanwhile. It waits for a grace period of RCU.
    ///
    /// # Errors
    /// Those of setsockopt(2) and mmap(2); then the socket has no ring.
    pub(super) fn set_up(socket: BorrowedFd<'_>, mtu: usize, bytes: usize) -> io::Result<Ring> {
        let slot = (mtu + HEAD_ROOM).next_power_of_two().clamp(2048, BLOCK);
        let blocks = bytes.div_ceil(BLOCK).max(1);
        let slots = blocks * (BLOCK / slot);
        let request = |blocks: usize, slots: usize| libc::tpacket_req {
            tp_block_size: if blocks == 0 { 0 } else { BLOCK as u32 },
            tp_block_nr: blocks as u32,
            tp_frame_size: if blocks == 0 { 0 } else { slot as u32 },
            tp_frame_nr: slots as u32,
        };
        set(socket, libc::PACKET_VERSION, &(libc::tpacket_versions::TPACKET_V2 as libc::c_int))?;
        set(socket, libc::PACKET_COPY_THRESH, &(1 as libc::c_int))?;
        set(socket, libc::PACKET_RX_RING, &request(blocks, slots))?;
        // SAFETY: a fresh shared mapping at an address of the kernel's choice aliases no memory of ours.
        let at = unsafe {
            libc::mmap(
                ptr::null_mut(),
                slots * slot,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                socket.as_raw_fd(),
                0,
            )
        };
        match NonNull::new(at.cast()).filter(|_| at != libc::MAP_FAILED) {
            Some(base) => Ok(Ring { base, slot, slots, next: 0 }),
            None => {
                let error = io::Error::last_os_error();
                set(socket, libc::PACKET_RX_RING, &request(0, 0))?;
                Err(error)
            }
        }
    }

    /// Returns the number of slots.
    pub(super) fn slots(&self) -> usize {
        self.slots
    }

    /// Returns the next frame, if the kernel has handed it over.
    pub(super) fn first(&self) -> Option<Slot<'_>> {
        let status = self.status().load(Ordering::Acquire);
        if status & libc::TP_STATUS_USER == 0 {
            return None;
        }
        let at = self.at();
        // SAFETY: the slot is this process's until it is released, is aligned to 16 bytes, and begins with the kernel's
        // header and the sender's address, which are plain integers.
        let (header, address) = unsafe {
            (at.cast::<libc::tpacket2_hdr>().read(), at.add(ADDRESS).cast::<libc::sockaddr_ll>().read())
        };
        let start = usize::from(header.tp_mac).saturating_sub(virtio::LEN).min(self.slot);
        let len = (virtio::LEN + header.tp_snaplen as usize).min(self.slot - start);
        Some(Slot {
            // SAFETY: `start` and `len` stay inside the slot, which the kernel writes no more until it is released;
            // that takes `&mut self`.
            bytes: unsafe { std::slice::from_raw_parts(at.add(start), len) },
            wire_len: virtio::LEN + header.tp_len as usize,
            interface: address.sll_ifindex as u32,
            hardware_type: address.sll_hatype,
            protocol: u16::from_be(address.sll_protocol),
            packet_type: address.sll_pkttype,
            queued: status & libc::TP_STATUS_COPY != 0,
        })
    }

    /// Gives the next frame's slot back to the kernel.
    pub(super) fn release(&mut self) {
        self.status().store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.next = (self.next + 1) % self.slots;
    }

    /// Returns the next slot. Slots divide a block evenly, so they lie side by side.
    fn at(&self) -> *mut u8 {
        // SAFETY: `next` is below `slots`, and the mapping has `slots` slots of `slot` bytes.
        unsafe { self.base.as_ptr().add(self.next * self.slot) }
    }

    fn status(&self) -> &AtomicU32 {
        let at = self.at().wrapping_add(offset_of!(libc::tpacket2_hdr, tp_status));
        // SAFETY: the field is inside the mapping, aligned, and lives as long as `self`; the kernel writes it whole.
        unsafe { AtomicU32::from_ptr(at.cast()) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that Ring::set_up made, and nothing uses it any more.
        if unsafe { libc::munmap(self.base.as_ptr().cast(), self.slots * self.slot) } != 0 {
            log::debug!("cannot unmap a receive ring: {}", io::Error::last_os_error());
        }
    }
}

fn set<T>(socket: BorrowedFd<'_>, option: libc::c_int, value: &T) -> io::Result<()> {
    match set_option(socket.as_raw_fd(), libc::SOL_PACKET, option, value) {
        true => Ok(()),
        false => Err(io::Error::last_os_error()),
    }
}
