//! Route metrics (RTA_METRICS, set by `ip route ... METRIC VALUE`): limits that a route sets to its packets
//! and connections.
use arrayvec::ArrayString;
use netlink_packet_route::route::RouteMetric;
use std::time::Duration;

/// Maximum length of a congestion control's name, in bytes (TCP_CA_NAME_MAX less its NUL, net/tcp.h).
const MAX_NAME: usize = 15;

/// A route's metrics that netkat follows; `None` where the route does not name one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// The path's MTU, in bytes (`mtu`).
    pub mtu: Option<u32>,
    /// The MSS to announce, in bytes (`advmss`).
    pub advertised_mss: Option<u16>,
    /// The TTL or hop limit (`hoplimit`).
    pub hop_limit: Option<u8>,
    /// Initial congestion window, in segments (`initcwnd`).
    pub initial_window: Option<u32>,
    /// Minimum of the retransmission timeout's variance term (`rto_min`).
    pub rto_min: Option<Duration>,
    /// The congestion control's name (`congctl`).
    pub congestion_control: Option<ArrayString<MAX_NAME>>,
}

impl Metrics {
    /// Reads the kernel's list. In it, 0 stands for no value.
    pub(super) fn from_attributes(list: &[RouteMetric]) -> Metrics {
        let mut metrics = Metrics::default();
        let given = |value: &u32| Some(*value).filter(|value| *value > 0);
        for metric in list {
            match metric {
                RouteMetric::Mtu(bytes) => metrics.mtu = given(bytes),
                RouteMetric::Advmss(bytes) => {
                    metrics.advertised_mss = given(bytes).and_then(|bytes| bytes.try_into().ok());
                }
                RouteMetric::Hoplimit(hops) => {
                    metrics.hop_limit = given(hops).and_then(|hops| hops.try_into().ok());
                }
                RouteMetric::InitCwnd(segments) => metrics.initial_window = given(segments),
                RouteMetric::RtoMin(millis) => {
                    metrics.rto_min = given(millis).map(|millis| Duration::from_millis(millis.into()));
                }
                RouteMetric::CcAlgo(name) => {
                    metrics.congestion_control = ArrayString::from(name.trim_end_matches('\0')).ok();
                }
                _ => {}
            }
        }
        metrics
    }
}
