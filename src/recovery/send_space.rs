//! The send sequence space (RFC 9293, section 3.4), in 64-bit offsets from the initial sequence
//! number.
//!
//! Offset 0 is the SYN, data begins at 1, a FIN counts one. Only two functions convert between
//! sequence numbers and offsets.
use crate::segment::SeqNumber;

/// The send sequence space of one connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SendSpace {
    /// The initial sequence number.
    pub iss: SeqNumber,
    /// SND.UNA.
    pub una: u64,
    /// SND.NXT.
    pub nxt: u64,
    /// The end of the data that the user has written.
    pub end: u64,
    /// The offset of the FIN, once the user has ended the stream.
    pub fin: Option<u64>,
    /// The right edge of the peer's window: SND.UNA + SND.WND.
    pub edge: u64,
    /// The largest window that the peer ever offered (MAX.SND.WND).
    pub max_window: u64,
    /// SND.WL1: the sequence number of the segment that last updated the window.
    wl1: SeqNumber,
    /// The window field of that segment.
    pub window: u16,
    /// The shift of the peer's window field.
    pub shift: u8,
}

impl SendSpace {
    pub(crate) fn new(iss: SeqNumber) -> Self {
        SendSpace { iss, una: 1, nxt: 1, end: 1, edge: 1, ..SendSpace::default() }
    }

    /// Returns the sequence number of `offset`.
    pub(crate) fn seq(&self, offset: u64) -> SeqNumber {
        self.iss + offset as u32
    }

    /// Returns the offset nearest to SND.UNA that `seq` can mean, at least zero.
    pub(crate) fn offset(&self, seq: SeqNumber) -> u64 {
        let distance = seq.distance_from(self.seq(self.una));
        self.una.saturating_add_signed(i64::from(distance))
    }

    /// Returns whether SND.UNA - MAX.SND.WND <= SEG.ACK <= SND.NXT (RFC 5961, section 5.2). An
    /// acknowledgment below our SYN is never acceptable, however far back the window reaches.
    pub(crate) fn is_acceptable_ack(&self, ack: u64) -> bool {
        (1..=self.nxt).contains(&ack) && ack + self.max_window.max(1 << 16) >= self.una
    }

    /// Applies the window of an acceptable ACK at or above SND.UNA, if it is newer than ours. A
    /// shut window counts at once, even if reordering leaves its age unclear: our own ACKs must
    /// stay inside it (Linux's tcp_may_update_window()). Returns whether the edge moved right.
    pub(crate) fn update_window(&mut self, seq: SeqNumber, ack: u64, window: u16, advanced: bool) -> bool {
        let newer = seq.is_after(self.wl1);
        let edge = ack + (u64::from(window) << self.shift);
        if !(advanced || newer || seq == self.wl1 && (edge > self.edge || window == 0)) {
            return false;
        }
        self.wl1 = seq;
        self.window = window;
        self.max_window = self.max_window.max(edge - ack);
        let grown = edge > self.edge;
        self.edge = edge;
        grown
    }

    /// Sets the window from a SYN-ACK or from the ACK that completes the handshake.
    pub(crate) fn set_window(&mut self, seq: SeqNumber, window: u16, bytes: u64) {
        self.wl1 = seq;
        self.window = window;
        self.edge = self.una + bytes;
        self.max_window = bytes;
    }

    /// Returns a sequence number that the peer accepts for a segment without data: SND.NXT, unless
    /// its window has shrunk below (Linux's tcp_acceptable_seq()).
    pub(crate) fn acceptable(&self) -> SeqNumber {
        self.seq(self.nxt.min(self.edge.max(self.una)))
    }

    /// Returns the bytes written and not acknowledged.
    pub(crate) fn outstanding(&self) -> u64 {
        self.end - self.una
    }

    /// Returns whether the peer has acknowledged our FIN, and so everything.
    pub(crate) fn is_fin_acknowledged(&self) -> bool {
        self.fin.is_some_and(|fin| self.una > fin)
    }

    /// Returns the bytes that the window still admits.
    pub(crate) fn usable_window(&self) -> u64 {
        self.edge.saturating_sub(self.nxt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_survive_the_wrap() {
        let mut space = SendSpace::new(SeqNumber(u32::MAX - 2));
        assert_eq!(space.offset(SeqNumber(u32::MAX - 1)), 1);
        assert_eq!(space.offset(SeqNumber(7)), 10);
        assert_eq!(space.seq(10), SeqNumber(7));
        space.una = 5 << 32;
        assert_eq!(space.offset(space.seq((5 << 32) + 100)), (5 << 32) + 100);
        assert_eq!(space.offset(space.seq((5 << 32) - 100)), (5 << 32) - 100);
    }

    #[test]
    fn a_shut_window_counts_at_once() {
        let mut space = SendSpace::new(SeqNumber(0));
        space.set_window(SeqNumber(100), 1000, 1000);
        assert!(!space.update_window(SeqNumber(100), 1, 500, false), "as old as what we have, and smaller");
        assert_eq!(space.edge, 1001);
        assert!(!space.update_window(SeqNumber(100), 1, 0, false));
        assert_eq!(space.edge, 1);
        assert!(!space.update_window(SeqNumber(99), 1, 800, false), "older than what we have");
        assert!(space.update_window(SeqNumber(100), 1, 800, false));
        assert_eq!(space.edge, 801);
    }
}
