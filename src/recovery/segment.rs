//! The TCP header (RFC 9293, section 3.1): reading it without trust, writing it, editing it in place.
//!
//! A segment here is a TCP header and its payload, without the IP header. Whatever comes from the wire is
//! hostile: [`Header::parse`] refuses what does not add up, and nothing else reads received bytes.

/// The fixed part of the header, in bytes.
pub(super) const HEADER_LEN: usize = 20;
/// The longest header: fifteen 32-bit words.
pub(super) const MAX_HEADER_LEN: usize = 60;
/// The timestamps option with its padding (RFC 7323, appendix A).
pub(super) const TIMESTAMPS_LEN: usize = 12;
/// The most SACK blocks that fit into a header (RFC 2018, section 3).
pub(super) const MAX_SACK_BLOCKS: usize = 4;

pub(super) mod flags {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const PSH: u8 = 0x08;
    pub const ACK: u8 = 0x10;
}

mod kind {
    pub const END: u8 = 0;
    pub const NOP: u8 = 1;
    pub const MSS: u8 = 2;
    pub const WINDOW_SCALE: u8 = 3;
    pub const SACK_PERMITTED: u8 = 4;
    pub const SACK: u8 = 5;
    pub const TIMESTAMPS: u8 = 8;
}

/// The timestamps option (RFC 7323, section 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Timestamps {
    pub value: u32,
    pub echo: u32,
}

/// The SACK blocks of one segment, in the order in which they stand there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SackBlocks {
    blocks: [(u32, u32); MAX_SACK_BLOCKS],
    count: usize,
}

impl SackBlocks {
    pub fn push(&mut self, left: u32, right: u32) {
        if let Some(slot) = self.blocks.get_mut(self.count) {
            *slot = (left, right);
            self.count += 1;
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.blocks.iter().take(self.count).copied()
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether an ACK of `ack` with these blocks tells all that an ACK of `before` with the `earlier` ones told, of which
    /// none is a duplicate's.
    pub fn supersede(&self, ack: u32, (before, earlier): (u32, &SackBlocks)) -> bool {
        let at_most = |a: u32, b: u32| a.wrapping_sub(b) as i32 <= 0;
        let within = |(left, right): (u32, u32), (start, end)| at_most(start, left) && at_most(right, end);
        let (first, second) = (earlier.iter().next(), earlier.iter().nth(1));
        // RFC 2883, section 4.
        let duplicate = first.is_some_and(|block| {
            at_most(block.1, before) || second.is_some_and(|around| within(block, around))
        });
        let told = |block: (u32, u32)| at_most(block.1, ack) || self.iter().any(|later| within(block, later));
        !duplicate && earlier.iter().all(told)
    }
}

/// The options that the layer knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub mss: Option<u16>,
    pub window_scale: Option<u8>,
    pub sack_permitted: bool,
    pub timestamps: Option<Timestamps>,
    pub sack: SackBlocks,
}

/// A header that was read and found whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub source: u16,
    pub destination: u16,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    /// Header length in bytes: where the payload begins.
    pub len: usize,
    pub options: Options,
}

impl Header {
    /// Reads the header of `segment`; `None` if its data offset lies.
    pub fn parse(segment: &[u8]) -> Option<Header> {
        let len = usize::from(segment.get(12)? >> 4) * 4;
        let options = segment.get(HEADER_LEN..len)?;
        Some(Header {
            source: be16(segment, 0)?,
            destination: be16(segment, 2)?,
            seq: be32(segment, 4)?,
            ack: be32(segment, 8)?,
            flags: *segment.get(13)?,
            window: be16(segment, 14)?,
            len,
            options: Options::parse(options),
        })
    }

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

impl Options {
    /// With a window scale of ours, where there is one at all.
    pub fn with_window_scale(self, shift: u8) -> Options {
        Options { window_scale: self.window_scale.map(|_| shift), ..self }
    }

