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
    ports: u64,
    /// Ports that this host used and the command asked for.
    ports_refused: u64,
    /// Packets of the command's that were dropped as no flow's.
    foreign: u64,
    /// Packets from the command, and to it, that found a receive buffer full.
    lost_sending: u32,
    lost_receiving: u32,
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
    packets_sent: u64,
    bytes_sent: u64,
    packets_received: u64,
    bytes_received: u64,
}

impl From<&Flow> for CommandFlow {
    fn from(flow: &Flow) -> CommandFlow {
        let Traffic { packets: packets_sent, bytes: bytes_sent } = flow.sent;
        let Traffic { packets: packets_received, bytes: bytes_received } = flow.received;
        CommandFlow {
            protocol: match flow.key.protocol {
                ip_protocol::TCP => "tcp",
                ip_protocol::UDP => "udp",
                _ => "icmp",
            },
            local: flow.key.local.ip(),
            local_port: flow.key.local.port(),
            remote: flow.remote,
            packets_sent,
            bytes_sent,
            packets_received,
            bytes_received,
        }
    }
}

impl JsonReport {
    /// Notes the end of a command.
    pub(crate) fn command(&mut self, outcome: &Outcome) {
        self.kept_from_kernel = Some(outcome.kept);
        self.exec_status = Some(outcome.status);
        let [lost_sending, lost_receiving] = outcome.lost;
        self.command = Some(CommandRun {
            lost_sending,
            lost_receiving,
            ports: outcome.ports,
            ports_refused: outcome.refused,
            foreign: outcome.foreign,
            flow_count: outcome.flows,
            flows: outcome.reported.iter().map(CommandFlow::from).collect(),
        });
    }
}
