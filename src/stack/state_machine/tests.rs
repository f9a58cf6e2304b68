//! Tests of smoltcp's connection without data.
use super::*;
use crate::{
    link::{LinkHeader, NextHop},
    recovery::{Algorithm, INITIAL_WINDOW, RTO_MIN},
    segment::{Options, Timestamps},
    stack::handshake::Handshake,
};

const PEER: SeqNumber = SeqNumber(0xffff_ffff);
const NOW: Duration = Duration::from_secs(1);

fn recovery(mss: usize, buffer: usize) -> Recovery {
    Recovery::new(recovery::Config {
        send_buffer: buffer,
        receive_buffer: buffer,
        link_mss: mss as u16,
        advertised_mss: None,
        initial_window: INITIAL_WINDOW,
        rto_min: RTO_MIN,
        max_frame: 60_000,
        algorithm: Algorithm::Cubic,
        user_timeout: None,
        keep_alive: None,
    })
}

fn syn(options: Options) -> Segment {
    Segment { source: 40_000, destination: 80, seq: PEER, flags: SYN, options, ..Segment::default() }
}

fn ingress(machine: &mut StateMachine, recovery: &mut Recovery, segment: &Segment, payload: &[u8]) {
    let segment = Segment { payload_len: payload.len(), ..*segment };
    let outcome = recovery.handle_segment(recovery_time(NOW), &segment, payload);
    machine.ingress(NOW, &segment, outcome, recovery);
    machine.egress(NOW, recovery);
}

/// Returns the SYN-ACK of a new state machine to the same SYN.
fn answer_of_a_machine(syn: &Segment, seed: u64, mss: usize, buffer: usize) -> Segment {
    let mut recovery = recovery(mss, buffer);
    let mut machine = StateMachine::new(NOW, mss, seed, &mut recovery);
    machine.listen(80);
    ingress(&mut machine, &mut recovery, syn, &[]);
    let answer = recovery.poll_transmit(recovery_time(NOW)).expect("a SYN-ACK").header.to_vec();
    Segment::parse(&answer).expect("our own")
}

#[test]
fn the_answer_is_the_one_that_the_flow_believes_to_have_sent() {
    let timestamps = Some(Timestamps { value: 256, echo: 0 });
    let mss = Some(1460);
    let options = [
        Options::default(),
        Options { mss, ..Options::default() },
        Options { mss, sack_permitted: true, ..Options::default() },
        Options { mss, sack_permitted: true, timestamps, window_scale: Some(7), ..Options::default() },
        Options { window_scale: Some(14), ..Options::default() },
    ];
    for (seed, options) in (0x1234_5678_9abc_def0..).zip(options) {
        for buffer in [64 << 10, 4 << 20] {
            let syn = syn(options);
            let next_hop = NextHop { interface: 1, header: LinkHeader::None };
            let handshake = Handshake::new(Duration::ZERO, next_hop, seed, &syn);
            let mut ours = handshake.syn_ack(Duration::ZERO, 1460, buffer).expect("a SYN-ACK");
            let mut theirs = answer_of_a_machine(&syn, seed, 1460, buffer);
            for answer in [&mut ours, &mut theirs] {
                if let Some(timestamps) = &mut answer.options.timestamps {
                    // The clock advances between the two answers.
                    timestamps.value = 0;
                }
            }
            assert_eq!(ours, theirs, "{options:?}");
        }
    }
}

/// Returns a connection that the peer has opened.
fn established() -> (StateMachine, Recovery, Segment) {
    let mut recovery = recovery(1460, 64 << 10);
    let mut machine = StateMachine::new(NOW, 1460, 7, &mut recovery);
    machine.listen(80);
    ingress(&mut machine, &mut recovery, &syn(Options::default()), &[]);
    let next = Segment {
        seq: PEER + 1,
        ack: initial_sequence(7) + 1,
        flags: ACK,
        window: 1000,
        ..syn(Options::default())
    };
    ingress(&mut machine, &mut recovery, &next, &[]);
    assert_eq!(machine.state(), State::Established);
    while recovery.poll_transmit(recovery_time(NOW)).is_some() {}
    (machine, recovery, next)
}

/// Checks that the states follow the ends of both streams, however much data came before.
#[test]
fn both_ends_are_seen_without_the_data() {
    let (mut machine, mut recovery, next) = established();
    let fin = Segment { seq: next.seq + 4, flags: ACK | FIN, ..next };
    ingress(&mut machine, &mut recovery, &fin, b"last");
    assert_eq!(machine.state(), State::Established, "something is missing");
    ingress(&mut machine, &mut recovery, &next, b"all ");
    assert_eq!(machine.state(), State::CloseWait);
    let written = recovery.write(10, |room| Ok::<_, ()>(room.len()));
    assert_eq!(written, Ok(10));
    machine.close();
    machine.egress(NOW, &mut recovery);
    assert_eq!(machine.state(), State::LastAck);
    while recovery.poll_transmit(recovery_time(NOW)).is_some() {}
    let ack = Segment { seq: next.seq + 9, ack: next.ack + 10, ..next };
    ingress(&mut machine, &mut recovery, &ack, &[]);
    assert_eq!(machine.state(), State::LastAck, "all but the FIN");
    ingress(&mut machine, &mut recovery, &Segment { ack: next.ack + 11, ..ack }, &[]);
    assert_eq!(machine.state(), State::Closed);
}

/// Checks that a reset reaches smoltcp where it expects one, before and after the peer's FIN.
#[test]
fn a_reset_is_believed_wherever_the_stream_is() {
    for finished in [false, true] {
        let (mut machine, mut recovery, next) = established();
        let flags = if finished { ACK | FIN } else { ACK };
        ingress(&mut machine, &mut recovery, &Segment { flags, ..next }, b"data");
        let seq = next.seq + 4 + u32::from(finished);
        ingress(&mut machine, &mut recovery, &Segment { seq: seq + 1, flags: RST, ..next }, &[]);
        assert_ne!(machine.state(), State::Closed);
        ingress(&mut machine, &mut recovery, &Segment { seq, flags: RST, ..next }, &[]);
        assert_eq!(machine.state(), State::Closed);
    }
}
