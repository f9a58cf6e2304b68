//! The receiver's silly window avoidance (RFC 9293, section 3.8.6.2.2).
//!
//! smoltcp offers each byte that its reader has made room for. A peer that takes such offers sends ever smaller
//! segments, so the window's right edge on the wire moves only by a segment, or by half of the largest window.

#[derive(Debug, Default)]
pub(super) struct OfferedWindow {
    /// The right edge on the wire.
    edge: Option<u32>,
    largest: u32,
}

impl OfferedWindow {
    /// The stack acknowledges `ack` and offers `window` bytes; returns the bytes to offer on the wire, if they are
    /// to be less.
    pub fn offer(&mut self, ack: u32, window: u32, segment: u64) -> Option<u32> {
        self.largest = self.largest.max(window);
        let right = ack.wrapping_add(window);
        let enough = u32::try_from(segment).unwrap_or(u32::MAX).min(self.largest / 2).max(1);
        if let Some(edge) = self.edge
            && (1..enough).contains(&right.wrapping_sub(edge))
            && let kept = edge.wrapping_sub(ack)
            && kept < window
        {
            return Some(kept);
        }
        self.edge = Some(right);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edge_moves_by_whole_segments() {
        let mut offered = OfferedWindow::default();
        assert_eq!(offered.offer(1000, 4000, 1460), None);
        assert_eq!(offered.offer(5000, 0, 1460), None);
        assert_eq!(offered.offer(5000, 1, 1460), Some(0));
        assert_eq!(offered.offer(5000, 1459, 1460), Some(0));
        assert_eq!(offered.offer(5000, 1460, 1460), None);
        assert_eq!(offered.offer(5100, 1460, 1460), Some(1360));
        assert_eq!(offered.offer(6000, 4000, 1460), None);
    }

    #[test]
    fn half_of_a_small_window_is_enough() {
        let mut offered = OfferedWindow::default();
        offered.offer(u32::MAX - 99, 100, 1460);
        assert_eq!(offered.offer(0, 49, 1460), Some(0));
        assert_eq!(offered.offer(0, 50, 1460), None);
    }

    #[test]
    fn a_window_that_shrinks_is_told() {
        let mut offered = OfferedWindow::default();
        offered.offer(0, 10_000, 1460);
        assert_eq!(offered.offer(0, 9_000, 1460), None);
    }
}
