//! The scoreboard against a model: the sums hold for any order of sending, SACK, loss and reneging.
use std::{collections::BTreeSet, time::Duration};

use proptest::prelude::*;

use super::*;

impl Scoreboard {
    /// Checks the invariants, which hold whatever the peer reports.
    fn check(&mut self, una: u64, nxt: u64) {
        let mut at = una;
        let mut sums = [0; 3];
        for record in &self.records {
            assert_eq!(record.start, at, "records are contiguous");
            assert!(record.end > record.start, "no record is empty");
            sums[record.state as usize] += record.len();
            if record.state == State::InFlight && !record.retransmitted {
                assert!(record.end > self.fresh, "undecided, and detection has passed it");
            }
            let noted = |note: &Resent| note.sent == record.sent && note.start <= record.start;
            if record.state == State::InFlight && record.retransmitted {
                assert!(self.resent.iter().any(noted), "sent again, and detection does not know");
            }
            at = record.end;
        }
        assert_eq!(at, nxt, "records reach SND.NXT");
        assert_eq!(sums, [self.in_flight, self.lost, self.sacked]);
        let lowest = self.records.iter().position(|record| record.state == State::Lost);
        assert_eq!(self.first_lost(), lowest);
    }
}

#[derive(Clone, Debug)]
enum Event {
    Send(u64),
    Sack(Vec<(u64, u64)>),
    Ack(u64),
    /// Marks lost the data sent at least this long before now.
    Detect(u64),
    Resend(u64),
    Timeout,
    Renege,
    Undo,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (1u64..50).prop_map(Event::Send),
        6 => prop::collection::vec((0u64..200, 1u64..60), 1..4).prop_map(Event::Sack),
        2 => (0u64..60).prop_map(Event::Ack),
        4 => (0u64..20).prop_map(Event::Detect),
        4 => (1u64..40).prop_map(Event::Resend),
        1 => Just(Event::Timeout),
        1 => Just(Event::Renege),
        1 => Just(Event::Undo),
    ]
}

proptest! {
    #[test]
    fn the_sums_are_kept_and_every_byte_is_delivered_once(
        events in prop::collection::vec(event(), 1..120),
    ) {
        let (mut board, mut una, mut nxt) = (Scoreboard::new(1), 1, 1);
        let mut delivered = BTreeSet::new();
        let mut now = Instant::ZERO;
        for event in events {
            now += Duration::from_nanos(1);
            let mut deliver = |record: &Record, _| {
                for byte in record.start..record.end {
                    assert!(delivered.insert(byte), "byte {byte} was delivered twice");
                }
            };
            match event {
                Event::Send(len) => {
                    board.push(Record {
                        start: nxt, end: nxt + len, state: State::InFlight, retransmitted: false,
                        timed: true, sent: now, nxt: nxt + len, snapshot: Snapshot::default(),
                    });
                    nxt += len;
                }
                Event::Sack(blocks) => {
                    let mut blocks: Vec<_> = blocks
                        .into_iter()
                        .map(|(from, len)| ((una + from).min(nxt), (una + from + len).min(nxt)))
                        .collect();
                    board.sack(&mut blocks, 1, &mut deliver);
                }
                Event::Ack(len) => {
                    una = (una + len).min(nxt);
                    board.acknowledge(una, &mut deliver);
                }
                Event::Detect(age) => {
                    let before = now - Duration::from_nanos(age);
                    let (_, spared) = board.detect_losses(|record| record.sent <= before);
                    prop_assert!(spared.is_none_or(|record| record.sent > before));
                }
                Event::Resend(len) => {
                    if let Some(index) = board.first_lost() {
                        let start = board.get(index).expect("it exists").start;
                        let end = board.merge_lost(index, len).min(start + len);
                        board.split(index, end);
                        board.resend(index, now, nxt, Snapshot::default());
                    }
                }
                Event::Timeout => {
                    board.mark_in_flight_lost();
                    prop_assert_eq!(board.in_flight(), 0);
                }
                Event::Renege => {
                    board.forget_sacks();
                    delivered.retain(|byte| *byte < una);
                }
                Event::Undo => board.unmark_lost(),
            }
            board.check(una, nxt);
        }
    }
}

/// A peer SACKs every other byte.
#[test]
fn hostile_sacks_cut_only_so_much() {
    const BYTES: u64 = 4 << 20;
    let mut board = Scoreboard::new(1);
    board.push(Record {
        start: 1,
        end: 1 + BYTES,
        state: State::InFlight,
        retransmitted: false,
        timed: true,
        sent: Instant::ZERO,
        nxt: 1 + BYTES,
        snapshot: Snapshot::default(),
    });
    for at in (2..40_000u64).step_by(2) {
        board.sack(&mut [(at, at + 1)], 1448, |_, _| {});
    }
    assert!(board.records.len() <= MAX_CUT_RECORDS + 1, "{}", board.records.len());
    board.check(1, 1 + BYTES);
    // Whole records are still marked.
    board.sack(&mut [(1, 1 + BYTES)], 1448, |_, _| {});
    assert_eq!(board.sacked(), BYTES);
}
