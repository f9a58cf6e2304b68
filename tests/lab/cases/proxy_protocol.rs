//! --proxy-protocol: headers to and from peers that write and parse them by the specification, HAProxy among them.
use crate::support::{
    namespace::Namespace,
    netkat::{listening, netkat},
    payload::{MIB, Payload},
    peers::{Netcat, bracketed},
    process::{Command, DEADLINE, Input, Output, Process},
    requirements::lab,
    topology::{Family, Pair},
};
use serde_json::{Value, json};
use std::net::IpAddr;

const PORT: u16 = 5000;

/// Accepts a connection, parses the header, prints it on stderr, copies what follows to stdout, and answers with a
/// file's content.
const RECEIVER: &str = r#"
import socket, struct, sys
at, port, answer = sys.argv[1:4]
family = socket.AF_INET6 if ':' in at else socket.AF_INET
listener = socket.create_server((at, int(port)), family=family)
s, _ = listener.accept()
stream = s.makefile('rb')
start = stream.read(1)
if start == b'P':
    line = start + stream.readline()
    assert line.endswith(b'\r\n') and len(line) <= 107, line
    words = line[:-2].decode('ascii')
else:
    start += stream.read(15)
    assert start[:12] == b'\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a', start
    command, kind, length = struct.unpack('>BBH', start[12:])
    block = stream.read(length)
    size, family = {0x11: (4, socket.AF_INET), 0x21: (16, socket.AF_INET6)}[kind]
    assert length == 2 * size + 4, length
    source, destination = (socket.inet_ntop(family, block[i * size:(i + 1) * size]) for i in (0, 1))
    words = f'{command:02x} {kind:02x} {source} {destination} %d %d' % struct.unpack('>HH', block[2 * size:])
print(words, file=sys.stderr, flush=True)
while data := stream.read(1 << 16):
    sys.stdout.buffer.write(data)
sys.stdout.flush()
s.sendall(open(answer, 'rb').read())
s.close()
"#;

/// Connects and sends a header, a byte at a time if asked to, then standard input and its end; prints what comes. The
/// headers have 203.0.113.7:4000 or [2001:db8::7]:4000 as source.
const SENDER: &str = r#"
import socket, struct, sys, threading
at, port, name, pieces = sys.argv[1:5]
def crc32c(data):
    table = []
    for i in range(256):
        for _ in range(8):
            i = i >> 1 ^ (0x82f63b78 if i & 1 else 0)
        table.append(i)
    sum = 0xffffffff
    for byte in data:
        sum = table[(sum ^ byte) & 255] ^ sum >> 8
    return sum ^ 0xffffffff
def tlv(kind, value):
    return struct.pack('>BH', kind, len(value)) + value
def binary(command, kind, block):
    return b'\r\n\r\n\0\r\nQUIT\n' + struct.pack('>BBH', command, kind, len(block)) + block
