//! Whatever a peer sends, the layer neither panics nor spins nor sends bytes that it was never
//! given.
mod common;

use std::time::Duration;

use common::script::{Script, Terms};
use netkat::recovery::{Algorithm, MemoryPool};
use proptest::prelude::*;

/// An event in a connection's life.
#[derive(Clone, Debug)]
enum Event {
    Write(usize),
    Fin,
    Wait(u64),
    Read(usize),
    /// An acceptable ACK somewhere in the sent data, with SACK blocks relative to it.
    Ack {
        offset: i64,
        blocks: Vec<(i64, i64)>,
        window: u16,
    },
    /// A segment whose fields are near valid ones.
    Near {
        seq: i32,
        ack: i32,
        flags: u8,
        window: u16,
        options: Vec<u8>,
        payload: usize,
    },
    /// Bytes.
    Garbage(Vec<u8>),
    SegmentSize(u16),
}

fn event() -> impl Strategy<Value = Event> {
    let offset = -2_000i64..40_000;
    let blocks = prop::collection::vec((-3_000i64..30_000, -3_000i64..30_000), 0..5);
    prop_oneof![
        4 => (0usize..20_000).prop_map(Event::Write),
        1 => Just(Event::Fin),
        2 => (0usize..5_000).prop_map(Event::Read),
        4 => prop_oneof![0u64..2_000, 0u64..400_000, 0u64..100_000_000].prop_map(Event::Wait),
        8 => (offset, blocks, prop_oneof![Just(0u16), any::<u16>()])
            .prop_map(|(offset, blocks, window)| Event::Ack { offset, blocks, window }),
        3 => (
            -70_000i32..70_000,
            -70_000i32..70_000,
            any::<u8>(),
            any::<u16>(),
            prop::collection::vec(any::<u8>(), 0..40),
            0usize..3_000,
        )
            .prop_map(|(seq, ack, flags, window, options, payload)| Event::Near {
                seq, ack, flags, window, options, payload
            }),
        1 => prop::collection::vec(any::<u8>(), 0..100).prop_map(Event::Garbage),
        1 => (0u16..9_000).prop_map(Event::SegmentSize),
    ]
}

/// A pool that is short of memory, in bytes.
const POOL: u64 = 200_000;
/// Maximum memory of these connections, in bytes: their buffers, and a record for each half of the
/// smallest segments.
const MOST: u64 = 1_000_000;

fn terms() -> impl Strategy<Value = Terms> {
    let algorithm = prop::sample::select(Algorithm::ALL.to_vec());
    let memory = prop_oneof![Just(u64::MAX), 0..POOL];
    (algorithm, any::<(bool, bool, u32)>(), 0u8..15, 0usize..70_000, 0u16..9_000, memory).prop_map(
        |(algorithm, (sack, timestamps, iss), shift, max_frame, link_mss, memory)| {
            let mut terms = Terms { sack, timestamps, iss, shift, ..Terms::default() };
            terms.pool = MemoryPool::new(memory);
            terms.config.algorithm = algorithm;
            terms.config.max_frame = max_frame;
            terms.config.link_mss = link_mss;
            terms.config.send_buffer = 100_000;
            terms.config.receive_buffer = 30_000;
            terms.config.keep_alive = Some(Duration::from_secs(60));
            terms.config.user_timeout = Some(Duration::from_secs(600));
            terms
        },
    )
}

fn play(script: &mut Script, event: Event) {
    match event {
        Event::Write(len) => {
            script.write(len.min(script.layer.room()));
        }
        Event::Fin => script.fin(),
        Event::Read(limit) => {
            let read = script.layer.read(limit, |bytes| Ok::<_, ()>(bytes.len()));
            assert!(read.is_ok_and(|read| read <= limit));
        }
        Event::Wait(micros) => {
            script.run(Duration::from_micros(micros));
        }
        Event::Ack { offset, blocks, window } => {
            let blocks: Vec<_> = blocks.into_iter().take(3).map(|(l, r)| (offset + l, offset + r)).collect();
            script.ack_with(offset, &blocks, window);
        }
        Event::Near { seq, ack, flags, window, options, payload } => {
            let seq = script.peer_seq.wrapping_add(seq as u32);
            let ack = script.seq(0).wrapping_add(ack as u32);
            script.peer_sends(seq, ack, flags, window, &options, &vec![0; payload]);
        }
        Event::Garbage(bytes) => {
            script.hear(&bytes);
        }
        Event::SegmentSize(size) => script.layer.set_mss(script.now, size),
    }
    script.events();
    // Each frame holds the stream's bytes.
    script.sent();
    let stats = script.layer.stats();
    assert!(stats.in_flight <= script.layer.outstanding());
    assert!(script.terms.pool.used() < MOST, "{}", script.terms.pool.used());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_peer_breaks_the_layer(terms in terms(), events in prop::collection::vec(event(), 1..60)) {
        let mut script = Script::established(terms);
        for event in events {
            play(&mut script, event);
        }
    }

    #[test]
    fn no_peer_breaks_the_handshake(terms in terms(), events in prop::collection::vec(event(), 1..20)) {
        let mut script = Script::unconnected(terms);
        for event in events {
            play(&mut script, event);
        }
    }

    /// After any such beginning, an honest peer still gets the rest.
    #[test]
    fn an_honest_peer_gets_everything_after_all(
        terms in terms(),
        events in prop::collection::vec(event(), 1..40),
    ) {
        let mut script = Script::established(terms);
        // A FIN or RST would end the stream; the peer's lies about windows and ACKs must not.
        for event in events {
            match event {
                Event::Fin | Event::Near { .. } | Event::Garbage(_) => {}
                event => play(&mut script, event),
            }
        }
        let written = script.written;
        for _ in 0..200 {
            script.run(Duration::from_secs(130));
            if script.layer.outstanding() == 0 {
                break;
            }
            // Everything that was sent has arrived.
            let sent = written - script.layer.unsent() as i64;
            script.peer_seq = script.peer_seq.wrapping_add(1);
            script.peer_time += 1_000;
            script.ack_with(sent, &[], u16::MAX);
        }
        prop_assert_eq!(script.layer.outstanding(), 0, "{:?}", script.layer);
    }
}
