//! The TCP header (RFC 9293, section 3.1), as far as flows look at it themselves.

pub const MIN_HEADER: usize = 20;
/// Where the checksum field stands, in bytes.
pub const CHECKSUM: usize = 16;

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;

/// The fixed fields of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub source_port: u16,
    pub destination_port: u16,
    pub sequence: u32,
    pub acknowledgment: u32,
    pub flags: u8,
    /// Bytes of header, options included.
    pub header_len: usize,
    pub payload_len: usize,
}

impl Segment {
    /// Reads the header of `bytes`, a whole segment; `None` where it is cut or its data offset lies.
    pub fn parse(bytes: &[u8]) -> Option<Segment> {
        let fixed: &[u8; MIN_HEADER] = bytes.first_chunk()?;
        let header_len = usize::from(fixed[12] >> 4) * 4;
        if header_len < MIN_HEADER || header_len > bytes.len() {
            return None;
        }
        let half = |at: usize| u16::from_be_bytes([fixed[at], fixed[at + 1]]);
        let word = |at: usize| u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
        Some(Segment {
            source_port: half(0),
            destination_port: half(2),
            sequence: word(4),
            acknowledgment: word(8),
            flags: fixed[13],
            header_len,
            payload_len: bytes.len() - header_len,
        })
    }

    pub fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The sequence numbers that it takes up (RFC 9293, section 3.4, SEG.LEN).
    pub fn len(&self) -> u32 {
        self.payload_len as u32 + u32::from(self.is(SYN)) + u32::from(self.is(FIN))
    }

    /// The reset that answers this segment where no connection is (RFC 9293, section 3.5.2); `None` for a
    /// segment that is a reset itself. Its checksum field is left 0.
    pub fn reset(&self) -> Option<[u8; MIN_HEADER]> {
        if self.is(RST) {
            return None;
        }
        let (sequence, acknowledgment, flags) = match self.is(ACK) {
            true => (self.acknowledgment, 0, RST),
            false => (0, self.sequence.wrapping_add(self.len()), RST | ACK),
        };
        let mut header = [0; MIN_HEADER];
        header[..2].copy_from_slice(&self.destination_port.to_be_bytes());
        header[2..4].copy_from_slice(&self.source_port.to_be_bytes());
        header[4..8].copy_from_slice(&sequence.to_be_bytes());
        header[8..12].copy_from_slice(&acknowledgment.to_be_bytes());
        header[12] = (MIN_HEADER as u8 / 4) << 4;
        header[13] = flags;
        Some(header)
    }
}

/// Source and destination port of what may be no whole segment.
pub fn ports(bytes: &[u8]) -> Option<(u16, u16)> {
    let [a, b, c, d] = *bytes.first_chunk()?;
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

/// The data of the option of this kind in the header that `bytes` begins with, if there is one and it is whole.
fn option(bytes: &[u8], kind: u8) -> Option<&[u8]> {
    let header_len = usize::from(bytes.get(12)? >> 4) * 4;
    let mut options = bytes.get(MIN_HEADER..header_len)?;
    loop {
        match *options {
            [0, ..] | [] => return None,
            [1, ref rest @ ..] => options = rest,
            [found, len, ..] => {
                let (option, rest) = options.split_at_checked(usize::from(len))?;
                let data = option.get(2..)?;
                if found == kind {
                    return Some(data);
                }
                options = rest;
            }
            _ => return None,
        }
    }
}

/// TSval and TSecr of a segment's timestamp option (RFC 7323, section 3.2), if it has one.
pub fn timestamp(bytes: &[u8]) -> Option<(u32, u32)> {
    match *option(bytes, 8)? {
        [a, b, c, d, e, f, g, h] => {
            Some((u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])))
        }
        _ => None,
    }
}

/// A segment's maximum segment size option (RFC 9293, section 3.2), if it has one.
pub fn max_segment_size(bytes: &[u8]) -> Option<u16> {
    match *option(bytes, 2)? {
        [high, low] => Some(u16::from_be_bytes([high, low])),
        _ => None,
    }
}

/// The header of a SYN with no option but the maximum segment size. Its checksum field is left 0.
pub fn plain_syn(source_port: u16, destination_port: u16, sequence: u32, mss: u16) -> [u8; MIN_HEADER + 4] {
    let mut header = [0; MIN_HEADER + 4];
    header[..2].copy_from_slice(&source_port.to_be_bytes());
    header[2..4].copy_from_slice(&destination_port.to_be_bytes());
    header[4..8].copy_from_slice(&sequence.to_be_bytes());
    header[12] = 6 << 4;
    header[13] = SYN;
    header[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
    header[20..22].copy_from_slice(&[2, 4]);
    header[22..24].copy_from_slice(&mss.to_be_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(flags: u8, payload: usize) -> Vec<u8> {
        let mut bytes = vec![0; MIN_HEADER + payload];
        bytes[..2].copy_from_slice(&1000u16.to_be_bytes());
        bytes[2..4].copy_from_slice(&80u16.to_be_bytes());
        bytes[4..8].copy_from_slice(&0xffff_fffe_u32.to_be_bytes());
        bytes[8..12].copy_from_slice(&77u32.to_be_bytes());
        bytes[12] = 5 << 4;
        bytes[13] = flags;
        bytes
    }

    fn reset(flags: u8, payload: usize) -> Option<Segment> {
        Segment::parse(&Segment::parse(&bytes(flags, payload))?.reset()?)
    }

    #[test]
    fn resets_take_their_numbers_from_what_they_answer() {
        let answer = reset(SYN, 0).expect("a SYN to nobody is reset");
        assert_eq!((answer.source_port, answer.destination_port), (80, 1000));
        assert_eq!((answer.flags, answer.sequence, answer.acknowledgment), (RST | ACK, 0, 0xffff_ffff));
        let answer = reset(ACK | FIN, 3).expect("so is data");
        assert_eq!((answer.flags, answer.sequence), (RST, 77));
        assert_eq!(reset(FIN | SYN, 3).map(|s| s.acknowledgment), Some(3));
        assert_eq!(reset(RST, 0), None);
    }

    #[test]
    fn timestamps_are_found_behind_other_options() {
        let mut segment = bytes(SYN, 0);
        segment[12] = 10 << 4;
        segment.extend([2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 1, 0, 0, 0, 0, 7, 1, 3, 3, 7]);
        assert_eq!(timestamp(&segment), Some((256, 7)));
        for (at, byte) in [(20, 0), (21, 1), (21, 0), (21, 40), (27, 9)] {
            let mut broken = segment.clone();
            broken[at] = byte;
            assert_eq!(timestamp(&broken), None, "{at}");
        }
        assert_eq!(timestamp(&segment[..30]), None);
    }

    #[test]
    fn lying_data_offsets_are_refused() {
        for words in [0, 4, 6] {
            let mut segment = bytes(ACK, 0);
            segment[12] = words << 4;
            assert_eq!(Segment::parse(&segment), None);
        }
        assert_eq!(Segment::parse(&bytes(ACK, 0)[..19]), None);
    }
}
