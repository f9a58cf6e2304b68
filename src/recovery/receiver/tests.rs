//! Any stream is read completely, in whatever order it arrives and however the user reads.
use super::*;
use proptest::prelude::*;
use std::convert::Infallible;

const IRS: SeqNumber = SeqNumber(u32::MAX - 50_000);
const SEGMENT: u64 = 1000;

fn receiver(limit: usize) -> Receiver {
    let mut receiver = Receiver::new(limit, &MemoryPool::unlimited());
    receiver.synchronize(IRS);
    receiver.on_syn_acknowledged();
    receiver.establish(receiver.offered_shift());
    assert_eq!(receiver.ack_at(SEGMENT), None, "the SYN-ACK has said it all");
    receiver
}

fn stream(from: usize, to: usize) -> Vec<u8> {
    (from..to).map(|n| (n % 251) as u8).collect()
}

/// Delivers a piece of the stream. The user takes at most `take` of each offer: of the buffered
/// data, then of the piece.
fn hear(
    receiver: &mut Receiver,
    from: usize,
    to: usize,
    fin: bool,
    out: &mut Vec<u8>,
    take: usize,
) -> AckKind {
    let seq = IRS + (1 + from as u32);
    let payload = stream(from, to);
    let mut taken = 0;
    if take > 0 && receiver.is_worth_offering(seq, payload.len()) {
        while receiver.readable() > 0 {
            read(receiver, take, out);
        }
        taken = payload.len().min(take);
        out.extend_from_slice(&payload[..taken]);
    }
    receiver.on_segment(Instant::ZERO, seq, &payload, fin, SEGMENT, taken)
}

fn read(receiver: &mut Receiver, limit: usize, out: &mut Vec<u8>) {
    let Ok(_) = receiver.read(limit, |bytes| {
        out.extend_from_slice(bytes);
        Ok::<_, Infallible>(bytes.len())
    });
}

#[test]
fn a_long_piece_is_offered_where_it_lies_after_what_waits() {
    let mut receiver = receiver(1 << 20);
    receiver.advertise(SEGMENT);
    let mut out = Vec::new();
    hear(&mut receiver, 0, 100, false, &mut out, usize::MAX);
    assert_eq!((out.len(), receiver.readable()), (0, 100), "not worth it");
    hear(&mut receiver, 100, 30_000, false, &mut out, usize::MAX);
    assert_eq!((out.len(), receiver.readable()), (30_000, 0));
    receiver.advertise(SEGMENT);
    hear(&mut receiver, 30_000, 60_000, false, &mut out, 7_000);
    assert_eq!((out.len(), receiver.readable()), (37_000, 23_000), "the rest is kept");
    hear(&mut receiver, 90_000, 120_000, false, &mut out, usize::MAX);
    assert_eq!(out.len(), 37_000, "out of order");
    hear(&mut receiver, 60_000, 90_000, true, &mut out, usize::MAX);
    assert_eq!(out.len(), 90_000);
    read(&mut receiver, usize::MAX, &mut out);
    assert_eq!(out, stream(0, 120_000));
}

#[test]
fn a_buffer_grows_with_what_it_must_hold() {
    let mut receiver = receiver(4 << 20);
    receiver.advertise(SEGMENT);
    let mut out = Vec::new();
    hear(&mut receiver, 0, 64, false, &mut out, 0);
    assert_eq!(receiver.ring.capacity(), LEAST);
    for n in 0..1000 {
        hear(&mut receiver, 64 + 1000 * n, 1064 + 1000 * n, false, &mut out, 0);
        read(&mut receiver, usize::MAX, &mut out);
        receiver.advertise(SEGMENT);
    }
    assert_eq!(receiver.ring.capacity(), LEAST, "a reader that keeps up needs no more");
    assert_eq!(out.len(), 1_000_064);
}

/// RFC 7323, section 2.2, for the first window; later windows stay ahead of a slow start.
#[test]
fn the_window_opens_with_what_comes() {
    let mut receiver = receiver(4 << 20);
    // The window field counts in units; the receiver offers only whole units.
    let unit = 1 << receiver.offered_shift();
    let offers = |receiver: &mut Receiver, expected: u64| {
        receiver.advertise(SEGMENT);
        let window = receiver.edge - receiver.read;
        assert!((expected - unit + 1..=expected).contains(&window), "{window}, not {expected}");
    };
    let mut out = Vec::new();
    receiver.set_accepted(false);
    offers(&mut receiver, INITIAL_WINDOW);
    hear(&mut receiver, 0, 60_000, false, &mut out, 0);
    // No user has accepted the connection.
    offers(&mut receiver, INITIAL_WINDOW);
    receiver.set_accepted(true);
    offers(&mut receiver, INITIAL_WINDOW + 120_000);
    read(&mut receiver, usize::MAX, &mut out);
    offers(&mut receiver, INITIAL_WINDOW + 120_000);
    while out.len() < 3 << 20 {
        let from = out.len();
        hear(&mut receiver, from, from + 60_000, false, &mut out, 0);
        read(&mut receiver, usize::MAX, &mut out);
        receiver.advertise(SEGMENT);
    }
    offers(&mut receiver, 4 << 20);
}

