//! netkat: netcat over a TCP/IP stack of its own, which the host's firewall does not see.
//!
//! # Theory of operation
//!
//! ```text
//! out   stdin -> relay -> recovery (send buffer) -> IP header -> link header -> packet socket -> wire
//! in    wire -> packet socket (before tc and netfilter) -> link -> IP -> recovery (receive buffer) -> relay -> stdout
//! state SYNs, FINs and resets, either way: smoltcp, which sees a connection without data
//! aside the kernel's copy of the same packet -> guard program at tc ingress -> dropped, so the kernel answers nothing
//! ```
//!
//! A packet of ours arrives on an interface. The kernel hands it to the packet socket's tap first, where the
//! capture program ([`kernel`]) lets it through; then to tc ingress, where the guard, which has the same matcher,
//! drops it. So netfilter, conntrack and the kernel's own TCP never learn of it. The [`link`] turns the frame into
//! a network-layer packet, the [`stack`] finds the [`stack::Flow`] that it belongs to, and the flow's [`recovery`]
//! layer digests its acknowledgment and keeps its payload, unless the output takes that where it lies. What we send goes
//! from the [`relay`] to the recovery layer. smoltcp keeps the connection's state: it says when to send a SYN, a FIN or a
//! reset, and is told of the peer's. A stranger is answered only once this host's tables have said where the way
//! back leads. The relay decides what to do about ends, the [`reactor`] waits, and a [`mode`] holds
//! it all together.
//!
//! Back-pressure is the stack's: a full standard output closes the TCP window, a full send buffer stops the
//! reading of standard input.
//!
//! # The house
//!
//! Imports run one way, from the top of this list to its bottom.
//!
//! | module | job |
//! |---|---|
//! | [`net`], [`signals`] | the words that all share; what ends a run |
//! | [`host`] | questions to the kernel: routes, neighbours, interfaces; what this process may do, and gives up |
//! | [`kernel`] | what is put into the kernel while netkat runs, each a value that undoes itself |
//! | [`stdio`], [`writer`], [`stderr`] | standard streams and files, of which none holds up the loop or outlasts a signal |
//! | [`link`] | frames on the wire |
//! | [`sniffer`] | frames as text, JSON and capture files |
//! | [`recovery`] | both byte streams of a connection: loss recovery, congestion control, reassembly |
//! | [`stack`] | flows, listeners, datagrams, ICMP errors |
//! | [`relay`], [`reactor`], [`children`] | byte streams and their ends; the loop; processes |
//! | [`mode`] | what netkat can do: connect, listen, sniff |
//! | [`plan`], [`cli`] | flags, made into a mode |
//! | [`exit`], [`logging`] | what the user and the script see |
//!
//! `unsafe` lives in [`link`]'s packet socket and [`kernel`]'s system calls only.
#![deny(unsafe_code)]

pub mod cli;
pub(crate) mod commands;
pub mod host;
pub mod kernel;
pub mod link;
pub mod net;
pub mod plan;
pub mod process;
pub mod recovery;
pub mod report;
pub(crate) mod runtime;
pub mod session;
pub mod sniffer;
pub mod stack;
pub mod stdio;
pub(crate) mod text;