    /// Reads options. One whose length is not its kind's is skipped, and one of an impossible length ends them, but not
    /// the segment (RFC 9293, section 3.1, MUST-7; as Linux's tcp_parse_options(), net/ipv4/tcp_input.c).
    fn parse(mut rest: &[u8]) -> Options {
        let mut options = Options::default();
        while let Some((kind, body, behind)) = next_option(rest) {
            rest = behind;
            if !is_well_formed(kind, body.len()) {
                continue;
            }
            match kind {
                kind::MSS => options.mss = be16(body, 0),
                // RFC 7323, section 2.3: a larger shift counts as 14.
                kind::WINDOW_SCALE => options.window_scale = body.first().map(|shift| (*shift).min(14)),
                kind::SACK_PERMITTED => options.sack_permitted = true,
                kind::TIMESTAMPS => {
                    let stamp = be32(body, 0).zip(be32(body, 4));
                    options.timestamps = stamp.map(|(value, echo)| Timestamps { value, echo });
                }
                kind::SACK => {
                    for (left, right) in body.chunks_exact(8).filter_map(|b| be32(b, 0).zip(be32(b, 4))) {
                        options.sack.push(left, right);
                    }
                }
                _ => {}
            }
        }
        options
    }
}

/// Kind and data of the first option in `rest`, and what lies behind it. `None` where the options end, be it by a
/// length that is impossible.
fn next_option(mut rest: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    loop {
        match *rest {
            [] | [kind::END, ..] => return None,
            [kind::NOP, ref behind @ ..] => rest = behind,
            [kind, len, ..] => {
                let (option, behind) = rest.split_at_checked(usize::from(len))?;
                return Some((kind, option.get(2..)?, behind));
            }
            [_] => return None,
        }
    }
}

/// Whether an option of this kind may have `len` bytes of data, as far as the layer knows the kind.
fn is_well_formed(kind: u8, len: usize) -> bool {
    match kind {
        kind::MSS => len == 2,
        kind::WINDOW_SCALE => len == 1,
        kind::SACK_PERMITTED => len == 0,
        kind::TIMESTAMPS => len == 8,
        kind::SACK => len > 0 && len.is_multiple_of(8),
        _ => true,
    }
}

/// Blanks the options of `header`, a TCP header, that [`Header::parse`] passes over: smoltcp refuses a whole segment
/// for one of them.
pub fn blank_malformed_options(header: &mut [u8]) {
    let end = header.get(12).map_or(0, |offset| usize::from(offset >> 4) * 4).min(header.len());
    let mut at = HEADER_LEN;
    while let Some(options) = header.get(at..end) {
        let Some((kind, body, behind)) = next_option(options) else {
            // From here on there are none, whatever stands there.
            let nops = options.iter().take_while(|byte| **byte == kind::NOP).count();
            return header.iter_mut().take(end).skip(at + nops).for_each(|byte| *byte = kind::END);
        };
        let (next, len) = (end - behind.len(), body.len());
        if !is_well_formed(kind, len) {
            header.iter_mut().take(next).skip(next - len - 2).for_each(|byte| *byte = kind::NOP);
        }
        at = next;
    }
}

/// A header to be sent. The checksum field is left zero for the IP layer to fill.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Outgoing {
    pub source: u16,
    pub destination: u16,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    pub timestamps: Option<Timestamps>,
    pub sack: SackBlocks,
}

