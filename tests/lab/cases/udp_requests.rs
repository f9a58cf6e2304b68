//! `-z -u` asks services in their own protocol: the servers here answer a well-formed request and nothing else.
use crate::support::{
    netkat::netkat,
    process::Process,
    requirements::lab,
    scan::states,
    topology::{Family, Pair},
};
use std::net::IpAddr;

/// The servers, each as strict as its RFC lets it be, at the ports given by name. A request that is not well-formed,
/// an empty datagram for one, gets no answer.
const SERVERS: &str = r#"
import selectors, socket, struct, sys

def need(condition):
    if not condition:
        raise ValueError

def dns(q, peer):
    ident, flags, questions, *others = struct.unpack_from('>6H', q)
    need(flags & 0xf800 == 0 and questions == 1 and others == [0, 0, 0])
    at, labels = 12, []
    while q[at]:
        need(q[at] < 64)
        labels.append(q[at + 1:at + 1 + q[at]])
        at += 1 + q[at]
    need(labels and q[at + 1:] == b'\0\1\0\1')
    record = b'\xc0\x0c\0\1\0\1' + struct.pack('>IH', 60, 4) + bytes([127, 0, 0, 1])
    return struct.pack('>6H', ident, 0x8180, 1, 1, 0, 0) + q[12:] + record

def ntp(q, peer):
    need(len(q) == 48 and q[0] & 7 == 3 and q[0] >> 3 & 7 == 4 and q[40:] != bytes(8))
    return bytes([0x24, 1]) + bytes(22) + q[40:] + bytes(16)

def ber(q, tag):
    need(q[0] == tag and q[1] < 0x80 and len(q) >= 2 + q[1])
    return q[2:2 + q[1]], q[2 + q[1]:]

def number(q):
    content, rest = ber(q, 2)
    need(content)
    return int.from_bytes(content, 'big', signed=True), rest

def tlv(tag, *parts):
    content = b''.join(parts)
    return bytes([tag, len(content)]) + content

