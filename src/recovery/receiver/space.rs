//! The receive sequence space (RFC 9293, section 3.4), in 64-bit offsets from the peer's initial sequence number.
//!
//! Offset 0 is the peer's SYN, data begins at 1, a FIN counts one, as in the send space.

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ReceiveSpace {
    irs: u32,
    /// RCV.NXT; 0 before the peer's SYN has come.
    pub nxt: u64,
    /// The offset of the peer's FIN, once it has come, in order or not.
    pub fin: Option<u64>,
}

impl ReceiveSpace {
    pub fn new(irs: u32) -> Self {
        ReceiveSpace { irs, nxt: 1, fin: None }
    }

    pub fn is_synchronized(&self) -> bool {
        self.nxt > 0
    }

    pub fn seq(&self, offset: u64) -> u32 {
        self.irs.wrapping_add(offset as u32)
    }

    /// How far `seq` lies after RCV.NXT.
    pub fn distance(&self, seq: u32) -> i64 {
        i64::from(seq.wrapping_sub(self.seq(self.nxt)) as i32)
    }

    /// Whether the FIN, and so everything before it, has come.
    pub fn is_finished(&self) -> bool {
        self.fin.is_some_and(|fin| self.nxt > fin)
    }

    /// The end of the data that has come in order.
    pub fn data_end(&self) -> u64 {
        self.fin.unwrap_or(self.nxt).min(self.nxt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_survive_the_wrap() {
        let mut space = ReceiveSpace::new(u32::MAX - 2);
        assert_eq!((space.distance(u32::MAX - 2), space.distance(7)), (-1, 9));
        space.nxt = (5 << 32) + 3;
        assert_eq!((space.distance(space.seq(5 << 32)), space.distance(10)), (-3, 10));
    }

    #[test]
    fn a_fin_is_no_data() {
        let mut space = ReceiveSpace { fin: Some(11), nxt: 5, ..ReceiveSpace::new(0) };
        assert_eq!((space.is_finished(), space.data_end()), (false, 5));
        space.nxt = 12;
        assert_eq!((space.is_finished(), space.data_end()), (true, 11));
    }
}
