//! The sniffer as its user sees it: lines, capture files, hostile frames.
mod captures;
mod files;
mod line;
#[path = "../support/namespace.rs"]
mod namespace;
mod program;
mod properties;
mod tap;
mod tshark;