#[test]
fn bytes_far_apart_cost_what_they_are() {
    let pool = MemoryPool::new(64 << 20);
    let mut receiver = Receiver::new(8 << 20, &pool);
    receiver.synchronize(IRS);
    receiver.establish(receiver.offered_shift());
    receiver.edge = 8 << 20;
    let mut out = Vec::new();
    for n in 1..100 {
        hear(&mut receiver, n * 80_000, n * 80_000 + 1, false, &mut out, 0);
    }
    assert_eq!((receiver.ring.capacity(), receiver.pieces.len()), (0, 99));
    assert!(pool.used() < (8 << 20) + 99 * 200, "{}", pool.used());
    receiver.edge = 100 * 80_000;
    hear(&mut receiver, 0, 99 * 80_000 + 1, false, &mut out, 0);
    read(&mut receiver, usize::MAX, &mut out);
    assert_eq!((receiver.pieces.len(), out.len()), (0, 99 * 80_000 + 1));
    assert!(out == stream(0, 99 * 80_000 + 1));
}

/// RFC 2018, section 8: SACKed data may be dropped, and is no longer reported then.
#[test]
fn of_too_many_pieces_the_last_go() {
    let pool = MemoryPool::new(64 << 20);
    let mut receiver = Receiver::new(4 << 20, &pool);
    receiver.synchronize(IRS);
    receiver.establish(receiver.offered_shift());
    let most = (receiver.edge - receiver.read) / BYTES_PER_PIECE;
    let mut out = Vec::new();
    let mut reported =
        |receiver: &mut Receiver, at: usize| match hear(receiver, at, at + 1, false, &mut out, 0) {
            AckKind::Immediate(blocks) => blocks.iter().collect::<Vec<_>>(),
            AckKind::Cumulative => panic!("out of order"),
        };
    let block = |at: u32| (IRS + (1 + at), IRS + (2 + at));
    for n in 0..most as u32 {
        let blocks = reported(&mut receiver, 2000 + 2 * n as usize);
        assert_eq!(blocks.first(), Some(&block(2000 + 2 * n)));
    }
    let last = 2000 + 2 * (most as u32 - 1);
    assert_eq!(reported(&mut receiver, 60_000).first(), Some(&block(last)), "no room behind the last");
    let blocks = reported(&mut receiver, 1000);
    assert_eq!(blocks.first(), Some(&block(1000)), "it is wanted sooner");
    assert!(!blocks.contains(&block(last)), "{blocks:?}");
    assert_eq!(
        (receiver.pieces.len() as u64, receiver.reassembly.end()),
        (most, Some(1 + u64::from(last) - 1))
    );
    assert!(pool.used() <= INITIAL_WINDOW + most * out_of_order::PIECE_COST, "{}", pool.used());
}

/// The window's edge stays in place however short memory gets, and the receiver accepts all data
/// within it.
#[test]
fn under_pressure_windows_shrink_by_what_is_newly_offered() {
    let pool = MemoryPool::new(1 << 20);
    let mut receiver = Receiver::new(4 << 20, &pool);
    receiver.synchronize(IRS);
    receiver.establish(receiver.offered_shift());
    let mut out = Vec::new();
    let mut others = pool.charge();
    let mut smallest = u64::MAX;
    for round in 0..200 {
        if round == 20 {
            others.set(1 << 20);
            assert!(pool.is_exhausted());
        }
        let edge = receiver.edge;
        receiver.advertise(SEGMENT);
        assert!(receiver.edge >= edge, "the window's edge moved left");
        smallest = smallest.min(receiver.edge - receiver.read);
        let from = out.len();
        let to = from + 16_000.min(receiver.edge as usize - 1 - from);
        hear(&mut receiver, from, to, false, &mut out, 0);
        assert_eq!(receiver.readable(), to - from, "what was offered is taken");
        read(&mut receiver, usize::MAX, &mut out);
    }
    assert_eq!(smallest, LEAST_WINDOW, "and never less");
    drop(others);
    receiver.advertise(SEGMENT);
    assert!(receiver.edge - receiver.read > 2 * LEAST_WINDOW);
    drop(receiver);
    assert_eq!(pool.used(), 0);
}

