//! What the stack above knows, and making sure that it does.
//!
//! smoltcp ignores the acknowledgment of any segment whose data it cannot take: out of order beyond its window, or
//! any data at all while its own window is shut. The layer has digested it by then and hides what repeats it, so
//! the stack might wait for ever for the acknowledgment of its FIN. Hence this mirror of the stack's receive side:
//! it tells whether a segment was certain to be accepted, and if not, a bare ACK at exactly the sequence number that
//! the stack expects is shown to it.

/// What of ours the peer has acknowledged, as far as the stack is concerned, which has no data to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acknowledged {
    Syn,
    Fin,
}

#[derive(Debug, Default)]
pub(super) struct StackView {
    /// The stack's last acknowledgment, and the right edge of the window that went with it.
    acknowledged: u32,
    right_edge: u32,
    /// RCV.NXT as far as is known: the last acknowledgment and what was shown in order since.
    expected: u32,
    /// `expected` can't be wrong.
    exact: bool,
    /// The last state that the stack has certainly taken.
    confirmed: Option<Acknowledged>,
    /// A bare ACK was shown since the stack last spoke; another one would not do better.
    tried: bool,
    synchronized: bool,
}

impl StackView {
    /// The stack sent a segment that acknowledges `ack` and opens a window of `window` bytes.
    pub fn on_sent(&mut self, ack: u32, window: u32) {
        self.acknowledged = ack;
        self.right_edge = ack.wrapping_add(window);
        self.expected = ack;
        self.exact = true;
        self.tried = false;
        self.synchronized = true;
    }

    /// The stack showed that it does not know `state` yet.
    pub fn on_behind(&mut self) {
        self.confirmed = None;
    }

    /// RCV.NXT as far as is known; `None` before the stack has acknowledged anything.
    pub fn expected(&self) -> Option<u32> {
        self.synchronized.then_some(self.expected)
    }

    /// The stack's last acknowledgment (RFC 7323's Last.ACK.sent).
    pub fn acknowledged(&self) -> u32 {
        self.acknowledged
    }

    /// Whether a segment lies before everything that the stack waits for: a keep-alive, a probe, a duplicate.
    pub fn is_old(&self, seq: u32) -> bool {
        before(seq, self.acknowledged)
    }

    /// Whether `seq` lies in the stack's receive window.
    pub fn in_window(&self, seq: u32) -> bool {
        !self.is_old(seq) && (before(seq, self.right_edge) || seq == self.expected)
    }

    /// Whether `state` is news to the stack.
    pub fn lacks(&self, state: Acknowledged) -> bool {
        self.confirmed != Some(state)
    }

    /// A bare ACK at the expected sequence number was shown.
    pub fn show_bare(&mut self, state: Acknowledged) {
        if self.exact {
            self.confirmed = Some(state);
        } else {
            self.tried = true;
        }
    }

    /// A segment with `len` bytes of data or with a FIN was shown, carrying `state`.
    pub fn show_data(&mut self, seq: u32, len: usize, fin: bool, state: Acknowledged) {
        let end = seq.wrapping_add(len as u32);
        let in_order = self.exact && seq == self.expected && len > 0;
        if in_order && !fin && !before(self.right_edge, end) {
            self.expected = end;
            self.confirmed = Some(state);
        } else {
            self.exact = false;
            self.tried = false;
        }
    }

    /// Whether the stack must be shown a bare ACK now.
    pub fn wants_bare(&self, state: Acknowledged) -> bool {
        self.synchronized && !self.tried && self.lacks(state)
    }
}

fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Acknowledged = Acknowledged::Syn;
    const NEW: Acknowledged = Acknowledged::Fin;

    #[test]
    fn data_in_order_is_certain_to_be_taken() {
        let mut view = StackView::default();
        view.on_sent(100, 50);
        view.show_data(100, 50, false, NEW);
        assert!(!view.wants_bare(NEW));
        assert_eq!(view.expected(), Some(150));
    }

    #[test]
    fn what_may_be_refused_is_told_again_until_the_stack_has_spoken() {
        let mut view = StackView::default();
        view.on_sent(100, 50);
        view.show_bare(OLD);
        view.show_data(100, 60, false, NEW);
        assert!(view.wants_bare(NEW), "it crosses the window's edge");
        view.show_bare(NEW);
        assert!(!view.wants_bare(NEW), "once is enough until the stack speaks");
        view.on_sent(150, 0);
        assert!(view.wants_bare(NEW), "the first one may have come at the wrong sequence number");
        view.show_bare(NEW);
        view.on_sent(150, 10);
        assert!(!view.wants_bare(NEW));
    }

    #[test]
    fn a_shut_window_takes_no_data() {
        let mut view = StackView::default();
        view.on_sent(100, 0);
        view.show_data(100, 1, false, NEW);
        assert!(view.wants_bare(NEW));
    }
}
