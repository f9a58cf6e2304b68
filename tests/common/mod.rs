//! Two hosts and the path between them, in memory and in simulated time: smoltcp above, the recovery layer below.
#![allow(dead_code)]
pub mod endpoint;
pub mod path;
pub mod script;
pub mod world;
