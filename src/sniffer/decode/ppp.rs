//! Reads the header of PPP (RFC 1661, RFC 1662).
use super::{cursor::Cursor, headers::LinkLayer, problem::Problem};
use crate::{
    link::{ETHERTYPE_IPV4, ETHERTYPE_IPV6},
    sniffer::decode::tunnel::ETHERTYPE_MPLS,
};

/// Address and control of HDLC framing, which links may leave out (RFC 1661, section 6.6).
const HDLC: [u8; 2] = [0xff, 0x03];
/// Address of unicast and of broadcast in Cisco's HDLC, whose protocol field is an EtherType.
const CISCO: [u8; 2] = [0x0f, 0x8f];

/// Reads the header into `link`. Returns the EtherType of the packet behind it; `None` if the protocol
/// has none.
///
/// # Errors
/// [`Problem`], if the header is incomplete.
pub(super) fn read(cursor: &mut Cursor<'_>, link: &mut LinkLayer) -> Result<Option<u16>, Problem> {
    match cursor.peek_available(2) {
        &[address, 0] if CISCO.contains(&address) => {
            let [_, _, high, low] = cursor.take_array("cisco hdlc header")?;
            return Ok(Some(u16::from_be_bytes([high, low])));
        }
        start if start == HDLC => cursor.skip(HDLC.len()),
        _ => {}
    }
    // The low bit marks the last byte: protocols below 256 may be one byte long (RFC 1661, section 6.5).
    let [first] = cursor.peek_array("ppp protocol")?;
    let protocol = if first & 1 == 1 {
        cursor.skip(1);
        u16::from(first)
    } else {
        u16::from_be_bytes(cursor.take_array("ppp protocol")?)
    };
    link.ppp = Some(protocol);
    Ok(match protocol {
        0x0021 => Some(ETHERTYPE_IPV4),
        0x0057 => Some(ETHERTYPE_IPV6),
        0x0281 => Some(ETHERTYPE_MPLS),
        _ => None,
    })
}
