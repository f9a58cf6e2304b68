//! The conformance suite: packet scripts, each with the section of the RFC that it checks.
//!
//! Most of them drive the recovery layer alone, with the test as its stack, its peer and its clock.
//! Unless a script says otherwise, a segment is 1000 bytes, the round trip 40 ms, and the sequence
//! numbers wrap at offset 2500 of the stream. Rules in which smoltcp has a part are checked on the
//! whole stack over the in-memory link, with the test as the peer (`wire`).
#[path = "../common/mod.rs"]
mod common;
#[path = "../support/settings.rs"]
mod settings;

mod attacks;
mod closing;
mod congestion;
mod handshake;
mod loss_detection;
mod path_mtu;
mod receiving;
mod stack_view;
mod tail_probe;
mod timeout;
mod window;
mod wire;

use std::time::Duration;

use common::script::{ACK, FIN, PEER, RST, SYN, Script, Sent, Terms, segment};
use netkat::recovery::{Algorithm, Config, Event, SegmentOutcome};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn config(change: impl FnOnce(&mut Config)) -> Terms {
    let mut terms = Terms::default();
    change(&mut terms.config);
    terms
}

/// Returns a connection with a measured round trip that has just sent the segments `1..=count` of
/// 1000 bytes.
fn flight(count: i64) -> Script {
    let mut script = Script::measured(Terms::default());
    send(&mut script, count);
    script
}

fn send(script: &mut Script, count: i64) {
    let start = script.written;
    for _ in 0..count {
        script.write(1000);
    }
    let expected: Vec<_> = (0..count).map(|n| (start + n * 1000, 1000)).collect();
    assert_eq!(script.data(), expected);
}

fn data(sent: &[Sent]) -> Vec<(Duration, i64, usize)> {
    sent.iter().filter(|s| s.len > 0 || s.flags & FIN != 0).map(|s| (s.at, s.offset, s.len)).collect()
}
