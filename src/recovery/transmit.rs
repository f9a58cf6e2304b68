//! Transmission: selects the next segment, and builds it.
//!
//! The order is: queued segments without data (SYNs, ACKs, resets), retransmissions, new data, and
//! an ACK without data to ride on.
use super::{
    Instant, Recovery, Transmit,
    egress::Control,
    scoreboard::{Record, State},
    sender::{RecoveryPhase, Sender},
    tail_probe::TailProbe,
    time::bytes_per_second,
};
use crate::segment::{ACK, FIN, Options, PSH, RST, SackBlocks, Segment, SeqNumber, Timestamps};

/// A record of whether the congestion window limits the sender (Linux's tcp_cwnd_validate()): an
/// idle window must not grow.
#[derive(Debug, Default)]
pub(super) struct WindowUsage {
    limited: bool,
    most_in_flight: u64,
    until: u64,
}

impl WindowUsage {
    fn note(&mut self, una: u64, nxt: u64, in_flight: u64, limited: bool) {
        if una >= self.until || limited || !self.limited && in_flight > self.most_in_flight {
            self.limited = limited;
            self.most_in_flight = in_flight;
            self.until = nxt;
        }
    }

    /// Returns whether the window limits the sender. In slow start, half of the window in flight
    /// suffices (tcp_is_cwnd_limited()).
    pub(crate) fn is_limited(&self, slow_start: bool, window: u64) -> bool {
        self.limited || slow_start && window < 2 * self.most_in_flight
    }
}

/// A frame of data: the offsets of its bytes.
struct Frame {
    start: u64,
    end: u64,
}

/// The next data to send.
enum Next {
    /// A lost record, by index, and the end of its part that fits.
    Lost(usize, u64),
    /// New data up to this offset.
    New(u64),
}

impl Recovery {
    /// Returns the next segment to send, if one is due. A returned segment counts as sent.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit<'_>> {
        if let Some(control) = self.control.pop_front() {
            return self.send_control(now, control);
        }
        if !self.established {
            let syn = self.negotiation.repeat(now)?;
            return self.send_control(now, Control::Syn(syn));
        }
        if self.aborted {
            return None;
        }
        let frame = self.sender.poll(now);
        if self.sender.keep_alive_at(self.receiver.is_finished()).is_some_and(|at| at <= now) {
            self.sender.timers.user_timeout.on_keep_alive_sent(now);
            self.push_control(Control::Probe);
        }
        if std::mem::take(&mut self.sender.timers.window_probe) {
            self.push_control(Control::Probe);
        }
        match frame {
            Some(frame) => Some(self.build(now, frame)),
            // A probe may have been queued.
            None => match self.control.pop_front() {
                Some(control) => self.send_control(now, control),
                None if self.receiver.ack_at(self.sender.mss).is_some_and(|at| at <= now) => {
                    self.receiver.on_ack_sent();
                    let (ack, window) = self.receiver.advertise(self.sender.mss);
                    self.send_control(now, Control::Ack { ack, window, sack: SackBlocks::default() })
                }
                None => None,
            },
        }
    }

    fn build(&mut self, now: Instant, frame: Frame) -> Transmit<'_> {
        let sender = &self.sender;
        let Frame { start, end } = frame;
        let fin = sender.space.fin.is_some_and(|fin| end > fin);
        let data_end = end - u64::from(fin);
        let len = data_end - start;
        // PSH marks the last data that can be sent now. A peer that has read it all does not delay
        // its ACK then, for which this sender may be waiting (Linux's tcp_measure_rcv_mss()). On
        // super-frames, PSH also informs the receiver's GRO.
        let push =
            len > sender.mss || len > 0 && (end == sender.space.end || sender.allowance() < sender.mss);
        let mut flags = ACK;
        flags |= if fin { FIN } else { 0 };
        flags |= if push { PSH } else { 0 };
        let seq = sender.space.seq(start);
        let segment = self.announcing(now, seq, flags);
        let header_len = segment.write(&mut self.header);
        self.receiver.on_data_sent(now);
        // A path MTU probe is larger than a segment, and still one segment.
        let sender = &self.sender;
        let whole = sender.path_mtu.probe_in_flight() == Some((start, end));
        let (front, tail) = sender.buffer.ring.slices(start, data_end);
        Transmit {
            header: self.header.get(..header_len).unwrap_or_default(),
            payload: [front, tail],
            gso_size: (len > sender.mss && !whole).then(|| u16::try_from(sender.mss).unwrap_or(u16::MAX)),
        }
    }

    fn send_control(&mut self, now: Instant, control: Control) -> Option<Transmit<'_>> {
        let segment = match control {
            Control::Syn(mut syn) => {
                if let Some(timestamps) = &mut syn.options.timestamps {
                    timestamps.value = self.sender.clock.value(now);
                }
                syn
            }
            Control::Foreign(reset) => reset,
            Control::Ack { ack, window, sack } => {
                let mut segment = self.acknowledging(now, self.sender.space.acceptable(), ACK, (ack, window));
                segment.options.sack = sack;
                segment
            }
            Control::Probe => self.announcing(now, self.sender.space.seq(self.sender.space.una) - 1, ACK),
            Control::Reset => self.announcing(now, self.sender.space.acceptable(), RST | ACK),
        };
        let len = segment.write(&mut self.header);
        let header = self.header.get(..len)?;
        Some(Transmit { header, payload: [&[], &[]], gso_size: None })
    }

    /// Returns a header that acknowledges all data received by now.
    fn announcing(&mut self, now: Instant, seq: SeqNumber, flags: u8) -> Segment {
        let news = self.receiver.advertise(self.sender.mss);
        self.acknowledging(now, seq, flags, news)
    }

    /// Returns a header with this acknowledgment and window field.
    fn acknowledging(
        &self,
        now: Instant,
        seq: SeqNumber,
        flags: u8,
        (ack, window): (SeqNumber, u16),
    ) -> Segment {
        let stamp = || Timestamps { value: self.sender.clock.value(now), echo: self.receiver.timestamp() };
        let timestamps = self.sender.use_timestamps.then(stamp);
        let (source, destination) = self.ports;
        let options = Options { timestamps, ..Options::default() };
        Segment { source, destination, seq, ack, flags, window, options, payload_len: 0 }
    }
}

