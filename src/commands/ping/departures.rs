//! The packets of pings: SYNs or datagrams, and the resets that end what a SYN-ACK began.
use super::{
    in_flight::{Sent, State},
    pinger::{MARK, Pinger},
    targets::PingTarget,
};
use crate::{
    link::wall_clock,
    path::{Headers, Pinged},
    report::{Error, PingPath},
    runtime::Engine,
    segment::SeqNumber,
    stack::Probe,
};
use std::time::Duration;

impl Pinger<'_> {
    /// Returns the packet of the ping with this key.
    fn probe(&self, target: &PingTarget, key: u32) -> Probe {
        let id = key as u16;
        match target.syn {
            Some(mut syn) => {
                syn.segment.seq = SeqNumber(key);
                Probe::segment(&syn, None, id, &[])
            }
            None => {
                let payload = [MARK, format!("{key:08x}\n").as_bytes()].concat();
                Probe::datagram(&target.tuple, &target.route, &self.ping.settings, None, id, &payload)
            }
        }
    }

    /// Sends a ping.
    pub(super) fn send(
        &mut self,
        now: Duration,
        engine: &mut Engine,
        place: usize,
        number: u64,
    ) -> Result<(), Error> {
        let key = self.in_flight.key();
        let Some(target) = self.targets.get(place) else { return Ok(()) };
        // A lost SYN-ACK leaves a half-open connection, which would challenge the SYN instead of answering it.
        let answered = |key| self.in_flight.get(key).is_none_or(|sent| sent.state == State::Answered);
        if !target.last.is_none_or(answered) {
            for header in target.resets() {
                engine.send_probe(&Probe::segment(&header, None, 0, &[]))?;
            }
        }
        let probe = self.probe(target, key);
        let checksum = Headers::read(&probe.packet).and_then(|headers| headers.checksum);
        let at = wall_clock();
        let left = engine.send_probe(&probe)?;
        let until = wall_clock();
        if let Some(target) = self.targets.get_mut(place) {
            target.tally.sent += 1;
            if left {
                target.last = Some(key);
                target.doubt(key, false);
            }
        }
        if !left {
            self.note(PingPath::Netkat, place, number, &Pinged::EgressDropped, None);
            return Ok(());
        }
        let (id, state) = (key as u16, State::Waiting);
        let sent = Sent { target: place, number, at, until, id, checksum, again: false, state };
        self.in_flight.insert(key, sent, now + self.ping.wait);
        Ok(())
    }

    /// Sends resets, and once more the pings that met a half-open connection.
    pub(super) fn reset(&mut self, engine: &mut Engine) -> Result<(), Error> {
        for header in std::mem::take(&mut self.resets) {
            engine.send_probe(&Probe::segment(&header, None, 0, &[]))?;
        }
        for key in std::mem::take(&mut self.again) {
            let place = self.in_flight.get(key).map(|sent| sent.target);
            let Some(target) = place.and_then(|place| self.targets.get(place)) else { continue };
            let probe = self.probe(target, key);
            let at = wall_clock();
            engine.send_probe(&probe)?;
            if let Some(sent) = self.in_flight.get_mut(key) {
                (sent.at, sent.until) = (at, wall_clock());
            }
        }
        Ok(())
    }
}
