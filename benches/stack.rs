//! Measures the cost of a packet in netkat's parts of the stack, and of a turn of the relay.
mod common;

use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use common::measure;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use netkat::{
    net::checksum::Sum,
    session::{FlowStatus, Policy, Relay},
    stack::ip::{self, Fragmentation, Template},
};

const PAYLOAD: usize = 1448;

fn template(source: IpAddr, destination: IpAddr) -> Template {
    Template { source, destination, protocol: ip::TCP, hop_limit: 64, traffic_class: 0, flow_label: 0 }
}

fn templates() -> [(&'static str, Template); 2] {
    [
        ("IPv4", template(Ipv4Addr::LOCALHOST.into(), Ipv4Addr::BROADCAST.into())),
        ("IPv6", template(Ipv6Addr::LOCALHOST.into(), Ipv6Addr::UNSPECIFIED.into())),
    ]
}

fn headers(criterion: &mut Criterion) {
    for (family, template) in templates() {
        let mut group = criterion.benchmark_group(family);
        let mut packet = vec![0; template.header_len() + PAYLOAD];
        template.write(PAYLOAD, 1, Fragmentation::Forbidden, &mut packet);
        group.bench_function("write header", |bencher| {
            measure(bencher, || {
                black_box(template).write(PAYLOAD, 1, Fragmentation::Forbidden, black_box(&mut packet))
            });
        });
        group.bench_function("parse header", |bencher| {
            measure(bencher, || ip::parse(black_box(&packet), false).expect("our own packet"));
        });
        group.bench_function("pseudo-header", |bencher| {
            measure(bencher, || {
                let Template { source, destination, protocol, .. } = black_box(template);
                ip::pseudo_header(source, destination, protocol, PAYLOAD).partial()
            });
        });
        group.finish();
    }
}

fn checksum(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("checksum");
    for len in [64, PAYLOAD, 64 << 10] {
        let bytes = vec![0xa5; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(len.to_string(), |bencher| {
            measure(bencher, || Sum::default().add(black_box(&bytes)).checksum());
        });
    }
    group.finish();
}

fn relay(criterion: &mut Criterion) {
    let mut relay = Relay::new(Policy::default(), Duration::ZERO);
    let mut now = Duration::ZERO;
    criterion.bench_function("relay, a turn", |bencher| {
        measure(bencher, || {
            now += Duration::from_micros(1);
            let view = FlowStatus {
                send_room: 1,
                unacknowledged: now.subsec_nanos() as usize,
                ..FlowStatus::default()
            };
            relay.moved(now);
            black_box((relay.wants_input(&view), relay.wants_output(&view)));
            (relay.step(now, black_box(&view)), relay.deadline())
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(1)).warm_up_time(Duration::from_millis(300));
    targets = headers, checksum, relay
}
criterion_main!(benches);
