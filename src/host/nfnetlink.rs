//! Messages of netfilter's netlink family (linux/netfilter/nfnetlink.h), which ctnetlink and nf_tables
//! share: a family, and attributes that stay bytes until they are parsed.
use netlink_packet_core::{DecodeError, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable};

/// Bits of an attribute's type (linux/netlink.h): NLA_F_NESTED and NLA_F_NET_BYTEORDER lie above.
const TYPE_MASK: u16 = 0x3fff;
/// NLA_F_NESTED.
const NESTED: u16 = 0x8000;
/// Length of an attribute's header, in bytes.
const HEADER: usize = 4;
/// Length of struct nfgenmsg: family, version and resource, in bytes.
const FAMILY_HEADER: usize = 4;

/// NFNL_MSG_BATCH_BEGIN and NFNL_MSG_BATCH_END.
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// NFNL_SUBSYS_NFTABLES, the subsystem of all our batches.
const BATCH_SUBSYSTEM: u16 = 10;

/// A message to or from a subsystem of netfilter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Subsystem (NFNL_SUBSYS_*) in the upper byte, the subsystem's own type in the lower.
    pub kind: u16,
    /// NFPROTO_*.
    pub family: u8,
    /// The attributes, unread.
    pub attributes: Vec<u8>,
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        FAMILY_HEADER + self.attributes.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        if let Some((header, attributes)) = buffer.split_first_chunk_mut::<FAMILY_HEADER>() {
            let resource = match self.kind {
                BATCH_BEGIN | BATCH_END => BATCH_SUBSYSTEM.to_be_bytes(),
                _ => [0, 0],
            };
            *header = [self.family, 0, resource[0], resource[1]];
            attributes.copy_from_slice(&self.attributes);
        }
    }
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Message, DecodeError> {
        match payload.split_first_chunk::<FAMILY_HEADER>() {
            Some(([family, ..], attributes)) => {
                Ok(Message { kind: header.message_type, family: *family, attributes: attributes.to_vec() })
            }
            None => Err(format!("{} bytes are too few for a struct nfgenmsg", payload.len()).into()),
        }
    }
}

impl Message {
    /// Returns messages for nf_tables as one batch, which the kernel applies whole or not at all
    /// (nfnetlink_rcv_batch in net/netfilter/nfnetlink.c), each with its flags.
    pub(crate) fn batch(messages: Vec<(Message, u16)>) -> impl Iterator<Item = (Message, u16)> {
        let bound = |kind| (Message { kind, family: 0, attributes: Vec::new() }, 0);
        [bound(BATCH_BEGIN)].into_iter().chain(messages).chain([bound(BATCH_END)])
    }
}

/// An iterator over type and payload of the attributes in a byte string. Ends at the first one that is cut
/// short.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes<'a>(pub &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (header, _) = self.0.split_first_chunk::<HEADER>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & TYPE_MASK;
        let payload = self.0.get(HEADER..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, payload))
    }
}

impl<'a> Attributes<'a> {
    /// Returns the payload of the first attribute of a type.
    pub(crate) fn find(mut self, kind: u16) -> Option<&'a [u8]> {
        Iterator::find(&mut self, |(found, _)| *found == kind).map(|(_, payload)| payload)
    }

    /// Returns the attributes that are nested in one of a type; none if it is absent.
    pub(crate) fn nested(self, kind: u16) -> Attributes<'a> {
        Attributes(self.find(kind).unwrap_or_default())
    }

    /// Returns a number in network byte order, as netfilter has them.
    pub(crate) fn number(self, kind: u16) -> Option<u32> {
        self.find(kind)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
    }

    /// Returns a string without the zero at its end.
    pub(crate) fn name(self, kind: u16) -> Option<&'a [u8]> {
        self.find(kind).map(until_zero)
    }
}

/// Returns the bytes before the first zero.
pub(crate) fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Appends an attribute. Payloads are names and keys of the kernel's, far below the limit of 64 KiB.
pub(crate) fn push(into: &mut Vec<u8>, kind: u16, payload: &[u8]) {
    let length = u16::try_from(HEADER + payload.len()).unwrap_or(u16::MAX);
    into.extend(length.to_ne_bytes());
    into.extend(kind.to_ne_bytes());
    into.extend(payload);
    into.resize(into.len().next_multiple_of(4), 0);
}

/// Appends a string attribute with its zero.
pub(crate) fn push_name(into: &mut Vec<u8>, kind: u16, name: &[u8]) {
    push(into, kind, &[name, &[0]].concat());
}

/// Appends an attribute that holds others.
pub(crate) fn push_nested(into: &mut Vec<u8>, kind: u16, inner: &[u8]) {
    push(into, kind | NESTED, inner);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_survives_the_wire() {
        let message = Message { kind: 10 << 8 | 1, family: 2, attributes: vec![4, 0, 1, 0] };
        let mut bytes = vec![0xff; message.buffer_len()];
        message.serialize(&mut bytes);
        let mut header = NetlinkHeader::default();
        header.message_type = message.message_type();
        assert_eq!(Message::deserialize(&header, &bytes).expect("whole"), message);
        assert!(Message::deserialize(&header, &bytes[..3]).is_err());
    }

    #[test]
    fn what_is_written_is_read() {
        let (mut inner, mut all) = (Vec::new(), Vec::new());
        push(&mut inner, 2, &7_u32.to_be_bytes());
        push_name(&mut all, 1, b"nat");
        push_nested(&mut all, 4, &inner);
        let all = Attributes(&all);
        assert_eq!(all.name(1), Some(&b"nat"[..]));
        assert_eq!(all.nested(4).number(2), Some(7));
        assert_eq!(all.nested(5).count(), 0);
    }

    #[test]
    fn a_cut_attribute_ends_the_list() {
        let mut all = Vec::new();
        push_name(&mut all, 1, b"nat");
        push_name(&mut all, 2, b"PREROUTING");
        assert_eq!(Attributes(&all[..all.len() - 4]).count(), 1);
        assert_eq!(Attributes(&[3, 0, 1, 0]).count(), 0);
        assert_eq!(Attributes(&[0, 0, 1, 0, 9]).count(), 0);
    }
}
