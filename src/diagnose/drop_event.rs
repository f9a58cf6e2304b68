//! A drop event: the kernel freed a packet of the attempt, and tells where and mostly why.
use super::packet::Subject;

/// Reasons of frees that lose nothing, and of a neighbour's silence, which the neighbour table tells better.
const HARMLESS: [&str; 10] = [
    "NOT_DROPPED_YET",
    "CONSUMED",
    "QUEUE_PURGE",
    "TCP_RESET",
    "TCP_CLOSE",
    "TCP_OLD_ACK",
    "TCP_FLAGS",
    "NEIGH_CREATEFAIL",
    "NEIGH_FAILED",
    "NEIGH_QUEUEFULL",
];
/// Parts of the names of functions that drop packets without a reason of their own.
const PLACES: [&str; 7] = ["xdp", "nf_hook", "nft_", "tc_", "tcf_", "cls", "handle_egress"];

/// A packet of the attempt that the kernel dropped in one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DropEvent {
    pub subject: Subject,
    /// The device that it was at, if it had one.
    pub interface: Option<String>,
    /// The kernel's name of the reason; there are none before Linux 5.17.
    pub reason: Option<String>,
    /// The function that freed it; empty where the kernel does not name it.
    pub symbol: String,
}

impl DropEvent {
    /// Returns the event's name as a source.
    pub(crate) fn source(&self) -> String {
        match (self.known_reason(), self.symbol.as_str()) {
            (Some(reason), _) => format!("drop event {reason}"),
            (None, "") => "drop event".to_owned(),
            (None, symbol) => format!("drop event at {symbol}"),
        }
    }

    /// Returns whether the packet was lost by it, as far as reason or place tell.
    pub(crate) fn is_a_loss(&self) -> bool {
        match self.known_reason() {
            Some(reason) => !HARMLESS.contains(&reason),
            None => PLACES.iter().any(|place| self.symbol.contains(place)),
        }
    }

    /// Returns whether a program of XDP dropped the packet, before any packet socket could see it.
    pub(crate) fn is_by_xdp(&self) -> bool {
        self.known_reason() == Some("XDP") || self.symbol.contains("xdp")
    }

    /// Returns whether netfilter may have dropped the packet.
    pub(crate) fn is_by_netfilter(&self) -> bool {
        match self.known_reason() {
            Some(reason) => reason == "NETFILTER_DROP",
            None => self.symbol.contains("nf_") || self.symbol.contains("nft_") || self.symbol.is_empty(),
        }
    }

    /// Returns the reason, if it says anything.
    pub(crate) fn known_reason(&self) -> Option<&str> {
        self.reason.as_deref().filter(|reason| *reason != "NOT_SPECIFIED")
    }
}

/// Returns a reason in words where its name does not say it to a network engineer.
pub(super) fn words(reason: &str) -> Option<&'static str> {
    Some(match reason {
        // ip_error() in net/ipv4/route.c asks that.
        "IP_INADDRERRORS" => {
            "its destination is no address of this host, and forwarding is off (net.ipv4.ip_forward)"
        }
        "IP_INNOROUTES" | "IP_OUTNOROUTES" => "there is no route",
        "IP_INVALID_SOURCE" | "IP_LOCAL_SOURCE" | "IP_LOCALNET" => "its source is martian",
        "IP_INVALID_DEST" => "its destination is martian",
        "IP_CSUM" | "TCP_CSUM" | "ICMP_CSUM" | "SKB_CSUM" => "its checksum is wrong",
        "IP_INHDR" => "its IP header is invalid",
        "OTHERHOST" => "its frame is for another link address",
        "UNHANDLED_PROTO" => "nothing of the kernel takes its protocol",
        "SOCKET_FILTER" => "the socket's own filter (SO_ATTACH_FILTER) refuses it",
        "SOCKET_BACKLOG" | "SOCKET_RCVBUFF" | "PROTO_MEM" => "the socket's memory is full",
        "XFRM_POLICY" => "an IPsec policy refuses it",
        "TCP_MD5NOTFOUND" | "TCP_MD5UNEXPECTED" | "TCP_MD5FAILURE" => {
            "its TCP MD5 signature (RFC 2385) does not fit"
        }
        "TCP_AONOTFOUND" | "TCP_AOUNEXPECTED" | "TCP_AOFAILURE" | "TCP_AOKEYNOTFOUND" => {
            "its TCP authentication option (RFC 5925) does not fit"
        }
        "PKT_TOO_BIG" | "PKT_TOO_SMALL" => "its length does not fit",
        "DEV_READY" => "the device is not up",
        "FULL_RING" => "the device's ring is full",
        "IPV6DISABLED" => "IPv6 is switched off",
        "TTL_EXCEEDED" | "IP_TTL" => "its time to live has expired",
        "NOMEM" => "memory ran out",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(reason: Option<&str>, symbol: &str) -> DropEvent {
        DropEvent {
            subject: Subject::Syn,
            interface: None,
            reason: reason.map(str::to_owned),
            symbol: symbol.to_owned(),
        }
    }

    #[test]
    fn frees_are_told_from_losses() {
        for (event, is_loss, is_netfilter, source) in [
            (event(Some("NETFILTER_DROP"), "nf_hook_slow"), true, true, "drop event NETFILTER_DROP"),
            (event(Some("TCP_RESET"), "tcp_rcv_state_process"), false, false, "drop event TCP_RESET"),
            (event(Some("NOT_SPECIFIED"), "do_xdp_generic"), true, false, "drop event at do_xdp_generic"),
            (event(Some("NOT_SPECIFIED"), "tcp_v4_rcv"), false, false, "drop event at tcp_v4_rcv"),
            (event(None, "nf_hook_slow"), true, true, "drop event at nf_hook_slow"),
            (event(None, ""), false, true, "drop event"),
        ] {
            let told = (event.is_a_loss(), event.is_by_netfilter(), event.source());
            assert_eq!(told, (is_loss, is_netfilter, source.to_owned()), "{event:?}");
        }
    }
}
