//! The harness: namespaces, topologies, processes with deadlines, peers, rules and payloads.
pub mod emulator;
pub mod fifo;
pub mod frames;
pub mod namespace;
pub mod netkat;
#[path = "../emulator/packet_socket.rs"]
pub mod packet_socket;
pub mod payload;
pub mod peers;
pub mod process;
pub mod programs;
pub mod requirements;
pub mod rules;
pub mod servers;
pub mod topology;
pub mod traces;
pub mod witness;
