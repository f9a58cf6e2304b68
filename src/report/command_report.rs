//! The part of the JSON object that `--run` fills in: the command's status, its flows, their traffic.
use super::JsonReport;
use crate::{
    gateway::{Flow, Outcome, Traffic},
    net::ip_protocol,
};
use serde::Serialize;
use std::net::{IpAddr, SocketAddr};

/// A run's command and its traffic.
#[derive(Clone, Debug, Serialize)]
pub(super) struct CommandRun {
    /// Ports held on this host.
    held_ports: u64,
    /// Ports that this host used and the command asked for.
    refused_ports: u64,
    /// Packets of the command's that were dropped as no flow's.
    foreign_packets: u64,
    /// Packets from the command, and to it, that found a receive buffer full.
    lost_sent_packets: u32,
    lost_received_packets: u32,
    /// Number of flows, of which `flows` has the first 10,000.
    flow_count: u64,
    flows: Vec<CommandFlow>,
}

#[derive(Clone, Debug, Serialize)]
struct CommandFlow {
    protocol: &'static str,
    local: IpAddr,
    /// The port; of an echo request, the identifier.
    local_port: u16,
    remote: SocketAddr,
    sent_packets: u64,
    sent_bytes: u64,
    received_packets: u64,
    received_bytes: u64,
}

impl From<&Flow> for CommandFlow {
    fn from(flow: &Flow) -> CommandFlow {
        let Traffic { packets: sent_packets, bytes: sent_bytes } = flow.sent;
        let Traffic { packets: received_packets, bytes: received_bytes } = flow.received;
        CommandFlow {
            protocol: match flow.key.protocol {
                ip_protocol::TCP => "tcp",
                ip_protocol::UDP => "udp",
                _ => "icmp",
            },
            local: flow.key.local.ip(),
            local_port: flow.key.local.port(),
            remote: flow.remote,
            sent_packets,
            sent_bytes,
            received_packets,
            received_bytes,
        }
    }
}

impl JsonReport {
    /// Notes the end of a command.
    pub(crate) fn command(&mut self, outcome: &Outcome) {
        self.guard_dropped_packets = Some(outcome.kept);
        self.exec_status = Some(outcome.status);
        let [lost_sent_packets, lost_received_packets] = outcome.lost;
        self.command = Some(CommandRun {
            lost_sent_packets,
            lost_received_packets,
            held_ports: outcome.ports,
            refused_ports: outcome.refused,
            foreign_packets: outcome.foreign,
            flow_count: outcome.flows,
            flows: outcome.reported.iter().map(CommandFlow::from).collect(),
        });
    }
}