v4 = socket.inet_aton('203.0.113.7') + socket.inet_aton('192.0.2.10') + struct.pack('>HH', 4000, 443)
v6 = socket.inet_pton(socket.AF_INET6, '2001:db8::7') + socket.inet_pton(socket.AF_INET6, '2001:db8::10')
v6 += struct.pack('>HH', 4000, 443)
ssl = b'\x07' + bytes(4) + tlv(0x21, b'TLSv1.3') + tlv(0x22, b'client') + tlv(0x23, b'AES') + tlv(0x24, b'RSA-SHA256') + tlv(0x25, b'RSA2048')
tlvs = tlv(1, b'h2') + tlv(2, b'www.example.org') + tlv(4, bytes(7)) + tlv(5, b'id-\xff') + tlv(0x20, ssl) + tlv(0x30, b'blue') + tlv(0xea, b'\x01aws')
summed = binary(0x21, 0x11, v4 + tlvs + tlv(3, bytes(4)))
sum = struct.pack('>I', crc32c(summed))
long = binary(0x21, 0x21, v6 + tlv(0xe0, bytes(16000)))
header = {
    'v1-4': b'PROXY TCP4 203.0.113.7 192.0.2.10 4000 443\r\n',
    'v1-6': b'PROXY TCP6 2001:db8::7 2001:db8::10 4000 443\r\n',
    'v1-unknown': b'PROXY UNKNOWN and anything\r\n',
    'v2-4': binary(0x21, 0x11, v4),
    'v2-6': binary(0x21, 0x21, v6),
    'v2-udp': binary(0x21, 0x12, v4),
    'v2-unix': binary(0x21, 0x31, b'/run/client'.ljust(108, b'\0') + b'/run/server'.ljust(108, b'\0')),
    'v2-local': binary(0x20, 0, b''),
    'v2-unspec': binary(0x21, 0, b'any'),
    'v2-tlvs': summed[:-4] + sum,
    'v2-long': long,
    'bad-sum': summed[:-4] + b'four',
    'bad-port': b'PROXY TCP4 203.0.113.7 192.0.2.10 04000 443\r\n',
    'bad-end': b'PROXY TCP4 203.0.113.7 192.0.2.10 4000 443\n',
    'bad-length': b'PROXY UNKNOWN ' + b'x' * 100 + b'\r\n',
    'bad-version': binary(0x31, 0x11, v4),
    'bad-tlv': binary(0x21, 0x11, v4 + b'\x01\x00\x09h2'),
    'none': b'',
}[name]
s = socket.create_connection((at, int(port)))
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
data = sys.stdin.buffer.read()
end = 'fin'
def send():
    global end
    try:
        if pieces == 'bytes':
            for byte in header:
                s.sendall(bytes([byte]))
        s.sendall(data if pieces == 'bytes' else header + data)
        s.shutdown(socket.SHUT_WR)
    except OSError:
        end = 'reset'
sender = threading.Thread(target=send)
sender.start()
try:
    while piece := s.recv(1 << 16):
        sys.stdout.buffer.write(piece)
except ConnectionResetError:
    end = 'reset'
sender.join()
sys.stdout.flush()
print(end, file=sys.stderr)
"#;

fn sender(from: &Namespace, to: IpAddr, header: &str, pieces: &str) -> Command {
    from.command("python3").args(["-c", SENDER, &to.to_string(), &PORT.to_string(), header, pieces])
}

/// Returns the objects on standard error that are no log lines.
fn objects(output: &Output) -> Vec<Value> {
    let objects = output.stderr.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    objects.filter(|object| object["schema"] != "netkat.log/1").collect()
}

/// The source that a client claims, per family.
fn forged(family: Family) -> (&'static str, &'static str) {
    match family {
        Family::V4 => ("203.0.113.7", "203.0.113.7:4000"),
        Family::V6 => ("2001:db8::7", "[2001:db8::7]:4000"),
    }
}

#[test]
fn a_client_sends_its_own_addresses_or_a_forged_source() {
    lab!("python3");
    let pair = Pair::new();
    let (there, back) = (Payload::new(31, MIB + 1), Payload::new(32, MIB + 3));
    let Input::File(answer) = back.input() else { panic!("a payload is a file") };
    for family in Family::ALL {
        let (own, at) = (pair.host_address(family), pair.peer_address(family));
        let (claimed, source) = forged(family);
        let [word, code] = if family == Family::V4 { ["TCP4", "11"] } else { ["TCP6", "21"] };
        for (value, expected) in [
            ("1".to_owned(), format!("PROXY {word} {own} {at} 4444 {PORT}")),
            ("2".to_owned(), format!("21 {code} {own} {at} 4444 {PORT}")),
            (format!("1:{source}"), format!("PROXY {word} {claimed} {at} 4000 {PORT}")),
            (format!("2:{source}"), format!("21 {code} {claimed} {at} 4000 {PORT}")),
        ] {
            let mut server = pair
                .peer
                .command("python3")
                .args(["-c", RECEIVER, &at.to_string(), &PORT.to_string()])
                .arg(&answer)
                .expect(&there)
                .spawn();
            server.wait_listening(PORT);
            let dump = std::env::temp_dir().join(format!("netkat-proxy-{}", std::process::id()));
            let line = format!("-p 4444 -o {} --json --proxy-protocol {value} {at} {PORT}", dump.display());
            let client = netkat(&pair.host, &line).input(there.input()).expect(&back).run();
            let recorded = std::fs::metadata(&dump).map(|file| file.len()).unwrap_or_default();
            std::fs::remove_file(&dump).expect("the copy");
            assert_eq!(client.code(), Some(0), "{client}");
            client.check(&back);
            let server = server.wait(DEADLINE);
            server.check(&there);
            assert_eq!(server.stderr.trim(), expected, "{server}");
            // The copy has the data of both directions, and not the header.
            assert_eq!(recorded, there.length() + back.length());
            let [object] = &objects(&client)[..] else { panic!("{client}") };
            let header = &object["proxy_protocol"];
            let sent = header["header_bytes"].as_u64().expect("a length") + there.length();
            assert_eq!(object["traffic"]["sent_bytes"], sent, "{object}");
            assert_eq!(header["destination"], bracketed(at, PORT), "{object}");
            let version = value.split(':').next().and_then(|digit| digit.parse::<u64>().ok());
            assert_eq!(header["version"].as_u64(), version, "{object}");
        }
    }
}

