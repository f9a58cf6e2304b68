//! Segments of an established connection (RFC 9293, section 3.10.7.4).
//!
//! Blind attacks end here (RFC 5961): a reset must have exactly the expected sequence number, and
//! an acknowledgment must lie in the window of sent data.
use std::time::Duration;

use super::{Event, Instant, Recovery, SegmentOutcome, egress::Control, opening::Opening, receiver::AckKind};
use crate::segment::{ACK, FIN, RST, SYN, SackBlocks, Segment, SeqNumber};

/// Minimum interval of challenge ACKs (RFC 5961, section 7; Linux's limit is two a second).
const CHALLENGE_INTERVAL: Duration = Duration::from_millis(500);

/// Duplicate ACKs that leave individually, for senders that count them (RFC 5681, section 3.2).
/// Beyond that, the last one waiting is enough (Linux's __tcp_ack_snd_check(),
/// net/ipv4/tcp_input.c).
const DUPLICATES: u32 = 3;

/// The events that [`Recovery::poll_event`] has reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reported {
    established: bool,
    pub(super) fin_acknowledged: bool,
    peer_finished: bool,
}

impl Recovery {
    /// Processes one segment of the peer and its payload. The caller has verified checksum and
    /// ports.
    #[must_use]
    pub fn handle_segment(&mut self, now: Instant, segment: &Segment, payload: &[u8]) -> SegmentOutcome {
        if !self.established {
            match self.open(now, segment, payload) {
                Opening::Over(outcome) => return outcome,
                Opening::Established => {}
            }
        } else if segment.is(RST) {
            return self.on_reset(now, segment);
        } else if segment.is(SYN) {
            // RFC 5961, section 4.2.
            self.challenge(now);
            return SegmentOutcome::Processed;
        } else if !segment.is(ACK) {
            // RFC 9293, section 3.10.7.4, checks the sequence number first; a segment without ACK
            // is dropped then.
            if !self.receiver.admits_segment(segment.seq, segment.seq_len().into()) {
                self.challenge(now);
            }
            return SegmentOutcome::Processed;
        }

        let len = payload.len();
        let fin = segment.is(FIN);
        let stamp = segment.options.timestamps.filter(|_| self.sender.use_timestamps);
        // RFC 7323, section 5.3. Bare ACKs are exempt, because reordering does them no harm.
        if (len > 0 || fin) && stamp.is_some_and(|stamp| self.receiver.is_old_timestamp(now, stamp.value)) {
            // A retransmission may have arrived before this one: the sender wants to know (Linux's
            // tcp_send_dupack()).
            let report = self.receiver.refuse(segment.seq, segment.seq_len().into());
            self.push_ack(report);
            return SegmentOutcome::Processed;
        }
        let ack = self.sender.space.offset(segment.ack);
        if !self.receiver.is_near(segment.seq) {
            // A peer that sends data expects its acknowledgment: this is no ACK loop (Linux's
            // tcp_oow_rate_limited()).
            match len > 0 || fin {
                true => self.owe_ack(),
                false => self.challenge(now),
            }
            return SegmentOutcome::Processed;
        }
        if !self.sender.space.is_acceptable_ack(ack) {
            self.challenge(now);
            return SegmentOutcome::Processed;
        }
        if let Some(stamp) = stamp
            && self.receiver.was_acknowledged(segment.seq)
        {
            self.receiver.note_timestamp(now, stamp.value);
        }
        self.sender.timers.user_timeout.on_segment_received(now);

        let pure = len == 0 && !fin;
        self.sender.on_ack(now, segment, ack, pure);
        self.sender.charge_pool();
        if pure {
            self.on_pure_ack(now, segment.seq);
        } else if self.receiver.is_worth_offering(segment.seq, len) {
            return SegmentOutcome::InOrder;
        } else {
            self.take_text(now, segment.seq, payload, fin, 0);
        }
        SegmentOutcome::Processed
    }

