//! Runs a sender's recovery layer alone. The input plays the keeper of its states and the peer. Whatever they do,
//! the layer neither panics nor spins, and sends the stream's bytes (`script` asserts both).
#![no_main]

#[path = "../../tests/common/script.rs"]
#[allow(dead_code)]
mod script;

use std::time::Duration;

use libfuzzer_sys::{
    arbitrary::{Result, Unstructured},
    fuzz_target,
};
use netkat::recovery::{Algorithm, MemoryPool};
use script::{Script, Terms};

/// Size of the send buffer in bytes.
const BUFFER: usize = 100_000;

fn terms(u: &mut Unstructured<'_>) -> Result<Terms> {
    let mut terms = Terms {
        sack: u.arbitrary()?,
        timestamps: u.arbitrary()?,
        iss: u.arbitrary()?,
        shift: u.int_in_range(0..=15)?,
        ..Terms::default()
    };
    terms.config.algorithm = *u.choose(&Algorithm::ALL)?;
    terms.config.max_frame = u.int_in_range(0..=70_000)?;
    terms.config.link_mss = u.int_in_range(0..=9_000)?;
    terms.config.send_buffer = BUFFER;
    terms.config.receive_buffer = u.int_in_range(0..=200_000)?;
    terms.config.user_timeout = Some(Duration::from_secs(600));
    terms.config.keep_alive = u.arbitrary::<bool>()?.then_some(Duration::from_secs(60));
    if u.arbitrary()? {
        terms.pool = MemoryPool::new(u.int_in_range(0..=200_000)?);
    }
    Ok(terms)
}

/// Applies one random event to a connection.
fn step(script: &mut Script, u: &mut Unstructured<'_>) -> Result<()> {
    match u.int_in_range(0..=9)? {
        0 | 1 => {
            let room = script.layer.room();
            script.write(u.int_in_range(0..=20_000)?.min(room));
        }
        2 => {
            let longest = *u.choose(&[2_000u64, 400_000, 100_000_000])?;
            script.run(Duration::from_micros(u.int_in_range(0..=longest)?));
        }
        3..=5 => {
            let offset = u.int_in_range(-2_000i64..=script.written + 2_000)?;
            let mut blocks = Vec::new();
            for _ in 0..u.int_in_range(0..=3)? {
                let left = offset + u.int_in_range(-3_000i64..=30_000)?;
                blocks.push((left, left + u.int_in_range(-1_000i64..=10_000)?));
            }
            script.ack_with(offset, &blocks, u.arbitrary()?);
        }
        6 => {
            // The numbers that count, and those beside them.
            let far = *u.choose(&[0, 1, 70_000i32])?;
            let sequence = script.peer_seq.wrapping_add(u.int_in_range(-far..=far)? as u32);
            let acknowledgement = script.seq(script.written).wrapping_add(u.int_in_range(-far..=far)? as u32);
            let (flags, window) = (u.arbitrary()?, u.arbitrary()?);
            let length = u.int_in_range(0..=40)?;
            let options = u.bytes(length)?;
            let payload = vec![0; u.int_in_range(0..=3_000)?];
            script.peer_sends(sequence, acknowledgement, flags, window, options, &payload);
        }
        7 => {
            let length = u.int_in_range(0..=100)?;
            script.hear(u.bytes(length)?);
        }
        8 => {
            let length = u.int_in_range(0..=script.layer.readable())?;
            let read = script.layer.read(length, |bytes| Ok::<_, ()>(bytes.len()));
            assert!(read.is_ok_and(|read| read <= length));
        }
        _ if u.ratio(1, 8)? => script.fin(),
        _ => script.layer.set_mss(script.now, u.int_in_range(0..=9_000)?),
    }
    script.events();
    script.sent();
    assert!(script.layer.stats().in_flight <= script.layer.outstanding());
    Ok(())
}

fuzz_target!(|input: &[u8]| {
    let mut u = Unstructured::new(input);
    let Ok(terms) = terms(&mut u) else { return };
    let mut script = match u.int_in_range(0..=7).unwrap_or(0) {
        0 => Script::unconnected(terms),
        1 => {
            // SYN-SENT, and whatever the peer makes of it.
            let mut script = Script::unconnected(terms);
            let options = script.syn_options();
            script.stack_segment(script.terms.iss, 0, script::SYN, &options, &[]);
            script
        }
        _ => Script::established(terms),
    };
    while !u.is_empty() {
        if step(&mut script, &mut u).is_err() {
            break;
        }
    }
});
