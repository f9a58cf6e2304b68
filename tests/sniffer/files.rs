//! Tests capture files and the other outputs of a sink.
use std::{
    io::{self, Cursor, Write},
    path::PathBuf,
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::tz::TimeZone;
use netkat::sniffer::{
    CapturedFrame, FrameDirection, LinkType, VlanTag,
    capture_file::{
        CaptureError, CaptureReader, CaptureRecord, CaptureWriter, InterfaceDescription, InterfaceStatistics,
    },
    line::LineFormatter,
    sink::{Sink, SinkError, TextFormat, TextOptions},
};

use super::{
    captures::{folder, frames, text},
    json_schema,
};

const TIME: Duration = Duration::new(1_689_472_711, 206_864_123);

const LINE: TextOptions =
    TextOptions { format: TextFormat::Line, payload: false, dump: None, interface: false };

fn interface(name: &str, link_type: LinkType, snap_length: u32) -> InterfaceDescription {
    InterfaceDescription { name: name.to_owned(), link_type, snap_length }
}

/// An ARP request from 10.0.0.1 for 10.0.0.2.
fn arp() -> Vec<u8> {
    let mut frame = vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 8, 6];
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2]);
    frame
}

/// Reads a capture file. Returns its interfaces, and the result of `each` for its frames.
fn read<T>(
    bytes: Vec<u8>,
    mut each: impl FnMut(&CapturedFrame<'_>) -> T,
) -> (Vec<InterfaceDescription>, Vec<T>) {
    let mut reader = CaptureReader::new(Cursor::new(bytes), "test").unwrap();
    let (mut interfaces, mut found) = (Vec::new(), Vec::new());
    while let Some(record) = reader.read().unwrap() {
        match record {
            CaptureRecord::Interface(interface) => interfaces.push(interface),
            CaptureRecord::Frame(frame) => found.push(each(&frame)),
        }
    }
    (interfaces, found)
}

#[test]
fn a_written_file_is_read_back() {
    let frame = arp();
    let mut file = Vec::new();
    let mut writer = CaptureWriter::new(&mut file).unwrap();
    let whole = interface("eth0", LinkType::Ethernet, 0);
    let cut = interface("wg0", LinkType::RawIp, 20);
    assert_eq!(writer.add_interface(&whole).unwrap(), 0);
    assert_eq!(writer.add_interface(&cut).unwrap(), 1);
    let received = CapturedFrame::new(TIME, FrameDirection::Inbound, LinkType::Ethernet, &frame);
    let (head, tail) = frame.split_at(14);
    let tag = VlanTag { tpid: 0x8100, tci: 0x2007 };
    writer.write_frame(&received).unwrap();
    writer.write_frame(&CapturedFrame { data: [head, &[], tail, &[]], guarded: true, ..received }).unwrap();
    writer
        .write_frame(&CapturedFrame { vlan: Some(tag), direction: FrameDirection::Outbound, ..received })
        .unwrap();
    writer.write_frame(&CapturedFrame { interface: 1, length: 9000, ..received }).unwrap();
    writer.write_statistics(0, TIME, &InterfaceStatistics { received: 3, dropped: 2 }).unwrap();
    writer.flush().unwrap();
    drop(writer);
    let comment = b"counted on all interfaces of this capture together";
    assert!(file.windows(comment.len()).any(|text| text == comment));

    let (interfaces, found) = read(file, |frame| {
        assert_eq!(frame.time, TIME);
        (frame.interface, frame.direction, frame.guarded, frame.length, frame.data[0].to_vec())
    });
    assert_eq!(interfaces, [whole, cut]);
    let tagged = [&frame[..12], &[0x81, 0, 0x20, 7], &frame[12..]].concat();
    assert_eq!(
        found,
        [
            (0, FrameDirection::Inbound, false, 42, frame.clone()),
            (0, FrameDirection::Inbound, true, 42, frame.clone()),
            (0, FrameDirection::Outbound, false, 46, tagged),
            (1, FrameDirection::Inbound, false, 9000, frame[..20].to_vec()),
        ]
    );
}

#[test]
fn a_frame_of_an_unknown_interface_is_refused() {
    let mut writer = CaptureWriter::new(Vec::new()).unwrap();
    let frame = CapturedFrame::new(TIME, FrameDirection::Inbound, LinkType::Ethernet, &[]);
    assert!(matches!(writer.write_frame(&frame), Err(CaptureError::Format(_))));
}

/// Returns a pcapng block in big-endian order.
fn big_endian_block(kind: u32, body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    body.resize(body.len().next_multiple_of(4), 0);
    let length = (body.len() as u32 + 12).to_be_bytes();
    [&kind.to_be_bytes()[..], &length, &body, &length].concat()
}

/// Big-endian machines write such files, the writer does not. Without `if_tsresol`, an interface
/// counts microseconds.
#[test]
fn big_endian_pcapng_is_read() {
    let frame = arp();
    let mut file = big_endian_block(
        0x0a0d_0d0a,
        &[[0x1a, 0x2b, 0x3c, 0x4d], [0, 1, 0, 0], [0xff; 4], [0xff; 4]].concat(),
    );
    file.extend(big_endian_block(1, &[0, 1, 0, 0, 0, 0, 0, 0]));
    // The option is if_tsresol: nanoseconds.
    file.extend(big_endian_block(1, &[0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 9, 0, 0, 0, 0, 0, 0, 0]));
    let (micros, nanos) = (TIME.as_micros() as u64, TIME.as_nanos() as u64);
    for (interface, time, direction) in [(0u32, micros, 1u8), (1, nanos, 2)] {
        let mut body = interface.to_be_bytes().to_vec();
        body.extend(time.to_be_bytes());
        body.extend([frame.len() as u32; 2].map(u32::to_be_bytes).concat());
        body.extend(&frame);
        body.resize(body.len().next_multiple_of(4), 0);
        body.extend([0, 2, 0, 4, 0, 0, 0, direction, 0, 0, 0, 0]);
        file.extend(big_endian_block(6, &body));
    }
    let (interfaces, found) =
        read(file, |frame| (frame.interface, frame.time, frame.direction, frame.data[0].to_vec()));
    assert_eq!(interfaces, [interface("", LinkType::Ethernet, 0), interface("", LinkType::Ethernet, 0)]);
    let micros = Duration::from_micros(micros);
    assert_eq!(
        found,
        [(0, micros, FrameDirection::Inbound, frame.clone()), (1, TIME, FrameDirection::Outbound, frame)]
    );
}

/// The block is a process information block (Apple's) of ten bytes.
#[test]
fn a_block_shorter_than_its_header_is_damage() {
    let mut file = big_endian_block(
        0x0a0d_0d0a,
        &[[0x1a, 0x2b, 0x3c, 0x4d], [0, 1, 0, 0], [0xff; 4], [0xff; 4]].concat(),
    );
    file.extend([0x80, 0, 0, 1, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 10]);
    let mut reader = CaptureReader::new(Cursor::new(file), "short.pcapng").unwrap();
    assert!(matches!(reader.read(), Err(CaptureError::Malformed { .. })));
}

/// A temporary file, removed on drop.
pub struct Temporary(pub PathBuf);

impl Temporary {
    pub fn new(name: &str) -> Self {
        Temporary(std::env::temp_dir().join(format!("netkat-{}-{name}", std::process::id())))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A stream that keeps its bytes for the test.
#[derive(Clone, Default)]
pub struct Screen(Arc<Mutex<Vec<u8>>>);

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Screen {
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

fn lines() -> LineFormatter {
    LineFormatter::new(4711, TimeZone::UTC)
}

/// Passes the interfaces and frames of a capture to a sink.
fn replay(name: &str, sink: &mut Sink) {
    let mut reader = CaptureReader::open(&folder().join(name)).unwrap();
    while let Some(record) = reader.read().unwrap() {
        match record {
            CaptureRecord::Interface(interface) => drop(sink.add_interface(interface).unwrap()),
            CaptureRecord::Frame(frame) => sink.write_frame(&frame).unwrap(),
        }
    }
    sink.flush().unwrap();
}

#[test]
fn a_recorded_capture_shows_the_original_lines() {
    let file = Temporary::new("recorded.pcapng");
    let screen = Screen::default();
    let mut sink =
        Sink::new().with_capture_file(&file.0).unwrap().with_text(Box::new(screen.clone()), LINE, lines());
    replay("lo.pcap", &mut sink);
    sink.write_statistics(0, TIME, &InterfaceStatistics { received: 20, dropped: 3 }).unwrap();
    sink.flush().unwrap();
    assert_eq!(sink.frames(), 20);
    assert_eq!(screen.text(), text("lo.pcap"));

    let mut again = Vec::new();
    frames(&file.0, |frame| again.push(frame.data[0].to_vec())).unwrap();
    let mut original = Vec::new();
    frames(&folder().join("lo.pcap"), |frame| original.push(frame.data[0].to_vec())).unwrap();
    assert_eq!(again, original);

    // Other programs have to read the file, too.
    let tools: [(&str, &[&str]); 2] = [("tcpdump", &["-n", "-r"]), ("tshark", &["-n", "-r"])];
    for (tool, arguments) in tools {
        match Command::new(tool).args(arguments).arg(&file.0).output() {
            Ok(output) => {
                assert!(output.status.success(), "{tool}: {}", String::from_utf8_lossy(&output.stderr));
                assert_eq!(output.stdout.split(|byte| *byte == b'\n').count(), 21, "{tool}");
            }
            Err(_) => crate::skipped::skipped(&format!("no {tool} here to open the file with")),
        }
    }
    match Command::new("capinfos").arg("-M").arg(&file.0).output() {
        Ok(output) => assert!(output.status.success()),
        Err(_) => crate::skipped::skipped("no capinfos here to open the file with"),
    }
}

#[test]
fn interfaces_are_named_on_demand() {
    let screen = Screen::default();
    let mut sink =
        Sink::new().with_text(Box::new(screen.clone()), TextOptions { interface: true, ..LINE }, lines());
    let frame = arp();
    for name in ["eth0", "bad\x1b[2J"] {
        let number = sink.add_interface(interface(name, LinkType::Ethernet, 0)).unwrap();
        let observed = CapturedFrame::new(TIME, FrameDirection::Inbound, LinkType::Ethernet, &frame);
        sink.write_frame(&CapturedFrame { interface: number, ..observed }).unwrap();
    }
    assert_eq!(screen.text(), "", "lines leave with a flush");
    sink.flush().unwrap();
    let prefix = "I0716 01:58:31.206864 4711 sniffer]";
    let rest = "recv arp 10.0.0.1 (02:00:00:00:00:01) -> 10.0.0.2 (00:00:00:00:00:00) valid:true";
    assert_eq!(screen.text(), format!("{prefix} {rest} if:eth0\n{prefix} {rest} if:bad\\u{{1b}}[2J\n"));
}

#[test]
fn payload_follows_its_line() {
    let screen = Screen::default();
    let mut sink =
        Sink::new().with_text(Box::new(screen.clone()), TextOptions { payload: true, ..LINE }, lines());
    replay("udp.pcap", &mut sink);
    let text = screen.text();
    let dump: Vec<_> = text.lines().filter(|line| !line.starts_with('I')).collect();
    assert_eq!(
        dump,
        [
            "00000000  65 78 61 6d 70 6c 65                              |example|",
            "00000000  45 58 41 4d 50 4c 45                              |EXAMPLE|",
        ]
    );
}

#[test]
fn objects_have_the_content_of_lines() {
    let screen = Screen::default();
    let mut sink = Sink::new().with_text(
        Box::new(screen.clone()),
        TextOptions { format: TextFormat::Json, payload: true, dump: None, interface: false },
        lines(),
    );
    replay("tcp-handshake.pcapng", &mut sink);
    replay("corrupted.pcap", &mut sink);
    let objects: Vec<serde_json::Value> =
        screen.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let syn = &objects[0];
    assert_eq!(syn["direction"], "recv");
    assert_eq!(syn["ip"]["source"], "192.0.2.1");
    assert_eq!(syn["tcp"]["destination"], 80);
    assert_eq!(syn["tcp"]["flags"], serde_json::json!(["syn"]));
    assert_eq!(syn["tcp"]["options"]["mss"], 1460);
    assert!(syn["time"].as_str().unwrap().ends_with("789Z"), "{syn}");
    assert_eq!(objects[3]["payload"], "474554202f20485454502f312e310d0a0d0a");
    assert!(objects.iter().any(|object| object["problem"] == "invalid packet: tcp data offset too small 3"));
}

#[test]
fn objects_read_as_expected() {
    for name in ["vlan.pcap", "icmp-errors.pcap", "arp.pcap", "fragments.pcap", "tunnels.pcap", "ecn.pcap"] {
        let screen = Screen::default();
        let mut sink = Sink::new().with_text(
            Box::new(screen.clone()),
            TextOptions { format: TextFormat::Json, ..LINE },
            lines(),
        );
        replay(name, &mut sink);
        let text = screen.text();
        assert_eq!(json_schema::check_lines(&text), text.lines().count());
        insta::assert_snapshot!(format!("json_{name}"), text.replace(env!("CARGO_PKG_VERSION"), "VERSION"));
    }
}

#[test]
fn wireshark_sees_direction_comment_and_drops() {
    let file = Temporary::new("directions.pcapng");
    let mut sink = Sink::new().with_capture_file(&file.0).unwrap();
    let number = sink.add_interface(interface("eth0", LinkType::Ethernet, 0)).unwrap();
    let frame = arp();
    let received = CapturedFrame::new(TIME, FrameDirection::Inbound, LinkType::Ethernet, &frame);
    sink.write_frame(&CapturedFrame { guarded: true, interface: number, ..received }).unwrap();
    sink.write_frame(&CapturedFrame { direction: FrameDirection::Outbound, ..received }).unwrap();
    sink.write_statistics(number, TIME, &InterfaceStatistics { received: 7, dropped: 5 }).unwrap();
    sink.flush().unwrap();
    let fields =
        ["frame.time_epoch", "frame.interface_name", "frame.packet_flags_direction", "frame.comment"];
    let mut tshark = Command::new("tshark");
    tshark.args(["-n", "-T", "fields", "-E", "separator=|", "-r"]).arg(&file.0);
    tshark.args(fields.iter().flat_map(|field| ["-e", field]));
    let Ok(output) = tshark.output() else {
        return crate::skipped::skipped("no tshark here to open the file with");
    };
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "1689472711.206864123|eth0|0x00000001|kept from the kernel by netkat's guard\n\
         1689472711.206864123|eth0|0x00000002|\n"
    );
}

/// A pipe without a reader.
pub struct Broken;

impl Write for Broken {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_closed_pipe_is_not_a_write_error() {
    let mut sink = Sink::new().with_text(Box::new(Broken), LINE, lines());
    sink.write_frame(&CapturedFrame::new(TIME, FrameDirection::Inbound, LinkType::Ethernet, &arp())).unwrap();
    assert!(matches!(sink.flush(), Err(SinkError::Closed)));
}

#[test]
fn other_files_are_refused_by_name() {
    for bytes in [&b""[..], b"GIF89a", &[0; 100]] {
        match CaptureReader::new(Cursor::new(bytes.to_vec()), "picture.gif") {
            Err(error @ CaptureError::NotACapture { .. }) => {
                assert!(error.to_string().contains("picture.gif"))
            }
            other => panic!("{:?} for {bytes:?}", other.err()),
        }
    }
    assert!(matches!(CaptureReader::open("/nowhere/file.pcap".as_ref()), Err(CaptureError::Open { .. })));
}

#[test]
fn a_file_cut_short_gives_its_whole_packets_first() {
    let bytes = std::fs::read(folder().join("udp.pcap")).unwrap();
    let mut reader = CaptureReader::new(Cursor::new(bytes[..bytes.len() - 5].to_vec()), "cut.pcap").unwrap();
    let mut packets = 0;
    let error = loop {
        match reader.read() {
            Ok(Some(CaptureRecord::Frame(_))) => packets += 1,
            Ok(Some(_)) => {}
            Ok(None) => panic!("the cut went unnoticed"),
            Err(error) => break error,
        }
    };
    assert_eq!(packets, 2);
    assert!(matches!(error, CaptureError::Truncated { packets: 2, .. }), "{error}");
}

/// A stream that delivers one byte per read, like a slow pipe.
struct Slow(Cursor<Vec<u8>>);

impl io::Read for Slow {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(&mut buffer[..1])
    }
}

#[test]
fn files_can_come_slowly() {
    for name in ["udp.pcap", "tcp-handshake.pcapng"] {
        let bytes = std::fs::read(folder().join(name)).unwrap();
        let mut reader = CaptureReader::new(Slow(Cursor::new(bytes)), name).unwrap();
        let mut packets = 0;
        while let Some(record) = reader.read().unwrap() {
            packets += usize::from(matches!(record, CaptureRecord::Frame(_)));
        }
        assert_eq!(packets, text(name).lines().count(), "{name}");
    }
}
