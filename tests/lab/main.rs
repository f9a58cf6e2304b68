//! The lab: netkat and the kernel's own tools in network namespaces, with real rules between them.
//!
//! Theory of operation: each test builds a topology of its own from namespaces with unique names, so tests run
//! side by side and touch nothing outside of what they made. Every process has a deadline, dies with the value
//! that stands for it, and shows its stderr when a test fails. Nothing waits by sleeping: listeners are polled
//! for in the namespace's socket table, conditions with a deadline. A test that lacks root or a tool says
//! SKIPPED aloud; with NETKAT_LAB=required in the environment that is a failure.
mod assumptions;
mod changes;
mod clients;
mod company;
mod detours;
mod disguise;
mod door;
mod emulator;
mod endings;
mod footprint;
mod frames;
mod habits;
mod holders;
mod hostile;
mod lossy;
mod matrix;
mod memory;
mod namespace;
mod netkat;
mod older_kernels;
#[path = "emulator/packet_socket.rs"]
mod packet_socket;
mod paths;
mod payload;
mod peers;
mod privileges;
mod process;
mod processes;
mod programs;
mod requirements;
mod routes;
mod rules;
mod silence;
mod sniffer;
mod topologies;
mod topology;
mod transfers;
mod translated;
mod translation;
mod udp;
mod udp_rules;
mod udp_scan;
mod unread;
mod verdicts;
mod witness;
