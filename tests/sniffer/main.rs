//! Tests the sniffer from outside: lines, JSON, capture files, malformed frames.
mod blocks;
mod captures;
mod files;
#[path = "../lab/support/json_schema.rs"]
mod json_schema;
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
