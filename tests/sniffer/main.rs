//! Tests the sniffer from outside: lines, JSON, capture files, malformed frames.
mod captures;
mod files;
mod line;
mod program;
mod properties;
mod tap;
mod tshark;
