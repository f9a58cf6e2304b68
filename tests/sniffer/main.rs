//! Tests the sniffer from outside: lines, JSON, capture files, malformed frames.
mod blocks;
mod captures;
mod files;
mod line;
#[path = "../support/namespace.rs"]
mod namespace;
mod program;
mod properties;
#[path = "../support/skipped.rs"]
mod skipped;
mod streams;
mod tap;
mod tcpdump;
mod tshark;
