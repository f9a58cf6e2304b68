//! netkat: netcat over a TCP/IP stack of its own, which the host's firewall does not see.
//!
//! # Theory of operation
//!
//! ```text
//! out   stdin -> session -> send buffer (recovery) -> IP header -> link header -> packet socket -> wire
//! in    wire -> packet socket (before tc and netfilter) -> link -> stack -> recovery (receive buffer) -> session -> stdout
//! state SYN, FIN and RST in both directions: smoltcp, which sees a connection without data
//! aside the kernel's copy of the same packet -> guard program -> dropped, so the kernel answers nothing
//! ```
//!
//! The kernel hands a packet that arrives on an interface to two readers. The packet socket's tap comes
//! first: its capture program ([`kernel`]) passes netkat's packets to netkat. tc ingress comes second, and then
//! netfilter: the guard program, with the same matcher, drops the same packets in front of all others at one of the
//! two. So the host's rules, conntrack and the kernel's own TCP never see them.
//!
//! The [`link`] turns a frame into a network-layer packet. The [`stack`] finds its flow. The flow's
//! [`recovery`] layer handles the acknowledgment and puts the payload in order; the [`session`] writes the
//! payload out. In the other direction, the session fills the recovery layer's send buffer, which decides
//! when each segment leaves. smoltcp keeps TCP's states: it says when to send a SYN, a FIN or a RST, and
//! learns of the peer's. A listener answers a client only once this host's tables have confirmed the route
//! back to it. The event loop (`runtime`) moves the frames, gives the session its turns, and sleeps.
//!
//! Back-pressure is TCP's: a full standard output closes the window, a full send buffer stops the reading of
//! standard input.
//!
//! # Rooms
//!
//! Imports run down this list; docs/architecture.md has the life of a byte, the order of opening, and
//! privileges.
//!
//! | module | job |
//! |---|---|
//! | [`plan`] | flags and the host's answers, made into a command that is ready to run |
//! | [`cli`] | flags as typed, advice on foreign flags, help, manual page, completions |
//! | `commands` | connect, listen, scan, sniff, datagrams: each reads like its section of the manual |
//! | [`report`] | errors, verdicts, the JSON object, hints, the exit status, logging |
//! | [`session`] | one connection, many clients, processes, datagrams, the rules of their ends |
//! | `runtime` | the event loop, opening in order, the local port, routes, changes of the host |
//! | [`path`] | what routers say of a flow's packets: hops, the path's MTU |
//! | [`stack`] | flows, listeners, datagrams, ICMP errors; smoltcp, which keeps TCP's states |
//! | [`neighbour`] | ARP and NDP: neighbours' link addresses, ours and an assumed address's |
//! | [`recovery`] | both byte streams of a connection: loss recovery, congestion control, reassembly; no I/O, no clock |
//! | `diagnose` | what the kernel did with a packet: traces joined, rules as text, the decision |
//! | [`sniffer`] | frames as text, JSON and capture files; tcpdump's filters |
//! | [`proxy_protocol`] | the PROXY protocol's header: read from the front of a stream, written |
//! | [`segment`] | a TCP header as a value: read once, written once |
//! | [`stdio`] | standard streams and files, none of which blocks the event loop |
//! | [`link`] | frames: the packet socket, or memory in tests |
//! | [`kernel`] | objects in the kernel, each a value that removes its object when it is dropped |
//! | [`process`] | what this process is and gives up: identity, capabilities, sandbox, signals |
//! | [`host`] | questions to the kernel, read-only |
//! | [`net`], `text`, `json` | types that all share: addresses, protocols, five-tuples; text of others, made safe for a terminal; the frame of a JSON object |
//!
//! `unsafe` lives in [`link`] and [`kernel`] only.
#![deny(unsafe_code)]
#![allow(rustdoc::private_intra_doc_links, reason = "the readers are contributors: --document-private-items")]
#![warn(missing_docs)]

pub mod cli;
pub(crate) mod commands;
pub(crate) mod diagnose;
pub(crate) mod gateway;
pub mod host;
pub(crate) mod json;
pub mod kernel;
pub mod link;
pub(crate) mod namespace;
pub mod neighbour;
pub mod net;
pub mod path;
pub mod plan;
pub mod process;
pub mod proxy_protocol;
pub mod recovery;
pub mod report;
pub(crate) mod runtime;
pub mod segment;
pub mod session;
pub mod sniffer;
pub mod stack;
pub mod stdio;
pub(crate) mod text;
