//! A stack's settings, for all tests that drive one.
use netkat::{recovery::Algorithm, stack::Settings};

/// Returns a stack's settings with these buffers, in bytes.
pub fn settings(send_buffer: usize, receive_buffer: usize) -> Settings {
    Settings {
        mss: None,
        send_buffer,
        receive_buffer,
        hop_limit: None,
        default_ttl: 64,
        traffic_class: 0,
        congestion: Some(Algorithm::Cubic),
        default_congestion: Algorithm::Cubic,
        user_timeout: None,
        keep_alive: None,
    }
}