#[test]
fn what_is_not_used_is_given_back() {
    let pool = MemoryPool::new(64 << 20);
    let mut receiver = Receiver::new(4 << 20, &pool);
    receiver.synchronize(IRS);
    receiver.establish(receiver.offered_shift());
    let mut out = Vec::new();
    hear(&mut receiver, 0, 60_000, false, &mut out, 0);
    receiver.reclaim();
    assert_eq!(receiver.readable(), 60_000, "somebody waits for that");
    read(&mut receiver, usize::MAX, &mut out);
    receiver.reclaim();
    assert_eq!(receiver.ring.capacity(), 0);
    hear(&mut receiver, 60_000, 61_000, true, &mut out, 0);
    read(&mut receiver, usize::MAX, &mut out);
    receiver.reclaim();
    assert!(out == stream(0, 61_000));
    assert_eq!(pool.used(), 0, "nothing can come any more");
}

#[test]
fn an_ack_waits_only_in_a_dialogue_and_only_for_little() {
    let mut receiver = receiver(1 << 20);
    let mut out = Vec::new();
    hear(&mut receiver, 0, 10, false, &mut out, 0);
    assert_eq!(receiver.ack_at(SEGMENT), Some(Instant::ZERO));
    receiver.on_data_sent(Instant::ZERO);
    receiver.advertise(SEGMENT);
    hear(&mut receiver, 10, 20, false, &mut out, 0);
    assert_eq!(receiver.ack_at(SEGMENT), Some(Instant::ZERO + ACK_DELAY));
    hear(&mut receiver, 20, 2010, false, &mut out, 0);
    assert_eq!(receiver.ack_at(SEGMENT), Some(Instant::ZERO), "two segments (RFC 1122, section 4.2.3.2)");
}

/// A receiver's input: a piece arrives, or the user reads.
#[derive(Clone, Debug)]
enum Event {
    Piece { from: usize, len: usize, take: usize },
    Next { len: usize, take: usize },
    Read(usize),
    Tell,
}

fn event() -> impl Strategy<Value = Event> {
    let take = prop_oneof![Just(0usize), 0usize..30_000, Just(usize::MAX)];
    prop_oneof![
        3 => (0usize..200_000, 1usize..40_000, take.clone())
            .prop_map(|(from, len, take)| Event::Piece { from, len, take }),
        3 => (1usize..40_000, take).prop_map(|(len, take)| Event::Next { len, take }),
        2 => (1usize..60_000).prop_map(Event::Read),
        1 => Just(Event::Tell),
    ]
}

proptest! {
    #[test]
    fn the_stream_is_read_whole(limit in 1usize..200_000, events in prop::collection::vec(event(), 1..80)) {
        const END: usize = 200_000;
        let mut receiver = receiver(limit);
        let mut out = Vec::new();
        let mut edge = 0;
        for event in events {
            match event {
                Event::Piece { from, len, take } => {
                    let to = (from + len).min(END);
                    hear(&mut receiver, from, to, to == END, &mut out, take);
                }
                Event::Next { len, take } => {
                    let from = receiver.space.data_end() as usize - 1;
                    let to = (from + len).min(END);
                    hear(&mut receiver, from, to, to == END, &mut out, take);
                }
                Event::Read(limit) => read(&mut receiver, limit, &mut out),
                Event::Tell => {
                    receiver.advertise(SEGMENT);
                }
            }
            prop_assert!(receiver.edge >= edge, "the window's edge moved left");
            edge = receiver.edge;
            prop_assert!(receiver.space.data_end() <= edge && receiver.reassembly.end().is_none_or(|end| end <= edge));
            prop_assert!(receiver.ring.capacity() <= (limit as u64).max(LEAST));
            prop_assert_eq!(out.len() + receiver.readable(), receiver.space.data_end() as usize - 1);
        }
        // Then all of it arrives once more, in order, and the user reads.
        while !receiver.is_finished() {
            let from = receiver.space.data_end() as usize - 1;
            let to = (from + 1000).min(END);
            hear(&mut receiver, from, to, to == END, &mut out, 0);
            read(&mut receiver, usize::MAX, &mut out);
            read(&mut receiver, usize::MAX, &mut out);
            receiver.advertise(SEGMENT);
        }
        while receiver.readable() > 0 {
            read(&mut receiver, usize::MAX, &mut out);
        }
        prop_assert!(out == stream(0, END));
    }
}
