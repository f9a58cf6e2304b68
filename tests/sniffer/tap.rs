//! Tests taps: the sink gets each packet once, and a failing sink leaves the link alone.
use std::{io::Write, time::Duration};

use jiff::tz::TimeZone;
use netkat::{
    link::{
        ChecksumOffload, ETHERTYPE_IPV4, Link, LinkHeader, NextHop, Outgoing, Segmentation,
        memory::{Impairment, Medium, MemoryLink},
    },
    net::MacAddr,
    sniffer::{
        LinkType,
        capture_file::{CaptureReader, CaptureRecord},
        line::LineFormatter,
        sink::{Sink, TextFormat, TextOptions},
        tap::Tap,
    },
};

use super::files::{Broken, Screen, Temporary};

const LINE: TextOptions =
    TextOptions { format: TextFormat::Line, payload: false, dump: None, interface: false };

const HOP: NextHop = NextHop {
    interface: 1,
    header: LinkHeader::Ethernet {
        destination: MacAddr([2, 0, 0, 0, 0, 2]),
        source: MacAddr([2, 0, 0, 0, 0, 1]),
    },
};

/// The headers of a UDP datagram with ten bytes of payload from 10.0.0.1:5 to 10.0.0.2:6.
#[rustfmt::skip]
const HEADERS: [u8; 28] = [
    0x45, 0, 0, 38, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
    0, 5, 0, 6, 0, 18, 0, 0,
];

fn datagram() -> Outgoing<'static> {
    Outgoing {
        ethertype: ETHERTYPE_IPV4,
        headers: &HEADERS,
        payload: [b"first ", b"last"],
        checksum: None,
        segmentation: None,
    }
}

fn tapped(link: MemoryLink, out: Box<dyn Write + Send>) -> Tap<MemoryLink> {
    let sink = Sink::new().with_text(out, LINE, LineFormatter::new(1, TimeZone::UTC));
    Tap::new(link, sink.into(), [(1, "eth0", LinkType::Ethernet)], true).unwrap()
}

fn messages(screen: &Screen) -> Vec<String> {
    screen.text().lines().map(|line| line.split_once("sniffer] ").unwrap().1.to_owned()).collect()
}

#[test]
fn each_packet_is_shown_once_at_either_end() {
    let (medium, here, there) = Medium::new(Impairment::default(), 1);
    let (sent, received) = (Screen::default(), Screen::default());
    let mut here = tapped(here, Box::new(sent.clone()));
    let mut there = tapped(there, Box::new(received.clone()));
    here.transmit(&HOP, &datagram()).unwrap();
    let super_frame = Outgoing {
        checksum: Some(ChecksumOffload { start: 20, offset: 6 }),
        segmentation: Some((Segmentation::Tcp4, 1448)),
        ..datagram()
    };
    here.transmit(&HOP, &super_frame).unwrap();
    medium.advance(medium.now() + Duration::from_secs(1));
    while let Some(frame) = there.receive().unwrap() {
        assert_eq!(frame.frame.len(), 14 + 38);
    }
    assert_eq!(sent.text(), "", "nothing is written before a flush");
    here.flush();
    there.flush();
    let line = "udp 10.0.0.1:5 -> 10.0.0.2:6 len:10 id:0001 xsum: 0x0";
    assert_eq!(messages(&sent), [format!("send {line}"), format!("send {line} gso:1448 csum:partial")]);
    assert_eq!(messages(&received), [format!("recv {line}"), format!("recv {line}")]);
}

#[test]
fn a_recording_marks_the_frames_that_the_guard_dropped() {
    let file = Temporary::new("tap.pcapng");
    let (medium, mut here, there) = Medium::new(Impairment::default(), 1);
    let sink = Sink::new().with_capture_file(&file.0).unwrap();
    let mut there = Tap::new(there, sink.into(), [(1, "eth0", LinkType::Ethernet)], true).unwrap();
    here.transmit(&HOP, &datagram()).unwrap();
    let mut icmp = HEADERS;
    icmp[9] = 1;
    here.transmit(&HOP, &Outgoing { headers: &icmp, ..datagram() }).unwrap();
    medium.advance(medium.now() + Duration::from_secs(1));
    while there.receive().unwrap().is_some() {}
    there.transmit(&HOP, &datagram()).unwrap();
    there.flush();
    let mut guarded = Vec::new();
    let mut reader = CaptureReader::open(&file.0).unwrap();
    while let Some(record) = reader.read().unwrap() {
        if let CaptureRecord::Frame(frame) = record {
            guarded.push(frame.guarded);
        }
    }
    assert_eq!(
        guarded,
        [true, false, false],
        "the received datagram, neither the ICMP message nor the sent datagram"
    );
}

#[test]
fn the_link_outlives_its_sink() {
    let (medium, here, mut there) = Medium::new(Impairment::default(), 1);
    let mut here = tapped(here, Box::new(Broken));
    for round in 0..3 {
        here.transmit(&HOP, &datagram()).unwrap();
        here.flush();
        assert!(!here.is_recording(), "round {round}");
        medium.advance(medium.now() + Duration::from_secs(1));
        assert!(there.receive().unwrap().is_some());
    }
}
