//! Reads UDP headers (RFC 768).
use pnet_packet::udp::UdpPacket;

use super::{
    cursor::Cursor,
    headers::{Ip, Udp},
    problem::Problem,
};

/// Reads the UDP header of an IP packet. Returns the problem of its length field beside it.
///
/// # Errors
/// [`Problem`], if the header is incomplete.
pub(super) fn read(cursor: &mut Cursor<'_>, ip: &Ip) -> Result<(Udp, Option<Problem>), Problem> {
    let need = UdpPacket::minimum_packet_size();
    let udp = cursor.take_packet("udp header", need, UdpPacket::new)?;
    let stated = usize::from(udp.get_length());
    // A first fragment states the whole datagram's length; zero is a jumbogram's (RFC 2675, section
    // 4).
    let length = if ip.fragment.is_some() || stated == 0 { ip.length } else { stated };
    let problem = if length < need {
        Some(Problem::TooSmall { field: "udp length", value: length })
    } else if length > ip.length && !cursor.is_fragment() {
        Some(Problem::TooLong { field: "udp length", value: length, length: ip.length })
    } else {
        None
    };
    let length = length.min(ip.length).saturating_sub(need);
    cursor.narrow(length);
    let udp = Udp {
        source: udp.get_source(),
        destination: udp.get_destination(),
        checksum: udp.get_checksum(),
        length,
    };
    Ok((udp, problem))
}
