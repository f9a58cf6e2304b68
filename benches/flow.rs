//! Measures a transfer between two stacks over a link in memory, from the write to the
//! acknowledgment: segments of 1460 bytes, whose checksums both ends compute.
mod common;
#[path = "../tests/support/settings.rs"]
mod settings;

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use common::measure;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use netkat::{
    host::metrics::Metrics,
    link::{
        Link, LinkHeader, NextHop, Received,
        memory::{Impairment, Medium, MemoryLink},
    },
    neighbour::Neighbour,
    net::{FiveTuple, MacAddr, Protocol},
    stack::{Admission, FlowRoute, FrameResult, Listener, Path, Stack},
};
use settings::settings;

const INTERFACE: u32 = 1;
const PATH: Path = Path { mtu: 1500, max_frame: 65_000, max_segments: 64, ipv6_hop_limit: 64 };
/// Bytes of one transfer.
const TRANSFER: usize = 64 << 10;
const BUFFER: usize = 1 << 20;

/// One end: a stack and its side of the link.
struct End {
    stack: Stack,
    link: MemoryLink,
    tuple: Option<FiveTuple>,
}

impl End {
    fn new(link: MemoryLink) -> End {
        let mut number = 7;
        let seed = move || {
            number += 1;
            number
        };
        End { stack: Stack::new(settings(BUFFER, BUFFER), seed), link, tuple: None }
    }

    /// Takes what has arrived, reads it, where it lies if it may, and sends what is due. Returns the
    /// bytes read.
    fn turn(&mut self, now: Duration) -> usize {
        let mut read = 0;
        while let Ok(Some(received)) = self.link.receive() {
            let Received { frame, .. } = received;
            if let FrameResult::Data(data) =
                self.stack.ingress(now, Received { frame: &mut *frame, ..received })
                && let Some(mut data) = self.stack.received_data(now, &data, frame)
            {
                let taken = data.receive(TRANSFER, |bytes| Ok(bytes.len()));
                read += taken.expect("the reader takes everything");
            }
        }
        self.tuple = self.tuple.or_else(|| self.stack.accept());
        if let Some(flow) = self.tuple.and_then(|tuple| self.stack.flow(&tuple)) {
            while flow.received() > 0 {
                read += flow.receive(TRANSFER, |bytes| Ok(bytes.len())).expect("the reader takes everything");
            }
        }
        while self.stack.egress(now, &mut self.link).expect("a memory link does not fail") {}
        read
    }
}

/// Two ends with a connection between them.
struct Pair {
    medium: Medium,
    client: End,
    server: End,
}

impl Pair {
    fn connected(local: IpAddr, remote: IpAddr) -> Pair {
        let path = Impairment { delay: Duration::from_micros(10), ..Impairment::default() };
        let (medium, here, there) = Medium::new(path, 1);
        let (mut client, mut server) = (End::new(here), End::new(there));
        server.stack.listen(Listener {
            backlog: 1,
            half_open: 1,
            gate: Box::new(|_| Admission::Accept),
            paths: HashMap::from([(INTERFACE, PATH)]),
        });
        let (local, remote) = (SocketAddr::new(local, 40_000), SocketAddr::new(remote, 80));
        let tuple = FiveTuple { protocol: Protocol::Tcp, local, remote };
        let [destination, source] = [2, 1].map(|last| MacAddr([2, 0, 0, 0, 0, last]));
        let next_hop = NextHop { interface: INTERFACE, header: LinkHeader::Ethernet { destination, source } };
        let metrics = Metrics::default();
        let route = FlowRoute { next_hop, neighbour: Neighbour::Fixed, path: PATH, metrics };
        client.stack.dial(medium.now(), tuple, route);
        client.tuple = Some(tuple);
        let mut pair = Pair { medium, client, server };
        while pair.server.tuple.is_none() {
            pair.turn();
        }
        pair
    }

    /// Lets both ends act, and moves the clock to the next event. Returns the bytes that the server
    /// has read.
    fn turn(&mut self) -> usize {
        let now = self.medium.now();
        self.client.turn(now);
        let read = self.server.turn(now);
        let next = [self.medium.next_arrival(), self.client.stack.poll_at(), self.server.stack.poll_at()];
        let next = next.into_iter().flatten().min().unwrap_or_default();
        self.medium.advance(next.max(now + Duration::from_micros(1)));
        read
    }

    /// Sends [`TRANSFER`] bytes from the client to the server, to the last acknowledgment.
    fn transfer(&mut self) {
        let tuple = self.client.tuple.expect("the client has dialed");
        let (mut written, mut read) = (0, 0);
        loop {
            let flow = self.client.stack.flow(&tuple).expect("the connection is open");
            while written < TRANSFER && flow.send_room() > 0 {
                let sent = flow.send(TRANSFER - written, |room| Ok(room.len()));
                written += sent.expect("the bytes are at hand");
            }
            if written == TRANSFER && flow.unacknowledged() == 0 {
                break;
            }
            read += self.turn();
        }
        assert_eq!(read, TRANSFER, "every byte arrives once");
    }
}

fn transfer(criterion: &mut Criterion) {
    let families: [(_, IpAddr, IpAddr); 2] = [
        ("IPv4", [10, 0, 0, 1].into(), [10, 0, 0, 2].into()),
        ("IPv6", [0xfd00, 0, 0, 0, 0, 0, 0, 1].into(), [0xfd00, 0, 0, 0, 0, 0, 0, 2].into()),
    ];
    let mut group = criterion.benchmark_group("both ends, 64 KiB in segments");
    group.throughput(Throughput::Bytes(TRANSFER as u64));
    for (family, local, remote) in families {
        let mut pair = Pair::connected(local, remote);
        group.bench_function(family, |bencher| measure(bencher, || pair.transfer()));
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(1)).warm_up_time(Duration::from_millis(300));
    targets = transfer
}
criterion_main!(benches);