impl Outgoing {
    /// Writes the header and returns its length.
    pub fn write(&self, out: &mut [u8; MAX_HEADER_LEN]) -> usize {
        out[0..2].copy_from_slice(&self.source.to_be_bytes());
        out[2..4].copy_from_slice(&self.destination.to_be_bytes());
        out[4..8].copy_from_slice(&self.seq.to_be_bytes());
        out[8..12].copy_from_slice(&self.ack.to_be_bytes());
        out[13] = self.flags;
        out[14..16].copy_from_slice(&self.window.to_be_bytes());
        out[16..20].fill(0);
        let mut len = HEADER_LEN;
        if let Some(timestamps) = self.timestamps {
            out[len..len + 4].copy_from_slice(&[kind::NOP, kind::NOP, kind::TIMESTAMPS, 10]);
            out[len + 4..len + 8].copy_from_slice(&timestamps.value.to_be_bytes());
            out[len + 8..len + 12].copy_from_slice(&timestamps.echo.to_be_bytes());
            len += TIMESTAMPS_LEN;
        }
        // Beside timestamps there is room for three blocks (RFC 2018, section 3).
        let room = (MAX_HEADER_LEN - len - 4) / 8;
        let count = self.sack.count.min(room);
        if count > 0 {
            out[len..len + 4].copy_from_slice(&[kind::NOP, kind::NOP, kind::SACK, 2 + 8 * count as u8]);
            len += 4;
            for (left, right) in self.sack.iter().take(count) {
                out[len..len + 4].copy_from_slice(&left.to_be_bytes());
                out[len + 4..len + 8].copy_from_slice(&right.to_be_bytes());
                len += 8;
            }
        }
        out[12] = (len / 4 * 16) as u8;
        len
    }
}

/// Overwrites the sequence number of a segment.
pub(super) fn set_seq(segment: &mut [u8], seq: u32) {
    put(segment, 4, &seq.to_be_bytes());
}

/// Overwrites the flags of a segment.
pub(super) fn set_flags(segment: &mut [u8], flags: u8) {
    put(segment, 13, &[flags]);
}

/// Overwrites the window field of a segment.
pub(super) fn set_window(segment: &mut [u8], window: u16) {
    put(segment, 14, &window.to_be_bytes());
}

/// Sets the checksum field to zero, for the IP layer to fill.
pub(super) fn clear_checksum(segment: &mut [u8]) {
    put(segment, 16, &[0, 0]);
}

/// Overwrites the value of the MSS option, where a header has one.
pub(super) fn set_mss_option(header: &mut [u8], mss: u16) {
    if let Some(at) = find_option(header, kind::MSS) {
        put(header, at + 2, &mss.to_be_bytes());
    }
}

/// Overwrites the shift of the window scale option, where a header has one.
pub(super) fn set_window_scale_option(header: &mut [u8], shift: u8) {
    if let Some(at) = find_option(header, kind::WINDOW_SCALE) {
        put(header, at + 2, &[shift]);
    }
}

/// Overwrites the value of the timestamps option, where a header has one.
pub(super) fn set_timestamp_value(header: &mut [u8], value: u32) {
    if let Some(at) = find_option(header, kind::TIMESTAMPS) {
        put(header, at + 2, &value.to_be_bytes());
    }
}

fn find_option(header: &[u8], wanted: u8) -> Option<usize> {
    let mut at = HEADER_LEN;
    loop {
        match *header.get(at)? {
            kind::END => return None,
            kind::NOP => at += 1,
            kind if kind == wanted => return Some(at),
            _ => at += usize::from(*header.get(at + 1)?).max(2),
        }
    }
}