impl Sender {
    /// Draws the conclusions of ACKs, runs the timers, and returns the next frame.
    fn poll(&mut self, now: Instant) -> Option<Frame> {
        self.settle(now);
        let probe = self.run_timers(now);
        self.pacing_blocked = false;
        if probe { self.send_tail_probe(now) } else { self.next_frame(now) }
    }

    /// Returns the bytes that the congestion controller admits now.
    fn allowance(&self) -> u64 {
        // At least one segment, even if segments have just grown.
        let window = self.congestion.window().max(self.mss).saturating_sub(self.in_flight());
        match &self.prr {
            Some(prr) => prr.allowance(),
            None => window,
        }
    }

    /// Returns the payload of a super-frame, in bytes.
    ///
    /// The link limits it. A slow flow's frame holds at most a millisecond of the sending rate, so
    /// that its segments spread over the round trip; more where the round trip is short (Linux's
    /// tcp_tso_autosize()). A frame is never more than half of the window: a window sent as one
    /// frame elicits a single ACK, and its loss stalls the connection (tcp_cwnd_test()).
    fn frame_size(&self) -> u64 {
        let most = match self.config.max_frame > usize::from(self.config.link_mss) {
            true => (self.config.max_frame as u64).max(self.mss),
            // The link does not segment; the peer's MSS may be smaller still.
            false => self.mss,
        };
        let size = match (self.congestion.pacing_rate(), self.rtt.smoothed()) {
            (Some(rate), _) => rate >> 10,
            (None, Some(smoothed)) => {
                // Slow start doubles the window within the round trip (tcp_update_pacing_rate()).
                let growth = if self.congestion.window() < self.congestion.ssthresh() / 2 { 20 } else { 12 };
                let rate = bytes_per_second(self.congestion.window(), smoothed).saturating_mul(growth) / 10;
                let halvings = self.rtt.minimum().unwrap_or_default().as_micros() / 512;
                (rate >> 10) + most.checked_shr(u32::try_from(halvings).unwrap_or(u32::MAX)).unwrap_or(0)
            }
            (None, None) => most,
        };
        let half = (self.congestion.window() / 2).max(self.mss);
        size.max(2 * self.mss).min(most).min(half) / self.mss * self.mss
    }

    fn next_frame(&mut self, now: Instant) -> Option<Frame> {
        let Some(next) = self.next_in_order(now) else {
            self.pacer.pause();
            return None;
        };
        self.pacing_blocked =
            self.congestion.pacing_rate().is_some() && !self.pacer.admits(now, self.rtt.minimum());
        if self.pacing_blocked {
            return None;
        }
        match next {
            Next::Lost(index, end) => Some(self.send_again(now, index, end)),
            Next::New(end) => {
                let end = self.path_mtu_probe(now).unwrap_or(end);
                Some(self.send_new(now, end))
            }
        }
    }

