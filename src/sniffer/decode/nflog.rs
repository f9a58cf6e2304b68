//! Reads the header of netfilter's log (tcpdump.org, LINKTYPE_NFLOG; linux/netfilter/nfnetlink_log.h).
use super::{cursor::Cursor, link::ethertype_of_family, problem::Problem};

/// The attribute with the packet's EtherType (NFULA_PACKET_HDR).
const PACKET_HEADER: u16 = 1;
/// The attribute with the packet (NFULA_PAYLOAD).
const PAYLOAD: u16 = 9;
/// Bytes of an attribute's length and type.
const ATTRIBUTE: usize = 4;

/// Reads up to the packet. Returns its EtherType.
///
/// # Errors
/// [`Problem`], if the header is incomplete, has no packet, or has an unknown address family.
pub(super) fn read(cursor: &mut Cursor<'_>) -> Result<u16, Problem> {
    let [family, _, _, _] = cursor.take_array("nflog header")?;
    let mut ethertype = None;
    loop {
        let [a, b, c, d] = cursor.peek_array("nflog attribute")?;
        // Length and type are in the byte order of the capturing machine. All types are below 256.
        let little = d == 0;
        let number = |bytes| if little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) };
        let (length, kind) = (usize::from(number([a, b])), number([c, d]));
        if length < ATTRIBUTE {
            return Err(Problem::TooSmall { field: "nflog attribute length", value: length });
        }
        if kind == PAYLOAD {
            cursor.skip(ATTRIBUTE);
            let (payload, have) = (length - ATTRIBUTE, cursor.remaining());
            if payload > have {
                return Err(Problem::TooLong { field: "nflog payload length", value: payload, length: have });
            }
            cursor.narrow(payload);
            return ethertype.map_or_else(|| ethertype_of_family(family.into()), Ok);
        }
        let attribute = cursor.take("nflog attribute", length.next_multiple_of(4))?;
        if let (PACKET_HEADER, Some(&[_, _, _, _, high, low])) = (kind, attribute.first_chunk()) {
            ethertype = Some(u16::from_be_bytes([high, low])).filter(|ethertype| *ethertype != 0);
        }
    }
}
