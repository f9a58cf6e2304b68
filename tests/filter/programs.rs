//! Programs in the kernel: it takes them, and its verdicts are the machine's.
use super::{
    packets::{Frame, LINK_TYPES, frames},
    verdicts::{list, ours},
};
use netkat::sniffer::{
    LinkType,
    filter::{Filter, FilterError, Frames, Program},
};
use std::{collections::BTreeSet, os::fd::AsRawFd, os::unix::net::UnixDatagram};

/// Attaches a program to a socket, which needs no privilege.
fn attach(socket: &UnixDatagram, program: &Program) -> std::io::Result<()> {
    let instructions = program.instructions();
    let program = libc::sock_fprog {
        len: instructions.len().try_into().expect("4096 at most"),
        filter: instructions.as_ptr().cast_mut(),
    };
    let size = size_of_val(&program) as libc::socklen_t;
    // SAFETY: the pointer and the length describe one sock_fprog, whose program outlives the call.
    let result = unsafe {
        let program = std::ptr::from_ref(&program).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, program, size)
    };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Returns the numbers of the frames that the kernel lets pass: a datagram is a frame.
fn passing_in_the_kernel(program: &Program, frames: &[Frame]) -> BTreeSet<usize> {
    let (sender, receiver) = UnixDatagram::pair().expect("a pair of sockets");
    attach(&receiver, program).expect("the kernel takes the program");
    receiver.set_nonblocking(true).expect("a socket");
    let mut passing = BTreeSet::new();
    for (number, frame) in frames.iter().enumerate() {
        sender.send(&frame.bytes).expect("a datagram is sent");
        if receiver.recv(&mut [0; 1]).is_ok() {
            passing.insert(number);
        }
    }
    passing
}

fn compile(expression: &str, frames: Frames) -> Result<Program, FilterError> {
    Filter::parse(expression)?.compile(frames)
}

#[test]
fn the_kernel_and_the_machine_agree() {
    let mut compared = 0;
    for (link_type, _) in LINK_TYPES {
        let mut frames = frames(link_type);
        // A datagram has no bytes beyond those that it carries.
        frames.retain(|frame| frame.length == frame.bytes.len());
        for expression in list() {
            let Ok(program) = compile(expression, Frames::Recorded(link_type)) else { continue };
            // The direction of a datagram is the kernel's.
            let expected = ours(&program, link_type, &frames);
            assert_eq!(passing_in_the_kernel(&program, &frames), expected, "{link_type:?} {expression}");
            compared += frames.len();
        }
    }
    eprintln!("{compared} verdicts");
    assert!(compared > 500_000);
}

#[test]
fn the_kernel_takes_programs_for_live_frames() {
    let (socket, _other) = UnixDatagram::pair().expect("a pair of sockets");
    let live = |link_type| Frames::Live { link_type, netmask: 0xffff_ff00 };
    for frames in [live(LinkType::Ethernet), live(LinkType::RawIp), Frames::Any] {
        for expression in list().into_iter().chain(["inbound", "outbound and tcp", "ifindex 2", "vlan 7"]) {
            let Ok(program) = compile(expression, frames) else { continue };
            attach(&socket, &program).unwrap_or_else(|error| panic!("{frames:?} {expression}: {error}"));
        }
    }
    for expression in ["ether host 2:0:0:0:0:1", "vlan and ip", "not ether broadcast", "ifindex 1"] {
        let program = compile(expression, Frames::Any).expect("it is false on bare IP packets");
        attach(&socket, &program).unwrap_or_else(|error| panic!("{expression}: {error}"));
    }
}

/// Jumps over more than 255 instructions, up to the kernel's limit.
#[test]
fn long_programs_are_taken_up_to_the_limit() {
    let link_type = LinkType::Ethernet;
    let frames = frames(link_type);
    let hosts = |count: usize| {
        let hosts: Vec<String> = (0..count).map(|n| format!("198.18.{}.{}", n / 256, n % 256)).collect();
        format!("tcp and (host {}) or host 10.0.0.1", hosts.join(" or "))
    };
    let expected = compile("host 10.0.0.1", Frames::Recorded(link_type)).expect("a filter");
    let expected = ours(&expected, link_type, &frames);
    assert!(!expected.is_empty() && expected.len() < frames.len());
    for count in [1, 10, 20, 30, 100, 250] {
        let program = compile(&hosts(count), Frames::Recorded(link_type)).expect("it fits");
        let passing = ours(&program, link_type, &frames);
        assert!(passing.is_subset(&expected) && !passing.is_empty(), "{count}");
        let (socket, _other) = UnixDatagram::pair().expect("a pair of sockets");
        attach(&socket, &program).unwrap_or_else(|error| panic!("{count}: {error}"));
    }
    let error = compile(&hosts(5000), Frames::Recorded(link_type)).expect_err("it does not fit");
    assert!(error.to_string().contains("the kernel takes 4096"), "{error}");
}
