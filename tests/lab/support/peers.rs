//! Netcats over the kernel's stack, as typed values: netkat's peers, and the connections that rules have to stop.
use super::{
    namespace::Namespace,
    process::{Command, Process},
};
use std::net::IpAddr;

/// A netcat over the kernel's TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Netcat {
    OpenBsd,
    Ncat,
    Socat,
}

impl Netcat {
    pub const ALL: [Self; 3] = [Self::OpenBsd, Self::Ncat, Self::Socat];

    /// A listening one exits as soon as its peer has ended and its own buffer is empty, whatever
    /// its stdin still holds (netcat.c, readwrite; ncat_listen.c, read_socket).
    pub fn leaves_early(self) -> bool {
        self != Self::Socat
    }

    /// Connects, sends stdin and ends it, receives until the peer ends.
    pub fn connect(self, namespace: &Namespace, to: IpAddr, port: u16) -> Command {
        let (host, number) = (to.to_string(), port.to_string());
        match self {
            Self::OpenBsd => namespace.command("nc.openbsd").args(["-N", "-w", "30", &host, &number]),
            Self::Ncat => namespace.command("ncat").args([&host, &number]),
            // -t: after one direction's end the other has 30 s, not half a second.
            Self::Socat => namespace
                .command("socat")
                .args(["-b131072", "-t30", "-"])
                .arg(format!("TCP:{},connect-timeout=30", bracketed(to, port))),
        }
    }

    /// Listens for one connection, then as [`Netcat::connect`]. Returns once the port is open.
    pub fn listen(
        self,
        namespace: &Namespace,
        at: IpAddr,
        port: u16,
        with: impl FnOnce(Command) -> Command,
    ) -> Process {
        let (host, number) = (at.to_string(), port.to_string());
        let command = match self {
            Self::OpenBsd => namespace.command("nc.openbsd").args(["-N", "-l", &host, &number]),
            Self::Ncat => namespace.command("ncat").args(["-l", &host, &number]),
            Self::Socat => namespace.command("socat").args(["-b131072", "-t30", "-"]).arg(format!(
                "TCP{}-LISTEN:{port},bind={},reuseaddr",
                if at.is_ipv6() { 6 } else { 4 },
                if at.is_ipv6() { format!("[{at}]") } else { host.clone() }
            )),
        };
        let mut process = with(command).spawn();
        process.wait_listening(port);
        process
    }
}

/// Joins address and port to one word, as in a URL.
pub fn bracketed(address: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(address, port).to_string()
}

/// Returns whether the kernel's own TCP connects from one namespace to the other within a second,
/// as `nc -w1 -z` does.
pub fn kernel_connects(from: &Namespace, to: IpAddr, port: u16) -> bool {
    from.command("nc.openbsd").args(["-z", "-w", "1", &to.to_string(), &port.to_string()]).run().success()
}
