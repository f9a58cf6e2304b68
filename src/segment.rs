//! A TCP segment's header as a value (RFC 9293, section 3.1), parsed once on arrival and written
//! once on departure.
//!
//! Received bytes are hostile. [`Segment::parse`] refuses an inconsistent header, and no other code
//! in the stack parses TCP headers. smoltcp's `TcpPacket` reads and writes the fixed part.
mod options;
mod sequence;
#[cfg(test)]
mod tests;

use smoltcp::wire::{TcpPacket, TcpSeqNumber};

pub use options::Options;
pub(crate) use options::{MAX_SACK_BLOCKS, SackBlocks, TIMESTAMPS_LEN, Timestamps, is_older};
pub use sequence::SeqNumber;
pub(crate) use sequence::serial_distance;

/// Length of a header without options, in bytes.
pub(crate) const MIN_HEADER_LEN: usize = 20;
/// Length of the longest header, in bytes: fifteen 32-bit words.
pub const MAX_HEADER_LEN: usize = 60;
/// Offset of the flags, in bytes.
pub(crate) const FLAGS_OFFSET: usize = 13;
/// Offset of the checksum field, in bytes.
pub(crate) const CHECKSUM_OFFSET: usize = 16;

/// No more data from the sender.
pub(crate) const FIN: u8 = 0x01;
/// Synchronize sequence numbers.
pub const SYN: u8 = 0x02;
/// Reset the connection.
pub(crate) const RST: u8 = 0x04;
/// Push function.
pub(crate) const PSH: u8 = 0x08;
/// The acknowledgment field is significant.
pub(crate) const ACK: u8 = 0x10;

/// A parsed TCP header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// The sequence number of the first byte, or of the SYN.
    pub seq: SeqNumber,
    /// The acknowledgment number; valid only with [`ACK`].
    pub ack: SeqNumber,
    /// The bits that are set of [`FIN`], [`SYN`], [`RST`], [`PSH`] and [`ACK`].
    pub flags: u8,
    /// The window field as on the wire, not scaled.
    pub window: u16,
    /// The options.
    pub options: Options,
    /// Length of the payload, in bytes.
    pub payload_len: usize,
}

impl Segment {
    /// Parses the header of `bytes`, a whole segment. Returns `None` if the segment is truncated or
    /// its data offset is wrong. The payload is the last [`Segment::payload_len`] bytes.
    pub fn parse(bytes: &[u8]) -> Option<Segment> {
        let packet = TcpPacket::new_checked(bytes).ok()?;
        let flags = [
            (packet.fin(), FIN),
            (packet.syn(), SYN),
            (packet.rst(), RST),
            (packet.psh(), PSH),
            (packet.ack(), ACK),
        ];
        Some(Segment {
            source: packet.src_port(),
            destination: packet.dst_port(),
            seq: SeqNumber(packet.seq_number().0 as u32),
            ack: SeqNumber(packet.ack_number().0 as u32),
            flags: flags.into_iter().filter(|(set, _)| *set).fold(0, |flags, (_, flag)| flags | flag),
            window: packet.window_len(),
            options: Options::parse(packet.options()),
            payload_len: bytes.len().checked_sub(packet.header_len().into())?,
        })
    }

    /// Parses the header of `bytes`, as [`Segment::parse`] does, and returns it with the payload.
    pub fn split(bytes: &[u8]) -> Option<(Segment, &[u8])> {
        let segment = Segment::parse(bytes)?;
        Some((segment, bytes.get(bytes.len().checked_sub(segment.payload_len)?..)?))
    }

    /// Writes the header and returns its length, in bytes. The checksum field stays 0 for the IP
    /// layer to fill.
    pub fn write(&self, out: &mut [u8; MAX_HEADER_LEN]) -> usize {
        *out = [0; MAX_HEADER_LEN];
        let len = self.options.write(out);
        let mut packet = TcpPacket::new_unchecked(out.as_mut_slice());
        packet.set_src_port(self.source);
        packet.set_dst_port(self.destination);
        packet.set_seq_number(TcpSeqNumber(self.seq.0 as i32));
        packet.set_ack_number(TcpSeqNumber(self.ack.0 as i32));
        packet.set_header_len(len as u8);
        packet.set_fin(self.is(FIN));
        packet.set_syn(self.is(SYN));
        packet.set_rst(self.is(RST));
        packet.set_psh(self.is(PSH));
        packet.set_ack(self.is(ACK));
        packet.set_window_len(self.window);
        len
    }

    /// Returns whether at least one of `flags` is set.
    pub fn is(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }

    /// Returns the sequence numbers that the segment occupies (RFC 9293, section 3.4, SEG.LEN).
    pub(crate) fn seq_len(&self) -> u32 {
        let payload = u32::try_from(self.payload_len).unwrap_or(u32::MAX);
        payload.saturating_add(u32::from(self.is(SYN)) + u32::from(self.is(FIN)))
    }

    /// Returns the reset that answers this segment where no connection exists (RFC 9293, section
    /// 3.5.2). Returns `None` if this segment is a reset.
    pub(crate) fn reset(&self) -> Option<Segment> {
        if self.is(RST) {
            return None;
        }
        let (seq, ack, flags) = match self.is(ACK) {
            true => (self.ack, SeqNumber(0), RST),
            false => (SeqNumber(0), self.seq + self.seq_len(), RST | ACK),
        };
        Some(Segment {
            source: self.destination,
            destination: self.source,
            seq,
            ack,
            flags,
            ..Segment::default()
        })
    }
}

/// Returns source and destination port of `bytes`, which may be a truncated segment.
pub(crate) fn ports(bytes: &[u8]) -> Option<(u16, u16)> {
    let [a, b, c, d] = *bytes.first_chunk()?;
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}
