//! Settings of a device that ethtool(8) shows: whether its frames arrive coalesced.
#![allow(unsafe_code)]

use std::{
    mem::zeroed,
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

/// Asks whether the device segments TCP (linux/ethtool.h).
const ETHTOOL_GTSO: u32 = 0x1e;
/// Asks whether the kernel coalesces the device's frames.
const ETHTOOL_GGRO: u32 = 0x2b;

/// Returns whether a setting of a device is on: [`ETHTOOL_GGRO`] or [`ETHTOOL_GTSO`]. `None` where the
/// driver does not tell.
fn setting(socket: BorrowedFd<'_>, name: &str, command: u32) -> Option<bool> {
    let mut value = [command, 0];
    // SAFETY: ifreq is plain integers and pointers, for which zero is valid.
    let mut request: libc::ifreq = unsafe { zeroed() };
    if name.len() >= request.ifr_name.len() {
        return None;
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
    // SAFETY: the request names the device and points to a `struct ethtool_value` of two 32-bit fields, which outlives
    // the call; the kernel writes the second.
    let result =
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, ptr::from_mut(&mut request)) };
    (result == 0).then_some(value[1] != 0)
}

/// Returns whether frames arrive by this device as they were on the wire, segment by segment: nobody coalesces them (GRO).
/// On a veth super-frames cross as they were sent; both ends are then assumed to be set alike.
pub(super) fn arrives_in_segments(socket: BorrowedFd<'_>, name: &str, kind: Option<&str>) -> bool {
    let off = |command| setting(socket, name, command) == Some(false);
    off(ETHTOOL_GGRO) && (kind != Some("veth") || off(ETHTOOL_GTSO))
}
