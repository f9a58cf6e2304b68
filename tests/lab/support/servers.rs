//! Servers at the peer, in Python, for the programs that `--run` runs.
use super::{
    namespace::Namespace,
    process::{Command, Process},
};

/// Answers every question for A with 10.77.0.2 and for AAAA with fd77::2, over UDP and TCP, at an
/// address.
const DNS: &str = r#"
import socket, struct, sys, threading
at = sys.argv[1]
family = socket.AF_INET6 if ':' in at else socket.AF_INET
def answer(query):
    end = 12
    while query[end]: end += query[end] + 1
    kind = query[end + 1:end + 3]
    data = socket.inet_aton('10.77.0.2') if kind == b'\0\1' else socket.inet_pton(socket.AF_INET6, 'fd77::2')
    record = b'\xc0\x0c' + kind + b'\0\1\0\0\0\x3c' + struct.pack('>H', len(data)) + data
    return query[:2] + b'\x84\x00\0\1\0\1\0\0\0\0' + query[12:end + 5] + record
listener = socket.create_server((at, 53), family=family)
def stream():
    while True:
        client, _ = listener.accept()
        length = struct.unpack('>H', client.recv(2))[0]
        reply = answer(client.recv(length))
        client.sendall(struct.pack('>H', len(reply)) + reply)
        client.close()
datagrams = socket.socket(family, socket.SOCK_DGRAM)
datagrams.bind((at, 53))
threading.Thread(target=stream, daemon=True).start()
print('ready', flush=True)
while True:
    query, client = datagrams.recvfrom(4096)
    datagrams.sendto(answer(query), client)
"#;

/// Echoes TCP streams on port 7 of any address, and prints the number of connections at once.
const ECHO: &str = r#"
import asyncio, socket
async def echo(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    writer.close()
async def main():
    listener = socket.create_server(('::', 7), family=socket.AF_INET6, dualstack_ipv6=True, backlog=8192)
    server = await asyncio.start_server(echo, sock=listener, backlog=8192)
    print('ready', flush=True)
    await server.serve_forever()
asyncio.run(main())
"#;

/// Echoes datagrams on UDP port 7 of any address.
const DATAGRAM_ECHO: &str = r#"
import socket
server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
server.bind(('::', 7))
print('ready', flush=True)
while True:
    server.sendto(*server.recvfrom(65536))
"#;

/// Takes TCP connections in turn on port 9 of any address, and prints length, SHA-256 and end of
/// each.
const SINK: &str = r#"
import hashlib, socket
listener = socket.create_server(('::', 9), family=socket.AF_INET6, dualstack_ipv6=True)
print('ready', flush=True)
while True:
    client, _ = listener.accept()
    length, digest, end = 0, hashlib.sha256(), 'fin'
    try:
        while data := client.recv(1 << 20):
            digest.update(data)
            length += len(data)
    except ConnectionResetError:
        end = 'reset'
    print(end, length, digest.hexdigest(), flush=True)
    client.close()
"#;

fn python(namespace: &Namespace, script: &str, arguments: &[&str]) -> Command {
    namespace
        .command("python3")
        .args(["-c", script])
        .args(arguments)
        .deadline(std::time::Duration::from_secs(600))
}

fn ready(command: Command) -> Process {
    let mut process = command.spawn();
    process.wait_for_stdout("ready");
    process
}

/// Starts a name server at an address.
pub fn name_server(namespace: &Namespace, at: &str) -> Process {
    ready(python(namespace, DNS, &[at]))
}

/// Starts an echo server on port 7.
pub fn echo_server(namespace: &Namespace) -> Process {
    namespace.sysctl("net.core.somaxconn", "8192");
    namespace.sysctl("net.ipv4.tcp_max_syn_backlog", "8192");
    ready(python(namespace, ECHO, &[]))
}

/// Starts an echo server for datagrams on port 7.
pub fn datagram_echo_server(namespace: &Namespace) -> Process {
    ready(python(namespace, DATAGRAM_ECHO, &[]))
}

/// Starts a sink on port 9.
pub fn sink(namespace: &Namespace) -> Process {
    ready(python(namespace, SINK, &[]))
}

/// Starts a web server for a folder on a port, of both families.
pub fn web_server(namespace: &Namespace, folder: &str, port: u16) -> Process {
    let port_word = port.to_string();
    let mut server = namespace
        .command("python3")
        .args(["-m", "http.server", "--bind", "::", "-d", folder, &port_word])
        .spawn();
    server.wait_listening(port);
    server
}