/// A source of the other family, and an input that never comes: the header leaves all the same.
#[test]
fn the_header_does_not_wait_for_input() {
    lab!("nc.openbsd");
    let pair = Pair::new();
    for (family, value, expected) in [
        (Family::V4, "1:[2001:db8::7]:4000", "PROXY TCP6 2001:db8::7 ::ffff:a4d:2 4000 5000\r\n"),
        (Family::V6, "1:203.0.113.7:4000", "PROXY TCP6 ::ffff:cb00:7107 fd77::2 4000 5000\r\n"),
    ] {
        let at = pair.peer_address(family);
        let mut server = Netcat::OpenBsd.listen(&pair.peer, at, PORT, |c| c);
        let line = format!("--proxy-protocol {value} {at} {PORT}");
        let mut client = netkat(&pair.host, &line).input(Input::Open).spawn();
        server.wait_until("the header", |server| server.stdout() == expected.as_bytes());
        client.close_stdin();
        assert_eq!(client.wait(DEADLINE).code(), Some(0));
    }
}

#[test]
fn a_listener_reads_headers_of_both_versions() {
    lab!("python3");
    let pair = Pair::new();
    let (there, back) = (Payload::new(33, MIB + 1), Payload::new(34, 100_001));
    let v4 = ["203.0.113.7:4000", "192.0.2.10:443"];
    let v6 = ["[2001:db8::7]:4000", "[2001:db8::10]:443"];
    for (name, version, family, ends, words) in [
        ("v1-4", 1, json!("ipv4"), Some(v4), "version 1, TCP from 203.0.113.7:4000 to 192.0.2.10:443"),
        ("v1-6", 1, json!("ipv6"), Some(v6), "version 1, TCP from [2001:db8::7]:4000 to [2001:db8::10]:443"),
        ("v1-unknown", 1, Value::Null, None, "version 1, a connection of unknown kind"),
        ("v2-4", 2, json!("ipv4"), Some(v4), "version 2, TCP from 203.0.113.7:4000 to 192.0.2.10:443"),
        ("v2-6", 2, json!("ipv6"), Some(v6), "version 2, TCP from [2001:db8::7]:4000 to [2001:db8::10]:443"),
        ("v2-udp", 2, json!("ipv4"), Some(v4), "version 2, UDP from 203.0.113.7:4000 to 192.0.2.10:443"),
        (
            "v2-unix",
            2,
            json!("unix"),
            Some(["/run/client", "/run/server"]),
            "version 2, UNIX stream from \"/run/client\"",
        ),
        ("v2-local", 2, Value::Null, None, "version 2, LOCAL"),
        ("v2-unspec", 2, Value::Null, None, "version 2, a connection of unknown kind"),
        ("v2-long", 2, json!("ipv6"), Some(v6), "to [2001:db8::10]:443, type 0xe0 00000000"),
        (
            "v2-tlvs",
            2,
            json!("ipv4"),
            Some(v4),
            "ALPN \"h2\", AUTHORITY \"www.example.org\", UNIQUE_ID 69642dff, SSL (client certificate verified, \
             SSL_VERSION \"TLSv1.3\", SSL_CN \"client\", SSL_CIPHER \"AES\", SSL_SIG_ALG \"RSA-SHA256\", SSL_KEY_ALG \
             \"RSA2048\"), NETNS \"blue\", type 0xea 01617773, CRC32C verified",
        ),
    ] {
        for (outer, pieces) in Family::ALL.into_iter().zip(["whole", "bytes"]) {
            let at = pair.host_address(outer);
            let file = std::env::temp_dir().join(format!("netkat-proxy-{name}-{}", std::process::id()));
            let line = format!("--json={} --proxy-protocol {at} {PORT}", file.display());
            let server = listening(&pair.host, &line, |c| c.input(back.input()).expect(&there));
            let client = sender(&pair.peer, at, name, pieces).input(there.input()).expect(&back).run();
            let server = server.wait(DEADLINE);
            assert_eq!((server.code(), client.stderr.trim()), (Some(0), "fin"), "{name}: {server}{client}");
            server.check(&there);
            client.check(&back);
            assert!(server.stderr.contains(words), "{name}: {server}");
            let text = std::fs::read_to_string(&file).expect("the report");
            std::fs::remove_file(&file).expect("the report");
            let object: Value = serde_json::from_str(&text).expect("an object");
            let header = &object["proxy_protocol"];
            let [source, destination] = ends.map_or([Value::Null, Value::Null], |ends| ends.map(Value::from));
            assert_eq!((&header["version"], &header["family"]), (&version.into(), &family), "{object}");
            assert_eq!((&header["source"], &header["destination"]), (&source, &destination), "{object}");
            let command = if name == "v2-local" { "local" } else { "proxy" };
            assert_eq!(header["command"], command, "{object}");
            if name == "v2-tlvs" {
                let types: Vec<_> =
                    header["tlvs"].as_array().into_iter().flatten().map(|tlv| &tlv["name"]).collect();
                let null = Value::Null;
                let names = ["alpn", "authority", "unique_id", "ssl", "netns"].map(Value::from);
                let all: Vec<_> = names.iter().chain([&null]).collect();
                assert_eq!((&types[..6], types[6]), (&all[..], &"crc32c".into()), "{object}");
                let ssl = &header["tlvs"][3]["ssl"];
                assert_eq!(
                    (&ssl["verify"], &ssl["tlvs"][0]["text"]),
                    (&0.into(), &"TLSv1.3".into()),
                    "{object}"
                );
                assert_eq!(header["tlvs"][2]["hex"], "69642dff", "{object}");
            }
        }
    }
}