    /// Returns the data that the windows admit: retransmissions first.
    fn next_in_order(&mut self, now: Instant) -> Option<Next> {
        if self.board.lost() > 0 {
            return self.next_lost().map(|(index, end)| Next::Lost(index, end));
        }
        self.next_new(now).map(Next::New)
    }

    /// Returns the lost record to retransmit next, and the end of its part that fits.
    fn next_lost(&mut self) -> Option<(usize, u64)> {
        // RFC 6582: the retransmission after a partial ACK leaves at once.
        let partial = !self.sack && matches!(self.phase, RecoveryPhase::Recovery { .. });
        let room = if partial { self.allowance().max(self.mss) } else { self.allowance() };
        let index = self.board.first_lost()?;
        let start = self.board.get(index)?.start;
        // Nothing leaves beyond a window that has shrunk, except the head after a timeout, as a
        // probe.
        let head_probe = self.timers.head_probe && start == self.space.una;
        let window = self.space.edge.saturating_sub(start).max(if head_probe { self.mss } else { 0 });
        let most = (room / self.mss * self.mss).min(self.frame_size()).min(window);
        let end = self.board.merge_lost(index, most);
        let len = (end - start).min(if room < self.mss { room } else { most }).min(window);
        // A part of a segment leaves only if nothing more is lost there.
        (len > 0 && (len >= self.mss || start + len == end || len == window)).then_some((index, start + len))
    }

    /// Returns the end of the new data that may be sent now.
    fn next_new(&mut self, now: Instant) -> Option<u64> {
        let space = &self.space;
        let waiting = space.end - space.nxt;
        if waiting == 0 {
            self.note_usage(false);
            if self.in_flight() < self.congestion.window() {
                self.rate.application_limited(self.in_flight());
            }
            return None;
        }
        let window = space.usable_window();
        let short = window < waiting;
        // RFC 9293, section 3.8.6.2.1: avoid silly windows while the window is about to open. A
        // peer that never opened one gets no empty segments either.
        let silly = short && window < self.mss.min(space.max_window.div_ceil(2)).max(1);
        if silly {
            return self.persist(now, window);
        }
        let room = self.allowance();
        if room < self.mss.min(waiting) || room == 0 {
            self.note_usage(true);
            return None;
        }
        let frame = self.frame_size();
        let have = waiting.min(window);
        let mut len = have.min(room).min(frame);
        if self.buffer.more && len == waiting && len < frame && self.in_flight() > 0 {
            self.note_usage(false);
            return None;
        }
        if len < have {
            // The congestion window or the frame size limits it: send whole segments.
            len = len / self.mss * self.mss;
            let few = (self.congestion.window() / 4).min(frame / 2);
            let may_wait = self.phase == RecoveryPhase::Open && self.in_flight() > 0;
            if len == 0 || may_wait && len < few {
                // ACKs on their way will admit a larger frame (Linux's tcp_tso_should_defer()). Not
                // in a recovery, where a frame sent now reveals soonest that a retransmission was
                // lost.
                self.note_usage(true);
                return None;
            }
        }
        Some(space.nxt + len)
    }

    /// Returns the end of a path MTU probe, if one is due and the windows admit it.
    fn path_mtu_probe(&mut self, now: Instant) -> Option<u64> {
        let candidate = self.path_mtu.candidate(now).filter(|_| self.phase == RecoveryPhase::Open)?;
        let len = self.negotiated?.segment_payload(candidate);
        let space = &self.space;
        let data = space.fin.unwrap_or(space.end).saturating_sub(space.nxt);
        let (start, end) = (space.nxt, space.nxt + len);
        let fits = len > self.mss && len <= data.min(space.usable_window()).min(self.allowance());
        fits.then(|| self.path_mtu.on_probe_sent(start, end))?;
        Some(end)
    }

    /// Handles a peer's window that admits too little: waits for an ACK of data in flight, or else
    /// for the persist timer.
    fn persist(&mut self, now: Instant, window: u64) -> Option<u64> {
        self.note_usage(false);
        if !self.board.is_empty() {
            return None;
        }
        if !self.timers.persist.is_running() {
            self.timers.user_timeout.on_wait(now);
        }
        if !self.timers.persist.poll(now, self.rtt.rto()) {
            return None;
        }
        if window > 0 {
            // The override timeout of section 3.8.6.2.1.
            return Some(self.space.nxt + window);
        }
        self.stats.window_probes += 1;
        self.timers.window_probe = true;
        None
    }

    fn note_usage(&mut self, limited: bool) {
        self.usage.note(self.space.una, self.space.nxt, self.in_flight(), limited);
    }

