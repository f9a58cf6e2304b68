//! Measures packets per second of decoding and formatting, without terminal and kernel.
mod common;

use std::{hint::black_box, path::Path, time::Duration};

use common::measure;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use jiff::tz::TimeZone;
use netkat::sniffer::{
    CapturedFrame,
    capture_file::{CaptureReader, CaptureRecord, CaptureWriter, InterfaceDescription},
    decode::decode,
    json,
    line::LineFormatter,
};

/// Passes each frame of a capture to `each`.
fn each_frame(name: &str, mut each: impl FnMut(&CapturedFrame<'_>)) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/captures").join(name);
    let mut reader = CaptureReader::open(&path).expect("the capture is part of the repository");
    while let Some(record) = reader.read().expect("the capture is whole") {
        if let CaptureRecord::Frame(frame) = record {
            each(&frame);
        }
    }
}

fn packets(criterion: &mut Criterion) {
    for name in ["tcp-sack.pcap", "tcp-ipv6.pcap", "udp.pcap"] {
        let mut frames = Vec::new();
        let mut about = None;
        each_frame(name, |frame| {
            frames.push((frame.time, frame.data[0].to_vec()));
            about = Some(CapturedFrame { data: [&[]; 4], ..*frame });
        });
        let about = about.expect("the capture is not empty");
        let observed: Vec<_> = frames
            .iter()
            .map(|(time, bytes)| CapturedFrame {
                time: *time,
                data: [bytes, &[], &[], &[]],
                length: bytes.len(),
                ..about
            })
            .collect();
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(observed.len() as u64));
        group.bench_function("decode", |bencher| {
            measure(bencher, || observed.iter().for_each(|frame| drop(black_box(decode(black_box(frame))))));
        });
        let mut out = Vec::new();
        let mut lines = LineFormatter::new(4711, TimeZone::UTC);
        group.bench_function("line", |bencher| {
            measure(bencher, || {
                out.clear();
                for frame in &observed {
                    lines.append(&mut out, frame, &decode(frame), None);
                }
                black_box(&out);
            });
        });
        group.bench_function("json", |bencher| {
            measure(bencher, || {
                out.clear();
                for frame in &observed {
                    json::append(&mut out, frame, &decode(frame), None, false);
                }
                black_box(&out);
            });
        });
        let mut writer = CaptureWriter::new(std::io::sink()).expect("a sink takes everything");
        let interface =
            InterfaceDescription { name: "eth0".to_owned(), link_type: about.link_type, snap_length: 0 };
        writer.add_interface(&interface).expect("a sink takes everything");
        group.bench_function("pcapng", |bencher| {
            measure(bencher, || {
                observed.iter().for_each(|frame| writer.write_frame(frame).expect("a sink takes everything"))
            });
        });
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(1)).warm_up_time(Duration::from_millis(300));
    targets = packets
}
criterion_main!(benches);
