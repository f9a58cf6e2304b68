//! TCP options (RFC 9293, section 3.2): reading them without trust, and writing them.
//!
//! smoltcp's `TcpOption` refuses a whole segment for one malformed option, which RFC 9293 (section
//! 3.1, MUST-7) forbids, and drops a fourth SACK block. So this file parses options itself.
use super::{MAX_HEADER_LEN, MIN_HEADER_LEN, SeqNumber, serial_distance};

/// Length of the timestamps option with its padding (RFC 7323, appendix A), in bytes.
pub(crate) const TIMESTAMPS_LEN: usize = 12;
/// Maximum SACK blocks in a header (RFC 2018, section 3).
pub(crate) const MAX_SACK_BLOCKS: usize = 4;

mod kind {
    pub(crate) const END: u8 = 0;
    pub(crate) const NOP: u8 = 1;
    pub(crate) const MSS: u8 = 2;
    pub(crate) const WINDOW_SCALE: u8 = 3;
    pub(crate) const SACK_PERMITTED: u8 = 4;
    pub(crate) const SACK: u8 = 5;
    pub(crate) const TIMESTAMPS: u8 = 8;
}

/// The timestamps option (RFC 7323, section 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timestamps {
    /// TSval.
    pub value: u32,
    /// TSecr.
    pub echo: u32,
}

/// The SACK blocks of one segment, in the segment's order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SackBlocks {
    blocks: [(SeqNumber, SeqNumber); MAX_SACK_BLOCKS],
    count: usize,
}

impl SackBlocks {
    /// Appends a block; drops it when four are there.
    pub(crate) fn push(&mut self, left: SeqNumber, right: SeqNumber) {
        if let Some(slot) = self.blocks.get_mut(self.count) {
            *slot = (left, right);
            self.count += 1;
        }
    }

    /// Returns the blocks as pairs of left and right edge.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (SeqNumber, SeqNumber)> + '_ {
        self.blocks.iter().take(self.count).copied()
    }

    /// Returns whether there are no blocks.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns whether an ACK of `ack` with these blocks conveys everything that an earlier ACK of
    /// `before` with the `earlier` blocks did. An earlier ACK that reports a duplicate is never
    /// superseded.
    pub(crate) fn supersede(&self, ack: SeqNumber, (before, earlier): (SeqNumber, &SackBlocks)) -> bool {
        let at_most = |a: SeqNumber, b: SeqNumber| !a.is_after(b);
        let within =
            |(left, right): (SeqNumber, SeqNumber), (start, end)| at_most(start, left) && at_most(right, end);
        let (first, second) = (earlier.iter().next(), earlier.iter().nth(1));
        // RFC 2883, section 4.
        let duplicate = first.is_some_and(|block| {
            at_most(block.1, before) || second.is_some_and(|around| within(block, around))
        });
        let told = |block: (SeqNumber, SeqNumber)| {
            at_most(block.1, ack) || self.iter().any(|later| within(block, later))
        };
        !duplicate && earlier.iter().all(told)
    }
}

/// The options that netkat understands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Maximum segment size, in bytes.
    pub mss: Option<u16>,
    /// Shift count of the window field, 0 to 14.
    pub window_scale: Option<u8>,
    /// The sender accepts SACK blocks (RFC 2018, section 2).
    pub sack_permitted: bool,
    /// The timestamps option.
    pub timestamps: Option<Timestamps>,
    /// The SACK blocks.
    pub sack: SackBlocks,
}

impl Options {
    /// Parses options. Skips an option whose length does not fit its kind, and stops at an
    /// impossible length; the segment stays valid (RFC 9293, section 3.1, MUST-7; as Linux's
    /// tcp_parse_options(), net/ipv4/tcp_input.c).
    pub(super) fn parse(mut rest: &[u8]) -> Options {
        let mut options = Options::default();
        while let Some((kind, body, behind)) = next_option(rest) {
            rest = behind;
            match (kind, body.len()) {
                (kind::MSS, 2) => options.mss = be16(body, 0),
                // RFC 7323, section 2.3: a larger shift counts as 14.
                (kind::WINDOW_SCALE, 1) => options.window_scale = body.first().map(|shift| (*shift).min(14)),
                (kind::SACK_PERMITTED, 0) => options.sack_permitted = true,
                (kind::TIMESTAMPS, 8) => {
                    let stamp = be32(body, 0).zip(be32(body, 4));
                    options.timestamps = stamp.map(|(value, echo)| Timestamps { value, echo });
                }
                (kind::SACK, len) if len.is_multiple_of(8) => {
                    for (left, right) in body.chunks_exact(8).filter_map(|b| be32(b, 0).zip(be32(b, 4))) {
                        options.sack.push(SeqNumber(left), SeqNumber(right));
                    }
                }
                _ => {}
            }
        }
        options
    }

    /// Writes the options into `out`, behind the header's fixed part. Returns the header's length,
    /// a multiple of 4. A SYN's options stand in smoltcp's order, those of other segments as RFC
    /// 7323, appendix A, recommends.
    pub(super) fn write(&self, out: &mut [u8; MAX_HEADER_LEN]) -> usize {
        let mut writer = Writer { out, len: MIN_HEADER_LEN };
        if let Some(mss) = self.mss {
            writer.put(&[kind::MSS, 4]);
            writer.put(&mss.to_be_bytes());
        }
        if let Some(shift) = self.window_scale {
            writer.put(&[kind::WINDOW_SCALE, 3, shift]);
        }
        if self.sack_permitted {
            writer.put(&[kind::SACK_PERMITTED, 2]);
        }
        if let Some(timestamps) = self.timestamps {
            if writer.len == MIN_HEADER_LEN {
                writer.put(&[kind::NOP, kind::NOP]);
            }
            writer.put(&[kind::TIMESTAMPS, 10]);
            writer.put(&timestamps.value.to_be_bytes());
            writer.put(&timestamps.echo.to_be_bytes());
        }
        // Beside timestamps there is room for three blocks (RFC 2018, section 3).
        let count = self.sack.count.min(MAX_HEADER_LEN.saturating_sub(writer.len + 4) / 8);
        if count > 0 {
            writer.put(&[kind::NOP, kind::NOP, kind::SACK, 2 + 8 * count as u8]);
            for (left, right) in self.sack.iter().take(count) {
                writer.put(&left.0.to_be_bytes());
                writer.put(&right.0.to_be_bytes());
            }
        }
        while !writer.len.is_multiple_of(4) {
            writer.put(&[kind::END]);
        }
        writer.len
    }
}

/// A writer that appends to a header.
struct Writer<'a> {
    out: &'a mut [u8; MAX_HEADER_LEN],
    len: usize,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) {
        if let Some(room) = self.out.get_mut(self.len..self.len + bytes.len()) {
            room.copy_from_slice(bytes);
            self.len += bytes.len();
        }
    }
}

/// Returns kind and data of the first option in `rest`, and the bytes behind it. Returns `None` at
/// the end of the options or at an impossible length.
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

/// Returns whether timestamp `a` is older than `b` (RFC 7323, section 3).
pub(crate) fn is_older(a: u32, b: u32) -> bool {
    serial_distance(a, b) < 0
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