    fn send_tail_probe(&mut self, now: Instant) -> Option<Frame> {
        self.stats.tail_probes += 1;
        let number = self.probes_of_this_flight() + 1;
        // RFC 8985, section 7.3: the first probe restarts the retransmission timer.
        let rto_from = if number == 1 { now } else { self.timers.rto_from };
        let frame = match self.phase {
            RecoveryPhase::Open => self.send_more_or_last_again(now, number),
            _ => self.send_head_again(now, number),
        };
        self.timers.rto_from = rto_from;
        frame
    }

    /// Sends new data if there is any, or else the last data sent (RFC 8985, section 7.3).
    fn send_more_or_last_again(&mut self, now: Instant, number: u32) -> Option<Frame> {
        let space = &self.space;
        let new = (space.end - space.nxt).min(space.usable_window()).min(self.mss);
        if new > 0 {
            let frame = self.send_new(now, space.nxt + new);
            self.timers.tail_probe = Some(TailProbe { number, end: self.space.nxt, retransmission: false });
            return Some(frame);
        }
        let index = self.board.last_in_flight()?;
        let record = *self.board.get(index)?;
        let start = record.end.saturating_sub(self.mss).max(record.start);
        self.board.split(index, start);
        let index = if start > record.start { index + 1 } else { index };
        self.timers.tail_probe = Some(TailProbe { number, end: self.space.nxt, retransmission: true });
        Some(self.send_again(now, index, record.end))
    }

    /// Probes a recovery: retransmits the head, which fills a hole that is still open, or elicits a
    /// new ACK if only the ACK was lost.
    fn send_head_again(&mut self, now: Instant, number: u32) -> Option<Frame> {
        let head = *self.board.front()?;
        self.timers.tail_probe = Some(TailProbe { number, end: self.space.nxt, retransmission: true });
        Some(self.send_again(now, 0, head.end.min(head.start + self.mss)))
    }

    fn send_new(&mut self, now: Instant, end: u64) -> Frame {
        let start = self.space.nxt;
        if self.board.is_empty() {
            self.rate.start(now);
            // RFC 6298, section 5.1.
            self.timers.rto_from = now;
            self.timers.user_timeout.on_wait(now);
            if let Some(since) = self.timers.idle_since.take() {
                let idle = now.since(since);
                let timeouts = idle.as_nanos().checked_div(self.rtt.rto().as_nanos()).unwrap_or(0);
                self.congestion.on_restart(now, idle, u32::try_from(timeouts).unwrap_or(u32::MAX));
            }
        }
        self.timers.persist.stop();
        self.board.push(Record {
            start,
            end,
            state: State::InFlight,
            retransmitted: false,
            timed: true,
            sent: now,
            nxt: end,
            snapshot: self.rate.snapshot(),
        });
        self.space.nxt = end;
        self.timers.probe_from = now;
        let limited = self.in_flight() >= self.congestion.window();
        self.note_usage(limited);
        self.account(now, start, end);
        Frame { start, end }
    }

    /// Retransmits record `index` up to `end`.
    fn send_again(&mut self, now: Instant, index: usize, end: u64) -> Frame {
        self.board.split(index, end);
        let (start, repeated) = self.board.get(index).map_or((end, false), |r| (r.start, r.retransmitted));
        self.board.resend(index, now, self.space.nxt, self.rate.snapshot());
        self.timers.probe_from = now;
        if start == self.space.una {
            self.timers.rto_from = now;
        }
        if self.path_mtu.probe_in_flight().is_some_and(|(from, to)| start < to && end > from) {
            self.path_mtu.on_probe_lost(self.link_mss);
        }
        self.timers.head_probe = false;
        self.timers.head_probed = start >= self.space.edge;
        let timestamp = self.use_timestamps.then(|| self.clock.value(now));
        self.undo.on_retransmission(start, end - start, timestamp, repeated);
        self.stats.bytes_retransmitted += end - start;
        self.stats.segments_retransmitted += (end - start).div_ceil(self.mss);
        self.account(now, start, end);
        Frame { start, end }
    }

    fn account(&mut self, now: Instant, start: u64, end: u64) {
        let len = end - start;
        self.stats.bytes_sent += len;
        // The FIN takes a sequence number and carries no data.
        let data_end = self.space.fin.map_or(end, |fin| end.min(fin));
        self.stats.segments_sent += data_end.saturating_sub(start).div_ceil(self.mss);
        if let Some(prr) = &mut self.prr {
            prr.on_sent(len);
        }
        if let Some(rate) = self.congestion.pacing_rate() {
            self.pacer.on_sent(now, len, rate, self.rtt.minimum());
        }
    }
}
