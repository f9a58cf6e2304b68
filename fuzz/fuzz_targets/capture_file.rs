//! Reads any bytes as a capture file to its end, decodes each frame and writes it to another file.
#![no_main]

use std::io::{Cursor, sink};

use libfuzzer_sys::fuzz_target;
use netkat::sniffer::{
    capture_file::{CaptureReader, CaptureRecord, CaptureWriter},
    decode::decode,
};

fuzz_target!(|input: &[u8]| {
    let Ok(mut reader) = CaptureReader::new(Cursor::new(input.to_vec()), "fuzzed") else { return };
    let mut writer = CaptureWriter::new(sink()).expect("a sink takes everything");
    while let Ok(Some(record)) = {
        reader.is_buffered();
        reader.read()
    } {
        match record {
            CaptureRecord::Interface(interface) => {
                writer.add_interface(&interface).expect("what was read can be written");
            }
            CaptureRecord::Frame(frame) => {
                decode(&frame);
                writer.write_frame(&frame).expect("what was read can be written");
            }
        }
    }
});