def integer(value):
    return tlv(2, value.to_bytes(value.bit_length() // 8 + 1, 'big'))

def pdu(q):
    content, rest = ber(q, 0xa0)
    ident, content = number(content)
    status, content = number(content)
    index, content = number(content)
    bindings, end = ber(content, 0x30)
    need(status == index == 0 and end == rest == b'')
    return ident, bindings

def snmpv3(q, peer):
    message, rest = ber(q, 0x30)
    need(rest == b'')
    version, message = number(message)
    need(version == 3)
    header, message = ber(message, 0x30)
    ident, header = number(header)
    size, header = number(header)
    flags, header = ber(header, 4)
    model, header = number(header)
    need(0 <= ident < 2 ** 31 and size >= 484 and flags == b'\4' and model == 3 and header == b'')
    security, message = ber(message, 4)
    parameters, rest = ber(security, 0x30)
    need(rest == b'')
    engine, parameters = ber(parameters, 4)
    boots, parameters = number(parameters)
    time, parameters = number(parameters)
    for _ in range(3):
        empty, parameters = ber(parameters, 4)
        need(empty == b'')
    need(engine == b'' and boots == time == 0 and parameters == b'')
    scoped, rest = ber(message, 0x30)
    engine, scoped = ber(scoped, 4)
    context, scoped = ber(scoped, 4)
    request, bindings = pdu(scoped)
    need(rest == b'' and bindings == b'')
    own = b'\x80\0\0\0\5lab'
    counter = tlv(0x30, tlv(0x30, tlv(6, bytes([0x2b, 6, 1, 6, 3, 15, 1, 1, 4, 0])), tlv(0x41, b'\1')))
    report = tlv(0xa8, integer(request), integer(0), integer(0), counter)
    usm = tlv(4, tlv(0x30, tlv(4, own), integer(1), integer(1), tlv(4), tlv(4), tlv(4)))
    header = tlv(0x30, integer(ident), integer(484), tlv(4, b'\0'), integer(3))
    return tlv(0x30, integer(3), header, usm, tlv(0x30, tlv(4, own), tlv(4), report))

def snmpv1(q, peer):
    message, rest = ber(q, 0x30)
    version, message = number(message)
    community, message = ber(message, 4)
    need(rest == b'' and version == 0 and community == b'public')
    request, bindings = pdu(message)
    binding, rest = ber(bindings, 0x30)
    name, value = ber(binding, 6)
    need(rest == b'' and name == bytes([0x2b, 6, 1, 2, 1, 1, 1, 0]) and value == b'\5\0')
    answer = tlv(0x30, tlv(0x30, tlv(6, name), tlv(4, b'lab')))
    return tlv(0x30, integer(0), tlv(4, community), tlv(0xa2, integer(request), integer(0), integer(0), answer))

def quic(q, peer):
    need(len(q) >= 1200 and q[0] & 0xf0 == 0xc0)
    version, = struct.unpack_from('>I', q, 1)
    to = q[6:6 + q[5]]
    at = 6 + q[5]
    of = q[at + 1:at + 1 + q[at]]
    at += 1 + q[at]
    need(version & 0x0f0f0f0f == 0x0a0a0a0a and 8 <= len(to) <= 20 and len(of) <= 20 and q[at] == 0)
    need(q[at + 1] >> 6 == 1 and struct.unpack_from('>H', q, at + 1)[0] & 0x3fff == len(q) - at - 3)
    return b'\xc0' + bytes(4) + bytes([len(of)]) + of + bytes([len(to)]) + to + struct.pack('>I', 1)

def stun(q, peer):
    kind, length, cookie = struct.unpack_from('>HHI', q)
    need((kind, length, cookie, len(q)) == (1, 0, 0x2112a442, 20) and q[8:] != bytes(12))
    return struct.pack('>HHI', 0x101, 0, cookie) + q[8:]

def memcached(q, peer):
    ident, sequence, total, reserved = struct.unpack_from('>4H', q)
    need((sequence, total, reserved, q[8:]) == (0, 1, 0, b'version\r\n'))
    return q[:8] + b'VERSION 1.6.18\r\n'

def silent(q, peer):
    need(False)

sockets = selectors.DefaultSelector()
for word in sys.argv[2:]:
    name, port = word.split(':')
    s = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
    s.bind((sys.argv[1], int(port)))
    sockets.register(s, selectors.EVENT_READ, globals()[name])
print('up')
while True:
    for key, _ in sockets.select():
        request, peer = key.fileobj.recvfrom(2000)
        try:
            answer = key.data(request, peer)
        except (ValueError, IndexError, struct.error):
            continue
        key.fileobj.sendto(answer, peer)
"#;

/// Starts servers, each as "NAME:PORT".
fn serve(pair: &Pair, at: IpAddr, servers: &str) -> Process {
    let servers = servers.split(' ');
    let mut process =
        pair.peer.command("python3").args(["-u", "-c", SERVERS, &at.to_string()]).args(servers).spawn();
    process.wait_for_stdout("up");
    process
}

const SERVICES: &str = "dns:53 ntp:123 snmpv3:161 quic:443 stun:3478 memcached:11211";

#[test]
fn services_answer_their_requests() {
    lab!("python3");
    for family in Family::ALL {
        let pair = Pair::new();
        let at = pair.peer_address(family);
        let _servers = serve(&pair, at, &format!("{SERVICES} silent:5001"));
        let line = format!("-z -u -w 1 {at} 53,123,161,443,3478,11211,5001");
        let scan = netkat(&pair.host, &line).run();
        let open = [53, 123, 161, 443, 3478, 11_211].map(|port| format!("{at} {port}/udp open\n")).concat();
        let expected = format!("{open}{at} 5001/udp open|filtered\n");
        assert_eq!((scan.code(), states(&scan.text())), (Some(0), expected), "{scan}");
    }
}

/// The second request to port 161 is for agents without SNMPv3.
#[test]
fn an_agent_without_snmpv3_answers_the_second_request() {
    lab!("python3");
    for family in Family::ALL {
        let pair = Pair::new();
        let at = pair.peer_address(family);
        let _agent = serve(&pair, at, "snmpv1:161");
        let scan = netkat(&pair.host, &format!("-z -u -w 2 {at} 161")).run();
        assert_eq!((scan.code(), scan.text()), (Some(0), format!("{at} 161/udp open\n")), "{scan}");
    }
}

/// What was sent in vain is named.
#[test]
fn a_server_of_another_protocol_stays_silent() {
    lab!("python3");
    let pair = Pair::new();
    let at = pair.peer_address(Family::V4);
    let _other = serve(&pair, at, "ntp:53");
    let scan = netkat(&pair.host, &format!("-z -u -w 400ms {at} 53")).run();
    assert_eq!((scan.code(), scan.text()), (Some(1), format!("{at} 53/udp open|filtered\n")), "{scan}");
    assert!(scan.stderr.contains("no answer to 4 DNS requests"), "{scan}");
}