    /// Keeps the payload of a segment that was [`SegmentOutcome::InOrder`], from the byte `taken`
    /// on.
    ///
    /// The user has read the first `taken` bytes, after all data that [`Recovery::read`] had.
    /// Without this call the segment counts as lost, and the peer retransmits it.
    pub fn keep(&mut self, now: Instant, segment: &Segment, payload: &[u8], taken: usize) {
        self.take_text(now, segment.seq, payload, segment.is(FIN), taken);
    }

    /// Returns whether the peer may have sent this acknowledgment on an established connection.
    pub(crate) fn is_acceptable_ack(&self, ack: SeqNumber) -> bool {
        self.sender.space.is_acceptable_ack(self.sender.space.offset(ack))
    }

    /// Accepts payload and FIN of a segment that begins at `seq` and has at least one of them. The
    /// user has read the first `taken` bytes.
    pub(super) fn take_text(
        &mut self,
        now: Instant,
        seq: SeqNumber,
        payload: &[u8],
        fin: bool,
        taken: usize,
    ) {
        let AckKind::Immediate(sack) =
            self.receiver.on_segment(now, seq, payload, fin, self.sender.mss, taken)
        else {
            return;
        };
        self.push_ack(sack);
        while let Some(sack) = self.receiver.further_report() {
            if self.sender.sack {
                self.push_ack(sack);
            }
        }
    }

    /// Handles a segment with only an ACK, which is already processed.
    fn on_pure_ack(&mut self, now: Instant, seq: SeqNumber) {
        if self.receiver.is_probe(seq) {
            self.owe_ack();
        } else if !self.receiver.admits(seq) {
            // Most likely an ACK that data overtook, or an ACK of a peer that has filled our
            // window.
            self.challenge(now);
        }
    }

    /// Returns the next event that was not reported yet, in the order of a connection's life;
    /// `None` if there is none.
    pub fn poll_event(&mut self) -> Option<Event> {
        let reported = &mut self.reported;
        let news = |reported: &mut bool, happened: bool| !std::mem::replace(reported, happened) && happened;
        if news(&mut reported.established, self.established) {
            Some(Event::Established)
        } else if news(&mut reported.fin_acknowledged, self.sender.space.is_fin_acknowledged()) {
            Some(Event::FinAcknowledged)
        } else if news(&mut reported.peer_finished, self.receiver.is_finished() && self.established) {
            Some(Event::PeerFinished)
        } else {
            None
        }
    }

    fn on_reset(&mut self, now: Instant, segment: &Segment) -> SegmentOutcome {
        // RFC 5961, section 3.2.
        if self.receiver.is_expected(segment.seq) {
            return SegmentOutcome::Reset;
        }
        if self.receiver.admits(segment.seq) {
            self.challenge(now);
        }
        SegmentOutcome::Processed
    }

    /// Sends a challenge ACK (RFC 5961) to a segment that may be an attack, so that an honest peer
    /// can react.
    pub(super) fn challenge(&mut self, now: Instant) {
        if self.challenged_at.is_none_or(|at| now.since(at) >= CHALLENGE_INTERVAL) {
            self.challenged_at = Some(now);
            self.owe_ack();
        }
    }

    fn owe_ack(&mut self) {
        self.push_ack(SackBlocks::default());
    }

    fn push_ack(&mut self, sack: SackBlocks) {
        let (ack, window) = self.receiver.advertise(self.sender.mss);
        let sack = if self.sender.sack { sack } else { SackBlocks::default() };
        if let Some(Control::Ack { ack: before, sack: earlier, .. }) = self.control.back()
            && self.receiver.repeats() > DUPLICATES + 1
            && !earlier.is_empty()
            && sack.supersede(ack, (*before, earlier))
        {
            self.control.pop_back();
        }
        self.push_control(Control::Ack { ack, window, sack });
    }
}
