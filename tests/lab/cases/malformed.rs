//! Invalid segments, and those of an earlier connection: netkat does what Linux does, at once.
use crate::support::{
    netkat::{listening, netkat},
    process::{Command, DEADLINE, Input},
    requirements::lab,
    scan::states,
    topology::{Family, Pair, at},
};
use nix::sys::signal::Signal;
use std::time::Duration;

const PORT: u16 = 5000;

/// A stack of the test's own at 10.77.0.9 and fd77::9, behind the peer's link address: `send` and
/// `receive`.
const STACK: &str = "
import socket, struct, sys, time, select
family, me, host = sys.argv[1:4]
v6 = family == 'V6'
inet = socket.AF_INET6 if v6 else socket.AF_INET
me, host = socket.inet_pton(inet, me), socket.inet_pton(inet, host)
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind(('eth0', 0))
ours, theirs = bytes([2, 0, 0x77, 0, 0, 2]), bytes([2, 0, 0x77, 0, 0, 1])
START = 34 if not v6 else 54
SYN, ACK, FIN, RST, PSH, URG = 2, 16, 1, 4, 8, 32

def checksum(b):
    b += b'\\0' * (len(b) % 2)
    n = sum(struct.unpack('!%dH' % (len(b) // 2), b))
    while n >> 16:
        n = (n & 0xffff) + (n >> 16)
    return ~n & 0xffff

def send(sp, dp, seq, ack, flags, options=b'', data=b''):
    options += b'\\1' * (-len(options) % 4)
    offset = (5 + len(options) // 4) << 4
    t = struct.pack('!HHIIBBHHH', sp, dp, seq, ack, offset, flags, 65535, 0, 0) + options + data
    t = t[:16] + struct.pack('!H', checksum(me + host + struct.pack('!II', len(t), 6) + t)) + t[18:]
    if v6:
        ip = struct.pack('!IHBB', 6 << 28, len(t), 6, 64) + me + host
    else:
        ip = struct.pack('!BBHHHBBH', 0x45, 0, 20 + len(t), 0, 0x4000, 64, 6, 0) + me + host
        ip = ip[:10] + struct.pack('!H', checksum(ip)) + ip[12:]
    s.send(theirs + ours + (b'\\x86\\xdd' if v6 else b'\\x08\\0') + ip + t)

def receive(timeout=5):
    end = time.time() + timeout
    while select.select([s], [], [], max(0, end - time.time()))[0]:
        f, address = s.recvfrom(70000)
        to = f[38:54] if v6 else f[30:34]
        if address[2] != 4 and to == me and f[20 if v6 else 23] == 6:
            sp, dp, seq, ack, offset, flags = struct.unpack('!HHIIBB', f[START:START + 14])
            return dict(sp=sp, dp=dp, seq=seq, ack=ack, flags=flags, data=f[START + (offset >> 4) * 4:])

# Options of impossible lengths behind an MSS of 1000: length 0, length 1, beyond the header, timestamps of 6 bytes.
MALFORMED = [b'\\2\\4\\3\\xe8\\x50\\0\\1\\1', b'\\2\\4\\3\\xe8\\x50\\1\\1\\1', b'\\2\\4\\3\\xe8\\x50\\x28\\1\\1',
             b'\\2\\4\\3\\xe8\\x08\\6\\0\\0\\0\\0\\1\\1']
";

/// Returns a pair whose host knows the stack's link address.
fn pair() -> Pair {
    let pair = Pair::new();
    for stack in ["10.77.0.9", "fd77::9"] {
        pair.host.ip(&format!("neighbour add {stack} lladdr 02:00:77:00:00:02 dev eth0 nud permanent"));
    }
    pair
}

fn stack(pair: &Pair, family: Family, script: &str) -> Command {
    let (me, host) = (at(family, "10.77.0.9", "fd77::9"), pair.host_address(family));
    let arguments = [format!("{family:?}"), me.to_string(), host.to_string()];
    pair.peer
        .command("python3")
        .args(["-u", "-c", &format!("{STACK}\nprint('up')\n{script}")])
        .args(arguments)
}

#[test]
fn an_option_of_impossible_length_ends_the_options_and_not_the_segment() {
    lab!("python3");
    let pair = pair();
    for family in Family::ALL {
        let mut server = stack(
            &pair,
            family,
            "for options in MALFORMED:
    syn = receive()
    while syn['flags'] != SYN:
        syn = receive()
    send(syn['dp'], syn['sp'], 9, syn['seq'] + 1, SYN | ACK, options)",
        )
        .spawn();
        server.wait_for_stdout("up");
        for _ in 0..4 {
            let probe =
                netkat(&pair.host, &format!("-z -w 5 {} {PORT}", at(family, "10.77.0.9", "fd77::9"))).run();
            assert!(states(&probe.text()).ends_with(" open\n"), "{probe}");
        }
        server.wait(DEADLINE);
        for number in 0..4 {
            let listener = listening(&pair.host, &format!("--no-gso {PORT}"), |c| c.text(&"x".repeat(3000)));
            let client = stack(
                &pair,
                family,
                &format!(
                    "options = MALFORMED[{number}]
send(3000, {PORT}, 9, 0, SYN, options)
answer = receive()
assert answer and answer['flags'] == SYN | ACK, answer
send(3000, {PORT}, 10, answer['seq'] + 1, ACK, options)
send(3000, {PORT}, 10, answer['seq'] + 1, ACK | PSH | FIN, options, b'hello')
end = answer['seq'] + 1
while True:
    segment = receive()
    assert segment and len(segment['data']) <= 1000, segment
    assert segment['data'] or segment['ack'] in (10, 15, 16), segment
    end = max(end, segment['seq'] + len(segment['data']))
    send(3000, {PORT}, 16, end + (segment['flags'] & FIN), ACK, options)
    if segment['flags'] & FIN:
        print('done', end - answer['seq'] - 1)
        break"
                ),
            )
            .run();
            assert_eq!(client.text(), "up\ndone 3000\n", "{client}");
            let listener = listener.wait(DEADLINE);
            assert_eq!((listener.code(), listener.text().as_str()), (Some(0), "hello"), "{listener}");
        }
    }
}

#[test]
fn a_listener_answers_no_probe_without_syn_and_ack() {
    lab!("python3");
    let pair = pair();
    for family in Family::ALL {
        let listener = listening(&pair.host, &format!("{PORT}"), |c| c.input(Input::Null));
        let probes = stack(
            &pair,
            family,
            &format!(
                "for flags in (0, FIN, FIN | PSH | URG, PSH, URG, SYN | FIN, RST):
    send(3000, {PORT}, 9, 0, flags)
    answer = receive(.3)
    print(flags, answer and answer['flags'])
send(3000, {PORT}, 9, 0, SYN)
print(receive()['flags'])"
            ),
        )
        .run();
        assert_eq!(
            probes.text(),
            "up\n0 None\n1 None\n41 None\n8 None\n32 None\n3 None\n4 None\n18\n",
            "{probes}"
        );
        drop(listener);
    }
}

#[test]
fn a_challenge_ack_costs_no_second() {
    lab!("python3");
    let pair = Pair::new();
    for family in Family::ALL {
        let peer = pair.peer_address(family);
        let inet = if peer.is_ipv4() { "AF_INET" } else { "AF_INET6" };
        let script = format!(
            "import socket\n\
             s = socket.create_server(('{peer}', {PORT}), family=socket.{inet}, backlog=9)\n\
             print('up')\n\
             kept = []\n\
             while True:\n\
             \x20   kept.append(s.accept()[0])\n\
             \x20   kept[-1].sendall(b'hello')"
        );
        let mut server = pair.peer.command("python3").args(["-u", "-c", &script]).spawn();
        server.wait_for_stdout("up");
        let via = format!("-q 100ms --via {peer}");
        for (local, flags) in [(40_003, "-q 100ms"), (40_004, "-z"), (40_005, &via)] {
            let mut first =
                netkat(&pair.host, &format!("-v -p {local} {peer} {PORT}")).input(Input::Open).spawn();
            first.wait_for_stdout("hello");
            first.signal(Signal::SIGKILL);
            drop(first.wait(DEADLINE));
            let arguments = format!("{flags} -w 5 -p {local} {peer} {PORT}");
            let again = netkat(&pair.host, &arguments).input(Input::Null).run();
            assert_eq!(again.code(), Some(0), "{again}");
            assert!(again.elapsed < Duration::from_millis(900), "{again}");
        }
    }
}