/// Faults, each with words of its error.
const FAULTS: [(&str, &str); 7] = [
    ("bad-sum", "the CRC32C is 666f7572, but "),
    ("bad-port", "\"04000\" is not a port"),
    ("bad-end", "the line ends with a line feed alone"),
    ("bad-length", "is too long: more than 107 bytes"),
    ("bad-version", "the version field is 3, not 2"),
    ("bad-tlv", "the TLV of type 0x01 has 9 bytes, 2 are left"),
    ("none", "no PROXY protocol header: the data begins with \"payload of none"),
];

#[test]
fn a_wrong_header_ends_its_connection_alone() {
    lab!("python3");
    let pair = Pair::new();
    for (family, pieces) in Family::ALL.into_iter().zip(["whole", "bytes"]) {
        let at = pair.host_address(family);
        let server = listening(&pair.host, &format!("-k -w 1 --json --proxy-protocol {at} {PORT}"), |c| c);
        for (name, _) in FAULTS {
            let bad = sender(&pair.peer, at, name, pieces).text(&format!("payload of {name}\n")).run();
            assert_eq!((bad.text().as_str(), bad.stderr.trim()), ("", "reset"), "{name}: {bad}");
            let good = sender(&pair.peer, at, "v2-4", pieces).text("good\n").run();
            assert_eq!(good.stderr.trim(), "fin", "{good}");
        }
        let server = server.wait(DEADLINE);
        assert_eq!((server.code(), server.text()), (Some(0), "good\n".repeat(FAULTS.len())), "{server}");
        let objects = objects(&server);
        let [clients @ .., run] = &objects[..] else { panic!("{server}") };
        assert_eq!(run["clients"], 2 * FAULTS.len(), "{server}");
        for (pair, (name, words)) in clients.chunks(2).zip(FAULTS) {
            assert_eq!(
                (&pair[0]["verdict"], &pair[1]["verdict"]),
                (&"failed".into(), &"done".into()),
                "{server}"
            );
            let error = pair[0]["error"].as_str().unwrap_or_default();
            assert!(error.contains(words), "{name}: {error}");
            assert_eq!(pair[1]["proxy_protocol"]["source"], "203.0.113.7:4000", "{server}");
        }
        // A single connection's error is the run's.
        let server = listening(&pair.host, &format!("--proxy-protocol 1 {at} {PORT}"), |c| c.text("secret"));
        let client = sender(&pair.peer, at, "v2-4", pieces).text("payload").run();
        let server = server.wait(DEADLINE);
        assert_eq!((server.code(), server.text(), client.text()), (Some(1), String::new(), String::new()));
        let words = "a PROXY protocol header of version 2, where only version 1 is accepted";
        assert!(server.stderr.lines().last().is_some_and(|line| line.ends_with(words)), "{server}");
        assert_eq!(client.stderr.trim(), "reset", "{client}");
    }
}