fn put(segment: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(field) = segment.get_mut(at..at + bytes.len()) {
        field.copy_from_slice(bytes);
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let mut sack = SackBlocks::default();
        sack.push(10, 20);
        sack.push(u32::MAX - 5, 3);
        let outgoing = Outgoing {
            source: 1,
            destination: 2,
            seq: 3,
            ack: 4,
            flags: flags::ACK | flags::PSH,
            window: 5,
            timestamps: Some(Timestamps { value: 6, echo: 7 }),
            sack,
        };
        let mut bytes = [0xff; MAX_HEADER_LEN];
        let len = outgoing.write(&mut bytes);
        assert_eq!(len, 20 + 12 + 4 + 16);
        let header = Header::parse(&bytes[..len]).expect("our own header");
        assert_eq!((header.seq, header.ack, header.window, header.len), (3, 4, 5, len));
        assert_eq!(header.options.timestamps, outgoing.timestamps);
        assert_eq!(header.options.sack, sack);
    }

    #[test]
    fn four_blocks_beside_timestamps_are_cut_to_three() {
        let mut sack = SackBlocks::default();
        (0..4).for_each(|n| sack.push(n, n + 1));
        let outgoing = Outgoing { timestamps: Some(Timestamps::default()), sack, ..Outgoing::default() };
        let mut bytes = [0; MAX_HEADER_LEN];
        assert_eq!(outgoing.write(&mut bytes), MAX_HEADER_LEN);
        assert_eq!(Header::parse(&bytes).map(|h| h.options.sack.iter().count()), Some(3));
    }

    #[test]
    fn contradicting_lengths_are_refused() {
        let mut bytes = [0u8; 24];
        for offset in [0u8, 4, 7, 15] {
            bytes[12] = offset << 4;
            assert_eq!(Header::parse(&bytes), None, "data offset {offset}");
        }
    }

    /// RFC 9293, section 3.1, MUST-7. Each row: the options, and the MSS and the timestamp that are understood.
    #[test]
    fn a_malformed_option_costs_no_more_than_itself() {
        let stamp = [8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
        let mss = [2, 4, 5, 180];
        for (options, expected) in [
            ([&mss[..], &stamp].concat(), (Some(1460), true)),
            // Of another length than its kind has: skipped.
            ([&[2, 3, 5][..], &stamp].concat(), (None, true)),
            ([&[2, 3, 5][..], &mss, &[5, 9, 0, 0, 0, 0, 0, 0, 0]].concat(), (Some(1460), false)),
            ([&[3, 2][..], &[4, 3, 0], &[8, 9, 0, 0, 0, 1, 0, 0, 0], &mss].concat(), (Some(1460), false)),
            // Of an impossible length: the end.
            ([&mss[..], &[254, 0], &stamp].concat(), (Some(1460), false)),
            ([&mss[..], &[254, 1], &stamp].concat(), (Some(1460), false)),
            ([&[254, 40][..], &mss].concat(), (None, false)),
            ([&mss[..], &[1, 1, 1, 8]].concat(), (Some(1460), false)),
            // An unknown one is skipped (MUST-6).
            ([&[254, 3, 0][..], &mss].concat(), (Some(1460), false)),
        ] {
            let mut header = vec![0; HEADER_LEN];
            header.extend(&options);
            header.resize(header.len().next_multiple_of(4), kind::NOP);
            header[12] = (header.len() / 4 * 16) as u8;
            let parsed = Header::parse(&header).expect("its lengths add up").options;
            assert_eq!((parsed.mss, parsed.timestamps.is_some()), expected, "{options:?}");
            let len = header.len();
            blank_malformed_options(&mut header);
            assert_eq!(header.len(), len);
            assert_eq!(Header::parse(&header).map(|header| header.options), Some(parsed), "{options:?}");
            let packet = smoltcp::wire::TcpPacket::new_checked(header.as_slice()).expect("a header");
            let mut rest = packet.options();
            while !rest.is_empty() {
                rest = smoltcp::wire::TcpOption::parse(rest).expect("smoltcp takes it").0;
            }
        }
    }

    #[test]
    fn options_are_edited_in_place() {
        let mut header = [0u8; 40];
        header[12] = 10 << 4;
        header[20..40].copy_from_slice(&[2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 3, 3, 7]);
        set_mss_option(&mut header, 1400);
        set_timestamp_value(&mut header, 99);
        set_window_scale_option(&mut header, 9);
        set_window(&mut header, 77);
        assert_eq!(Header::parse(&header).map(|header| header.window), Some(77));
        let options = Header::parse(&header).expect("a SYN's header").options;
        assert_eq!(options.mss, Some(1400));
        assert_eq!(options.timestamps, Some(Timestamps { value: 99, echo: 2 }));
        assert_eq!((options.window_scale, options.sack_permitted), (Some(9), true));
    }
}
