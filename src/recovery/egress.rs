//! SYN, FIN and reset, as the state machine requests them. This layer decides their options, window
//! and acknowledgment, and repeats all but the SYN.
use super::{Instant, Recovery};
use crate::segment::{ACK, SackBlocks, Segment, SeqNumber};

/// Maximum queued segments without data. More of them wait only if the caller stopped sending; the
/// oldest ACKs are useless then.
const MAX_QUEUED: usize = 1024;

/// A segment without data that waits to be sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Control {
    Ack {
        ack: SeqNumber,
        window: u16,
        sack: SackBlocks,
    },
    /// A keep-alive or a window probe: an ACK with an old sequence number, to which the peer must
    /// reply.
    Probe,
    /// A SYN, stamped on departure.
    Syn(Segment),
    /// The connection's own reset.
    Reset,
    /// A reset outside of a connection, sent unchanged.
    Foreign(Segment),
}

impl Recovery {
    /// Sends `syn`, a SYN or a SYN-ACK. Takes its ports, numbers and option kinds; sets the values
    /// of MSS, window scale and timestamps itself. The first call sets the initial sequence number
    /// and the clock.
    pub fn send_syn(&mut self, now: Instant, syn: &Segment) {
        if self.established {
            return;
        }
        self.ports = (syn.source, syn.destination);
        if self.negotiation.ours.is_none() || self.sender.space.iss != syn.seq {
            let timestamp = syn.options.timestamps.map(|timestamps| timestamps.value);
            self.sender.synchronize(now, syn.seq, timestamp);
        }
        let mut syn = Segment { window: self.receiver.syn_window(), ..*syn };
        let options = &mut syn.options;
        options.window_scale = options.window_scale.map(|_| self.receiver.offered_shift());
        let link_mss = u16::try_from(self.sender.link_mss).unwrap_or(u16::MAX);
        options.mss = options.mss.map(|_| self.sender.config.advertised_mss.unwrap_or(link_mss));
        self.negotiation.ours = Some(syn.options);
        self.negotiation.on_syn_sent(now);
        self.negotiation.keep_syn(syn);
        if syn.is(ACK) {
            self.receiver.on_syn_acknowledged();
        }
        self.push_control(Control::Syn(syn));
    }

    /// Ends the stream: a FIN follows the last byte, once the connection is established. After the
    /// peer has acknowledged the FIN, another call only repeats
    /// [`Event::FinAcknowledged`](super::Event).
    pub fn send_fin(&mut self) {
        if !self.established {
            return;
        }
        let space = &mut self.sender.space;
        match space.fin {
            None => {
                space.fin = Some(space.end);
                space.end += 1;
                self.sender.buffer.more = false;
            }
            Some(_) if space.is_fin_acknowledged() => self.reported.fin_acknowledged = false,
            // The timers retransmit the FIN.
            Some(_) => {}
        }
    }

    /// Sends a reset. Before the connection is established, sends `reset` unchanged. Afterwards,
    /// ends the connection with a reset that the peer accepts without a challenge (RFC 5961,
    /// section 3.2).
    pub fn send_reset(&mut self, reset: &Segment) {
        if !self.established {
            self.negotiation.give_up();
            self.push_control(Control::Foreign(*reset));
            return;
        }
        self.aborted = true;
        self.control.clear();
        self.control.push_back(Control::Reset);
    }

    pub(super) fn push_control(&mut self, control: Control) {
        if self.control.len() >= MAX_QUEUED {
            self.control.pop_front();
        }
        self.control.push_back(control);
    }
}