/// Clients that send no header, a part of one, or end before it is complete. They hold up none of the others.
#[test]
fn a_header_that_does_not_come_ends_its_connection() {
    lab!("nc.openbsd", "python3");
    let pair = Pair::new();
    let at = pair.host_address(Family::V6);
    let line = format!("-k --max-conns 3 --json --proxy-protocol {at} {PORT}");
    let mut server = listening(&pair.host, &line, |c| c.text("from the server\n"));
    let open = || Netcat::OpenBsd.connect(&pair.peer, at, PORT).input(Input::Open).spawn();
    let silent = open();
    server.wait_until("a client", |server| server.stderr().matches("established").count() == 1);
    let mut partial = open();
    partial.write(b"PROXY TCP6 2001:");
    let good = sender(&pair.peer, at, "v1-6", "whole").text("good\n").run();
    assert_eq!((good.text().as_str(), good.stderr.trim()), ("from the server\n", "fin"), "{good}");
    let mut ended = open();
    ended.write(b"\r\n\r\n\0");
    ended.close_stdin();
    for client in [silent, partial, ended] {
        assert_eq!(client.wait(DEADLINE).text(), "");
    }
    server.wait_until("four ends", |server| server.stderr().matches("netkat.client/1").count() == 4);
    assert_eq!(server.stdout(), b"good\n");
    // A signal ends the wait, too.
    let waiting = open();
    server.wait_until("a fifth client", |server| server.stderr().matches("established").count() == 5);
    let ended = server.terminate();
    assert_eq!(
        objects(&ended).iter().filter(|object| object["schema"] == "netkat.client/1").count(),
        5,
        "{ended}"
    );
    waiting.wait(DEADLINE);
    let errors: Vec<_> =
        objects(&ended).iter().map(|object| [object["verdict"].clone(), object["error"].clone()]).collect();
    for (verdict, words) in [
        ("timed_out", "no PROXY protocol header within 5 s, but 0 bytes of one"),
        ("timed_out", "no PROXY protocol header within 5 s, but 16 bytes of one"),
        ("failed", "the connection ended before its PROXY protocol header was complete, after 5 bytes"),
    ] {
        let found = errors.iter().any(|[kind, error]| {
            kind == verdict && error.as_str().is_some_and(|error| error.ends_with(words))
        });
        assert!(found, "{words}: {ended}");
    }
}

/// No process starts before the header is complete; then it finds the ends in its environment.
#[test]
fn a_process_gets_the_addresses_of_the_header() {
    lab!("socat", "python3");
    let pair = Pair::new();
    for (family, limit) in Family::ALL.into_iter().zip(["", "-k -w 1"]) {
        let at = pair.host_address(family);
        let script = "echo $NETKAT_PROXY_VERSION $NETKAT_PROXY_SOURCE_ADDR $NETKAT_PROXY_SOURCE_PORT \
                      $NETKAT_PROXY_DESTINATION_ADDR $NETKAT_PROXY_DESTINATION_PORT; cat";
        let line = format!("{limit} --proxy-protocol {at} {PORT} --sh-exec");
        let mut server = listening(&pair.host, &line, |c| c.arg(script));
        let mut client = Netcat::Socat.connect(&pair.peer, at, PORT).input(Input::Open).spawn();
        client.write(b"PROXY TCP6 2001:db8::7 2001:db8::10 4000 443\r");
        server.wait_until("a client", |server| server.stderr().contains("established"));
        assert!(!server.stderr().contains("started process"), "{}", server.stderr());
        client.write(b"\npayload\n");
        client.close_stdin();
        let client = client.wait(DEADLINE);
        assert_eq!(client.text(), "1 2001:db8::7 4000 2001:db8::10 443\npayload\n", "{client}");
        assert_eq!(server.wait(DEADLINE).code(), Some(0));
    }
}

