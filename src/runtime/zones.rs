//! Interfaces that are ports of others: the zones of their addresses, and where datagrams to groups count.
use crate::host::interface::Interface;
use std::{collections::HashMap, iter};

/// Maximum depth of stacked devices: a bond in a bridge in a VRF.
const MAX_UPPERS: usize = 4;

/// Returns the device above an interface that is a port of one of ours; a VRF's members keep their own addresses.
fn upper<'a>(interface: &Interface, ours: &[&'a Interface]) -> Option<&'a Interface> {
    let is_upper = |other: &&&Interface| Some(other.index) == interface.master && !is_vrf(other);
    ours.iter().find(is_upper).copied()
}

fn is_vrf(interface: &Interface) -> bool {
    interface.kind.as_deref() == Some("vrf")
}

/// Returns the zone of each interface that is a port of another.
pub(super) fn of(ours: &[&Interface]) -> HashMap<u32, u32> {
    let top = |interface: &Interface| {
        let mut uppers = iter::successors(upper(interface, ours), |interface| upper(interface, ours));
        uppers.by_ref().take(MAX_UPPERS).last()
    };
    ours.iter().filter_map(|interface| Some((interface.index, top(interface)?.index))).collect()
}

/// Returns the interfaces at which datagrams to groups count. Since the guard leaves them to the kernel, a port's
/// datagrams arrive again at its bridge or bond, and a member's at its VRF.
pub(super) fn hearing_groups(ours: &[&Interface]) -> impl Iterator<Item = u32> {
    let counts = |interface: &&&Interface| !is_vrf(interface) && upper(interface, ours).is_none();
    ours.iter().filter(counts).map(|interface| interface.index).collect::<Vec<_>>().into_iter()
}