/// Starts HAProxy with these sections.
fn haproxy(namespace: &Namespace, port: u16, sections: &str) -> Process {
    let defaults = "defaults\n timeout connect 9s\n timeout client 9s\n timeout server 9s\n";
    let text = format!("{defaults}{sections}\n");
    let mut process = namespace.command("haproxy").args(["-db", "-f", "/dev/stdin"]).text(&text).spawn();
    process.wait_listening(port);
    process
}

#[test]
fn haproxy_takes_our_headers() {
    lab!("haproxy");
    let pair = Pair::new();
    for family in Family::ALL {
        let (own, at) = (pair.host_address(family), pair.peer_address(family));
        let (claimed, source) = forged(family);
        let sections = format!(
            "frontend f\n mode http\n bind {} accept-proxy\n http-request return status 200 content-type text/plain \
             lf-string \"<%[src] %[src_port] %[dst] %[dst_port]>\"",
            bracketed(at, PORT)
        );
        let _haproxy = haproxy(&pair.peer, PORT, &sections);
        for version in [1, 2] {
            for (value, expected) in [
                (format!("{version}"), format!("<{own} 4444 {at} {PORT}>")),
                (format!("{version}:{source}"), format!("<{claimed} 4000 {at} {PORT}>")),
            ] {
                let line = format!("-p 4444 --proxy-protocol {value} {at} {PORT}");
                let client = netkat(&pair.host, &line).text("GET / HTTP/1.0\r\n\r\n").run();
                assert!(client.text().contains(&expected), "{value}: {client}");
            }
        }
        let plain = netkat(&pair.host, &format!("{at} {PORT}")).text("GET / HTTP/1.0\r\n\r\n").run();
        assert!(!plain.text().contains('<'), "a header is not demanded: {plain}");
    }
}

/// A client of the kernel's connects to HAProxy, which connects to netkat. Each end keeps its direction open until all
/// data has come: HAProxy 2.6 loses data of the other direction when a server, whoever that is, ends its own early.
#[test]
fn a_listener_takes_haproxys_headers() {
    lab!("haproxy", "socat");
    let (there, back) = (Payload::new(35, MIB + 1), Payload::new(36, MIB + 2));
    for family in Family::ALL {
        let pair = Pair::new();
        let (own, at) = (pair.host_address(family), pair.peer_address(family));
        for (port, options, words) in [
            (4445, "send-proxy", "version 1, TCP from "),
            (4446, "send-proxy-v2", "version 2, TCP from "),
            (
                4447,
                "send-proxy-v2 proxy-v2-options crc32c,unique-id",
                ", CRC32C verified, UNIQUE_ID \"id-4447\"",
            ),
        ] {
            let line = format!("--proxy-protocol {own} {PORT}");
            let mut server = listening(&pair.host, &line, |c| c.input(Input::Open).expect(&there));
            let sections = format!(
                "frontend f\n mode tcp\n bind {}\n unique-id-format id-%cp\n default_backend b\nbackend b\n mode tcp\n \
                 server s {} {options}",
                bracketed(at, 6000),
                bracketed(own, PORT)
            );
            let _haproxy = haproxy(&pair.peer, 6000, &sections);
            let to = format!("TCP:{},sourceport={port}", bracketed(at, 6000));
            let client = pair.host.command("socat").args(["-b131072", "-t30", "-", &to]);
            let mut client = client.input(Input::Open).expect(&back).spawn();
            client.write(&there.bytes());
            server.write(&back.bytes());
            server.wait_until("the client's data", |server| server.received() >= there.length());
            client.wait_until("the server's data", |client| client.received() >= back.length());
            client.close_stdin();
            server.close_stdin();
            client.wait(DEADLINE).check(&back);
            let server = server.wait(DEADLINE);
            assert_eq!(server.code(), Some(0), "{server}");
            server.check(&there);
            let ends = format!("TCP from {} to {}", bracketed(own, port), bracketed(at, 6000));
            assert!(server.stderr.contains(words) && server.stderr.contains(&ends), "{options}: {server}");
        }
    }
}
