//! RFC 9293, section 3.10.7, as a table: the effect of each kind of segment in each state, inside
//! the window and outside.
//!
//! The test is the peer, by IPv4 and by IPv6, of a dialled connection and of an accepted one. A row
//! gives the rule, the segment, the answer and the user's view. Where netkat differs from the RFC,
//! the rule names the model. One difference holds for all synchronized states: the acknowledgment
//! counts in a segment a little before the window or at its right edge, which is answered all the
//! same.
#[path = "support/recording_link.rs"]
mod recording_link;
#[path = "support/settings.rs"]
mod settings;

use netkat::{
    host::metrics::Metrics,
    link::{ChecksumState, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Received},
    neighbour::Neighbour,
    net::{FiveTuple, Protocol},
    stack::{
        Admission, FlowFailure, FlowRoute, FrameResult, Listener, Phase, Stack,
        ip::{self, Fragmentation, Template},
    },
};
use recording_link::{PATH, RecordingLink, Sent, next_hop, received, seeds};
use settings::settings;
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const PSH: u8 = 8;
const ACK: u8 = 16;
const URG: u8 = 32;
const XMAS: u8 = FIN | PSH | URG;
/// The peer's initial sequence number: its numbers wrap within the window.
const IRS: u32 = 0xffff_f000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Listen,
    SynSent,
    /// SYN-RECEIVED after two SYNs that crossed.
    SynReceivedActive,
    /// A listener's record of a handshake.
    SynReceivedPassive,
    Established,
    FinWait1,
    FinWait2,
    CloseWait,
    Closing,
    LastAck,
    TimeWait,
    /// The rest of a connection that no session owns any more.
    TimeWaitRecord,
}

/// The place of a segment's sequence number.
#[derive(Clone, Copy, Debug)]
enum At {
    /// Distance from RCV.NXT.
    Next(i32),
    /// Distance from RCV.NXT + RCV.WND, the first number outside the window.
    Edge(i32),
    /// Half of the sequence space away.
    Elsewhere,
}
use At::{Edge, Elsewhere, Next};

/// The acknowledgment number of a segment.
#[derive(Clone, Copy, Debug)]
enum Acked {
    /// SND.NXT: all sent data.
    All,
    /// SND.UNA: nothing new.
    Known,
    /// A number of unsent data.
    Unsent,
    /// A number acknowledged long ago.
    Old,
}
use Acked::{All, Known, Old, Unsent};

/// The stack's answer.
#[derive(Clone, Copy, Debug)]
enum Reply {
    Nothing,
    /// `<SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>`
    Place,
    /// An ACK of this many sequence numbers more than before.
    Taken(u32),
    /// `<SEQ=SEG.ACK><CTL=RST>`
    Reset,
    /// `<SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>`
    ResetAck,
    /// A SYN-ACK of this SYN.
    SynAck,
}
use Reply::{Nothing, Place, ResetAck, SynAck, Taken};

/// The user's view of the change.
#[derive(Clone, Copy, Debug)]
enum Then {
    Same,
    /// The connection stands.
    Open,
    /// The peer has closed, and we may still send.
    PeerClosed,
    TimeWait,
    /// The connection has ended in order.
    Over,
    Refused,
    Broken,
}
use Then::{Broken, Open, Over, PeerClosed, Refused, Same};

type Row = (&'static str, u8, At, Acked, usize, Reply, Then);

/// Section 3.10.7.1.
const CLOSED: &[Row] = &[
    ("a reset is discarded", RST, Next(0), Known, 0, Nothing, Same),
    ("a reset is discarded", RST | ACK, Next(0), Known, 0, Nothing, Same),
    ("with ACK", ACK, Next(0), All, 0, Reply::Reset, Same),
    ("with ACK", ACK, Next(0), All, 4, Reply::Reset, Same),
    ("with ACK", SYN | ACK, Next(0), All, 0, Reply::Reset, Same),
    ("with ACK", FIN | ACK, Next(0), All, 0, Reply::Reset, Same),
    ("without ACK", SYN, Next(0), Known, 0, ResetAck, Same),
    ("without ACK", FIN, Next(0), Known, 0, ResetAck, Same),
    ("without ACK", 0, Next(0), Known, 0, ResetAck, Same),
    ("without ACK", 0, Next(0), Known, 4, ResetAck, Same),
    ("without ACK", XMAS, Next(0), Known, 0, ResetAck, Same),
];

/// Section 3.10.7.2.
const LISTEN: &[Row] = &[
    ("first: a reset is ignored", RST, Next(0), Known, 0, Nothing, Same),
    ("first: a reset is ignored", RST | ACK, Next(0), All, 0, Nothing, Same),
    ("first: a reset is ignored", RST | SYN, Next(0), All, 0, Nothing, Same),
    ("second: any ACK is bad", ACK, Next(0), All, 0, Reply::Reset, Same),
    ("second: any ACK is bad", ACK, Next(0), All, 4, Reply::Reset, Same),
    ("second: any ACK is bad", SYN | ACK, Next(0), All, 0, Reply::Reset, Same),
    ("second: any ACK is bad", FIN | ACK, Next(0), All, 0, Reply::Reset, Same),
    ("third: a SYN is answered", SYN, Next(0), Known, 0, SynAck, Same),
    ("third: its text is left for later", SYN, Next(0), Known, 4, SynAck, Same),
    ("Linux drops a SYN with a FIN", SYN | FIN, Next(0), Known, 0, Nothing, Same),
    ("fourth: anything else is dropped", 0, Next(0), Known, 0, Nothing, Same),
    ("fourth: anything else is dropped", 0, Next(0), Known, 4, Nothing, Same),
    ("fourth: anything else is dropped", FIN, Next(0), Known, 0, Nothing, Same),
    ("fourth: anything else is dropped", XMAS, Next(0), Known, 0, Nothing, Same),
];

/// Section 3.10.7.3.
const SYN_SENT: &[Row] = &[
    ("first: an unacceptable ACK", ACK, Next(0), Unsent, 0, Reply::Reset, Same),
    ("first: an unacceptable ACK", ACK, Next(0), Old, 0, Reply::Reset, Same),
    ("first: an unacceptable ACK", ACK | PSH, Next(0), Unsent, 4, Reply::Reset, Same),
    ("first: an unacceptable ACK", FIN | ACK, Next(0), Unsent, 0, Reply::Reset, Same),
    ("first: an unacceptable ACK", FIN | ACK, Next(0), Unsent, 4, Reply::Reset, Same),
    ("first: an unacceptable ACK", SYN | ACK, Next(0), Unsent, 0, Reply::Reset, Same),
    ("first: an unacceptable ACK", SYN | FIN | ACK, Next(0), Unsent, 0, Reply::Reset, Same),
    ("first: unless a RST", RST | ACK, Next(0), Unsent, 0, Nothing, Same),
    ("second: a RST that acknowledges our SYN", RST | ACK, Next(0), All, 0, Nothing, Refused),
    ("second: before the SYN is looked at", RST | SYN | ACK, Next(0), All, 0, Nothing, Refused),
    ("second: a RST that acknowledges nothing", RST, Next(0), Known, 0, Nothing, Same),
    ("second: a RST that acknowledges nothing", RST | SYN, Next(0), Known, 0, Nothing, Same),
    ("fourth: a SYN-ACK", SYN | ACK, Next(0), All, 0, Taken(1), Open),
    ("fourth: then its text", SYN | ACK, Next(0), All, 4, Taken(5), Open),
    ("fourth: then its FIN", SYN | FIN | ACK, Next(0), All, 0, Taken(2), PeerClosed),
    ("fourth: then text and FIN", SYN | FIN | ACK | PSH, Next(0), All, 4, Taken(6), PeerClosed),
    ("fourth: a SYN", SYN, Next(0), Known, 0, SynAck, Same),
    ("fourth: the peer repeats its text and FIN", SYN | FIN, Next(0), Known, 4, SynAck, Same),
    ("fifth: neither SYN nor RST", ACK, Next(0), All, 0, Nothing, Same),
    ("fifth: neither SYN nor RST", ACK, Next(0), All, 4, Nothing, Same),
    ("fifth: neither SYN nor RST", FIN | ACK, Next(0), All, 0, Nothing, Same),
    ("fifth: neither SYN nor RST", 0, Next(0), Known, 0, Nothing, Same),
    ("fifth: neither SYN nor RST", FIN, Next(0), Known, 0, Nothing, Same),
    ("fifth: neither SYN nor RST", XMAS, Next(0), Known, 4, Nothing, Same),
];

/// Section 3.10.7.4, for SYN-RECEIVED, by either entry.
const SYN_RECEIVED: &[Row] = &[
    ("first: not acceptable", ACK, Next(-1), All, 0, Place, Same),
    ("first: not acceptable", ACK, Edge(0), All, 0, Place, Same),
    ("first: not acceptable", ACK, Elsewhere, All, 0, Place, Same),
    ("first: not acceptable", ACK, Edge(0), All, 4, Place, Same),
    ("first: not acceptable", FIN | ACK, Next(-1), All, 0, Place, Same),
    ("first: not acceptable", 0, Edge(0), Known, 0, Place, Same),
    ("first: not acceptable", XMAS, Next(-1), Known, 0, Place, Same),
    ("first: not acceptable", SYN, Edge(0), Known, 0, Place, Same),
    ("first: not acceptable", SYN, Next(-2), Known, 0, Place, Same),
    ("second: RST at RCV.NXT", RST | ACK, Next(0), All, 0, Nothing, Refused),
    ("second: before the SYN is looked at", RST | SYN, Next(0), Known, 0, Nothing, Refused),
    ("second: RST at RCV.NXT", RST, Next(0), Known, 0, Nothing, Refused),
    ("second: RST in the window", RST, Next(1), Known, 0, Place, Same),
    ("second: RST in the window", RST | ACK, Next(1000), All, 0, Place, Same),
    ("second: RST in the window", RST, Edge(-1), Known, 0, Place, Same),
    ("second: RST outside", RST, Edge(0), Known, 0, Nothing, Same),
    ("second: RST outside", RST, Next(-1), Known, 0, Nothing, Same),
    ("second: RST outside", RST | ACK, Elsewhere, All, 0, Nothing, Same),
    ("fourth: RFC 5961, section 4", SYN | ACK, Next(0), All, 0, Place, Same),
    ("fifth: no ACK", 0, Next(0), Known, 0, Nothing, Same),
    ("fifth: no ACK", 0, Next(0), Known, 4, Nothing, Same),
    ("fifth: no ACK", FIN, Next(0), Known, 0, Nothing, Same),
    ("fifth: an unacceptable ACK", ACK, Next(0), Unsent, 0, Reply::Reset, Same),
    ("fifth: an unacceptable ACK", ACK, Next(0), Old, 4, Reply::Reset, Same),
    ("fifth: an unacceptable ACK", FIN | ACK, Next(0), Unsent, 0, Reply::Reset, Same),
    ("3.5.2, group 2: wherever it lies", ACK, Edge(0), Unsent, 0, Reply::Reset, Same),
    ("fifth: the ACK of our SYN", ACK, Next(0), All, 0, Nothing, Open),
    ("seventh: then its text", ACK | PSH, Next(0), All, 4, Taken(4), Open),
    ("eighth: then its FIN", FIN | ACK, Next(0), All, 0, Taken(1), PeerClosed),
    ("fifth: the ACK of our SYN, ahead of others", ACK, Edge(-1), All, 0, Nothing, Open),
];
const SYN_RECEIVED_ACTIVE: &[Row] = &[
    ("fourth: RFC 5961, section 4", SYN, Next(0), Known, 0, Place, Same),
    ("first: the SYN once more", SYN, Next(-1), Known, 0, Place, Same),
    ("3.5, figure 8: the SYN once more, with an ACK", SYN | ACK, Next(-1), All, 0, Nothing, Open),
];
const SYN_RECEIVED_PASSIVE: &[Row] = &[
    ("fourth: back to LISTEN, at once", SYN, Next(100), Known, 0, SynAck, Same),
    ("Linux repeats the SYN-ACK for the SYN once more", SYN, Next(-1), Known, 0, SynAck, Same),
    ("first: not acceptable", SYN | ACK, Next(-1), All, 0, Place, Same),
];

/// Section 3.10.7.4, for all synchronized states.
const SYNCHRONIZED: &[Row] = &[
    ("first: a keep-alive", ACK, Next(-1), Known, 0, Place, Same),
    ("first: not acceptable", ACK, Next(-1000), Known, 0, Place, Same),
    ("first: not acceptable", ACK, Edge(0), Known, 0, Place, Same),
    ("first: not acceptable", ACK, Edge(1000), Known, 0, Place, Same),
    ("first: not acceptable", ACK, Elsewhere, Known, 0, Place, Same),
    ("first: not acceptable", ACK, Next(-4), Known, 4, Place, Same),
    ("first: not acceptable", ACK, Edge(0), Known, 4, Place, Same),
    ("first: not acceptable", ACK, Elsewhere, Known, 4, Place, Same),
    ("first: not acceptable", FIN | ACK, Next(-1), Known, 0, Place, Same),
    ("first: not acceptable", FIN | ACK, Edge(0), Known, 0, Place, Same),
    ("first: not acceptable", FIN | ACK, Elsewhere, Known, 0, Place, Same),
    ("first: not acceptable", 0, Edge(0), Known, 0, Place, Same),
    ("first: not acceptable", 0, Next(-1), Known, 0, Place, Same),
    ("first: not acceptable", XMAS, Elsewhere, Known, 0, Place, Same),
    ("first: acceptable", ACK, Next(0), Known, 0, Nothing, Same),
    ("first: acceptable", ACK, Edge(-1), Known, 0, Nothing, Same),
    ("second: RST in the window", RST, Next(1), Known, 0, Place, Same),
    ("second: RST in the window", RST | ACK, Next(1000), Known, 0, Place, Same),
    ("second: RST in the window", RST, Edge(-1), Known, 0, Place, Same),
    ("second: RST outside", RST, Edge(0), Known, 0, Nothing, Same),
    ("second: RST outside", RST, Next(-1), Known, 0, Nothing, Same),
    ("second: RST outside", RST | ACK, Elsewhere, Known, 0, Nothing, Same),
    ("fourth: RFC 5961, section 4", SYN, Next(0), Known, 0, Place, Same),
    ("fourth: RFC 5961, section 4", SYN, Next(1000), Known, 0, Place, Same),
    ("fourth: RFC 5961, section 4", SYN, Next(-1000), Known, 0, Place, Same),
    ("fourth: RFC 5961, section 4", SYN, Elsewhere, Known, 0, Place, Same),
    ("fourth: RFC 5961, section 4", SYN | ACK, Next(-1), Known, 0, Place, Same),
    ("fourth: RFC 5961, section 4", SYN | ACK, Next(0), All, 4, Place, Same),
    ("fifth: no ACK", 0, Next(0), Known, 0, Nothing, Same),
    ("fifth: no ACK", 0, Next(0), Known, 4, Nothing, Same),
    ("fifth: no ACK", FIN, Next(0), Known, 0, Nothing, Same),
    ("fifth: no ACK", XMAS, Next(0), Known, 4, Nothing, Same),
    ("fifth: an ACK of what was not sent", ACK, Next(0), Unsent, 0, Place, Same),
    ("fifth: an ACK of what was not sent", ACK, Next(0), Unsent, 4, Place, Same),
    ("fifth: an ACK of what was not sent", FIN | ACK, Next(0), Unsent, 0, Place, Same),
    ("fifth: RFC 5961, section 5", ACK, Next(0), Old, 4, Place, Same),
];
const RESET: &[Row] = &[
    ("second: RST at RCV.NXT", RST, Next(0), Known, 0, Nothing, Broken),
    ("second: RST at RCV.NXT", RST | ACK, Next(0), All, 0, Nothing, Broken),
    ("second: before the SYN is looked at", RST | SYN | FIN, Next(0), Known, 0, Nothing, Broken),
];
const ESTABLISHED: &[Row] = &[
    ("seventh: text", ACK, Next(0), All, 4, Taken(4), Same),
    ("seventh: text of which a part is new", ACK, Next(-2), All, 4, Taken(2), Same),
    ("seventh: text out of order", ACK, Next(1000), All, 4, Place, Same),
    ("eighth: FIN", FIN | ACK, Next(0), All, 0, Taken(1), PeerClosed),
    ("eighth: text and FIN", FIN | ACK, Next(0), All, 4, Taken(5), PeerClosed),
    ("eighth: a FIN out of order", FIN | ACK, Next(1000), All, 0, Place, Same),
];
const FIN_WAIT_1: &[Row] = &[
    ("fifth: our FIN is acknowledged", ACK, Next(0), All, 0, Nothing, Same),
    ("seventh: text", ACK, Next(0), Known, 4, Taken(4), Same),
    ("eighth: to CLOSING", FIN | ACK, Next(0), Known, 0, Taken(1), PeerClosed),
    ("eighth: to TIME-WAIT", FIN | ACK, Next(0), All, 0, Taken(1), Then::TimeWait),
    ("eighth: a FIN out of order", FIN | ACK, Next(1000), All, 0, Place, Same),
];
const FIN_WAIT_2: &[Row] = &[
    ("seventh: text", ACK, Next(0), All, 4, Taken(4), Same),
    ("eighth: to TIME-WAIT", FIN | ACK, Next(0), All, 0, Taken(1), Then::TimeWait),
    ("eighth: text, and to TIME-WAIT", FIN | ACK, Next(0), All, 4, Taken(5), Then::TimeWait),
];
/// Behind the peer's FIN.
const FINISHED: &[Row] = &[
    ("seventh: text is ignored", ACK, Next(0), Known, 4, Place, Same),
    ("eighth: a FIN is ignored", FIN | ACK, Next(0), Known, 0, Place, Same),
];
const CLOSING: &[Row] = &[("fifth: to TIME-WAIT", ACK, Next(0), All, 0, Nothing, Then::TimeWait)];
const LAST_ACK: &[Row] = &[("fifth: to CLOSED", ACK, Next(0), All, 0, Nothing, Over)];
const TIME_WAIT: &[Row] = &[("second: RST at RCV.NXT", RST, Next(0), Known, 0, Nothing, Over)];
/// A record has no window: RCV.NXT is the only valid number, as in Linux's
/// tcp_timewait_state_process().
const TIME_WAIT_RECORD: &[Row] = &[
    ("first: not acceptable", ACK, Next(-1), All, 0, Place, Same),
    ("first: not acceptable", ACK, Next(1000), All, 0, Place, Same),
    ("first: not acceptable", ACK, Edge(0), All, 0, Place, Same),
    ("first: not acceptable", ACK, Elsewhere, All, 0, Place, Same),
    ("first: not acceptable", ACK, Next(-4), All, 4, Place, Same),
    ("first: not acceptable", 0, Next(-1), Known, 0, Place, Same),
    ("first: acceptable", ACK, Next(0), All, 0, Nothing, Same),
    ("second: RFC 1337", RST, Next(0), Known, 0, Nothing, Same),
    ("second: RST outside", RST, Edge(0), Known, 0, Nothing, Same),
    ("fourth: an old SYN", SYN, Next(-2), Known, 0, Place, Same),
    ("fourth: a SYN-ACK", SYN | ACK, Next(0), All, 0, Place, Same),
    ("fourth: RFC 1122, 4.2.2.13: a SYN that is new", SYN, Next(1), Known, 0, SynAck, Same),
    ("fifth: no ACK", 0, Next(0), Known, 0, Nothing, Same),
    ("eighth: the FIN once more", FIN | ACK, Next(-1), All, 0, Place, Same),
];

/// A connection as the user sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct View {
    phase: Option<Phase>,
    failure: Option<FlowFailure>,
    time_wait: bool,
    peer_finished: bool,
}

struct World {
    stack: Stack,
    wire: RecordingLink,
    now: Duration,
    tuple: FiveTuple,
    /// SND.UNA, SND.NXT, RCV.NXT and RCV.WND.
    una: u32,
    nxt: u32,
    expected: u32,
    window: u32,
}

impl World {
    fn new(v6: bool) -> World {
        let ip = |last: u8| -> IpAddr {
            if v6 { [0xfd00, 0, 0, 0, 0, 0, 0, u16::from(last)].into() } else { [10, 0, 0, last].into() }
        };
        let stack = Stack::new(
            // The receive buffer exceeds a window field without scaling.
            settings(1 << 16, 1 << 20),
            seeds(),
        );
        World {
            stack,
            wire: RecordingLink::default(),
            now: Duration::from_secs(1),
            tuple: FiveTuple {
                protocol: Protocol::Tcp,
                local: SocketAddr::new(ip(1), 80),
                remote: SocketAddr::new(ip(2), 4000),
            },
            una: 1_000_000,
            nxt: 1_000_000,
            expected: IRS,
            window: 0xffff,
        }
    }

    /// Returns a connection in this state, dialled or `accepted`; `None` where there is no such
    /// connection.
    fn reach(state: State, accepted: bool, v6: bool) -> Option<World> {
        let mut world = World::new(v6);
        if accepted || state == State::TimeWaitRecord {
            let gate = Box::new(|_| Admission::Accept);
            let paths = HashMap::from([(1, PATH)]);
            world.stack.listen(Listener { backlog: 4, half_open: 4, gate, paths });
        }
        match (state, accepted) {
            (State::Closed, false) | (State::Listen, true) => return Some(world),
            (State::Closed | State::SynSent | State::SynReceivedActive, true)
            | (State::Listen | State::SynReceivedPassive, false) => return None,
            (_, true) => world.peer(SYN, Next(0), Known, 0),
            (_, false) => world.dial(),
        }
        let first = world.sent()[0];
        (world.una, world.nxt) = (first.sequence.wrapping_add(1), first.sequence.wrapping_add(1));
        match state {
            State::SynSent => return Some(world),
            State::SynReceivedActive => {
                world.peer(SYN, Next(0), Known, 0);
                world.sent();
                world.expected = IRS.wrapping_add(1);
                return Some(world);
            }
            _ => {}
        }
        if !accepted {
            world.peer(SYN | ACK, Next(0), All, 0);
        }
        world.expected = IRS.wrapping_add(1);
        if state == State::SynReceivedPassive {
            return Some(world);
        }
        if accepted {
            world.peer(ACK, Next(0), All, 0);
            assert_eq!(world.stack.accept(), Some(world.tuple));
        }
        world.sent();
        let peer_fin = |world: &mut World, acked| {
            world.peer(FIN | ACK, Next(0), acked, 0);
            world.sent();
            world.expected = world.expected.wrapping_add(1);
        };
        let close = |world: &mut World| {
            world.stack.flow(&world.tuple).expect("a flow").close();
            assert_eq!(world.sent().iter().map(|sent| sent.flags).collect::<Vec<_>>(), [FIN | ACK]);
            world.nxt = world.nxt.wrapping_add(1);
        };
        let acked = |world: &mut World| {
            world.peer(ACK, Next(0), All, 0);
            assert_eq!(world.sent(), []);
            world.una = world.nxt;
        };
        match state {
            State::FinWait1 => close(&mut world),
            State::FinWait2 | State::TimeWait => {
                close(&mut world);
                acked(&mut world);
                if state == State::TimeWait {
                    peer_fin(&mut world, All);
                }
            }
            State::CloseWait => peer_fin(&mut world, All),
            State::Closing => {
                close(&mut world);
                peer_fin(&mut world, Known);
            }
            State::LastAck => {
                peer_fin(&mut world, All);
                close(&mut world);
            }
            State::TimeWaitRecord => {
                world.stack.release(world.now, &world.tuple);
                assert_eq!(world.sent().len(), 1);
                world.nxt = world.nxt.wrapping_add(1);
                acked(&mut world);
                peer_fin(&mut world, All);
                assert!(world.stack.peek(&world.tuple).is_none(), "a record is all that is left");
            }
            _ => {}
        }
        Some(world)
    }

    fn dial(&mut self) {
        let (next_hop, metrics) = (next_hop(1, 2), Metrics::default());
        let route = FlowRoute { next_hop, neighbour: Neighbour::Fixed, path: PATH, metrics };
        self.stack.dial(self.now, self.tuple, route);
    }

    fn sequence(&self, at: At) -> u32 {
        match at {
            Next(far) => self.expected.wrapping_add_signed(far),
            Edge(far) => self.expected.wrapping_add(self.window).wrapping_add_signed(far),
            Elsewhere => self.expected.wrapping_add(1 << 31),
        }
    }

    fn acknowledgment(&self, acked: Acked) -> u32 {
        match acked {
            All => self.nxt,
            Known => self.una,
            Unsent => self.nxt.wrapping_add(1),
            Old => self.una.wrapping_sub(70_000),
        }
    }

    /// Sends a segment as the peer.
    fn peer(&mut self, flags: u8, at: At, acked: Acked, text: usize) {
        let (local, remote) = (self.tuple.local, self.tuple.remote);
        let mut tcp = [remote.port().to_be_bytes(), local.port().to_be_bytes()].concat();
        tcp.extend(self.sequence(at).to_be_bytes());
        let acknowledgment = if flags & ACK == 0 { 0 } else { self.acknowledgment(acked) };
        tcp.extend(acknowledgment.to_be_bytes());
        tcp.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
        tcp.extend(vec![b'x'; text]);
        let sum = ip::pseudo_header(remote.ip(), local.ip(), ip::TCP, tcp.len()).add(&tcp).checksum();
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        let template = Template {
            source: remote.ip(),
            destination: local.ip(),
            protocol: ip::TCP,
            hop_limit: 64,
            traffic_class: 0,
            flow_label: 0,
        };
        let mut headers = [0; 64];
        let len = template.write(tcp.len(), 1, Fragmentation::Forbidden, &mut headers);
        let mut frame = [&[0; 14], &headers[..len], &tcp].concat();
        let ethertype = if local.is_ipv4() { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
        let received = Received {
            checksum: ChecksumState::Unverified,
            ..received(next_hop(1, 2), &mut frame, 14, ethertype)
        };
        assert_eq!(self.stack.ingress(self.now, received), FrameResult::Done);
    }

    /// Returns the segments that the stack sends now, without PSH.
    fn sent(&mut self) -> Vec<Sent> {
        while self.stack.egress(self.now, &mut self.wire).expect("the wire does not fail") {}
        let mut sent = std::mem::take(&mut self.wire.0);
        sent.iter_mut().for_each(|sent| sent.flags &= !PSH);
        if let Some(last) = sent.iter().rfind(|sent| sent.flags & ACK != 0) {
            self.window = last.window.into();
        }
        sent
    }

    /// Reads as the user. Returns the number of bytes.
    fn read(&mut self) -> usize {
        let Some(flow) = self.stack.flow(&self.tuple) else { return 0 };
        let waiting = flow.received();
        while flow.received() > 0 {
            flow.receive(usize::MAX, |bytes| Ok(bytes.len())).expect("a test takes everything");
        }
        waiting
    }

    fn view(&self) -> View {
        let flow = self.stack.peek(&self.tuple);
        View {
            phase: flow.map(|flow| flow.phase()),
            failure: flow.and_then(|flow| flow.failure().cloned()),
            time_wait: flow.is_some_and(|flow| flow.in_time_wait()),
            peer_finished: flow.is_some_and(|flow| flow.peer_finished()),
        }
    }

    /// Checks one row.
    fn check(mut self, row: &Row, context: &str) {
        let (_, flags, at, acked, text, reply, then) = *row;
        let (sequence, acknowledgment) = (self.sequence(at), self.acknowledgment(acked));
        let len = text as u32 + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        let before = self.view();
        self.peer(flags, at, acked, text);
        let sent = self.sent();
        let told: Vec<_> = sent.iter().map(|s| (s.flags, s.sequence, s.acknowledgment)).collect();
        match reply {
            Nothing => assert_eq!(told, [], "{context}"),
            Place => assert_eq!(told, [(ACK, self.nxt, self.expected)], "{context}"),
            Taken(more) => {
                assert_eq!(told, [(ACK, self.nxt, self.expected.wrapping_add(more))], "{context}");
            }
            Reply::Reset => assert_eq!(told, [(RST, acknowledgment, 0)], "{context}"),
            ResetAck => assert_eq!(told, [(RST | ACK, 0, sequence.wrapping_add(len))], "{context}"),
            SynAck => {
                let told: Vec<_> = told.iter().map(|(flags, _, ack)| (*flags, *ack)).collect();
                assert_eq!(told, [(SYN | ACK, sequence.wrapping_add(1))], "{context}");
            }
        }
        let accepted = self.stack.accept();
        let read = self.read();
        let new = match reply {
            Taken(_) => text.saturating_add_signed(if let Next(far) = at { far.min(0) as isize } else { 0 }),
            _ => 0,
        };
        assert_eq!(read, new, "text that the user gets: {context}");
        let view = self.view();
        let open =
            |peer_finished| View { phase: Some(Phase::Open), failure: None, time_wait: false, peer_finished };
        let closed = |failure, time_wait| View {
            phase: Some(Phase::Closed),
            failure,
            time_wait,
            peer_finished: view.peer_finished,
        };
        match then {
            // The user did not know of a listener's record yet.
            Refused if before.phase.is_none() => {
                assert_eq!(view, before, "{context}");
                self.peer(ACK, Next(0), All, 0);
                assert_eq!(self.sent().iter().map(|sent| sent.flags).collect::<Vec<_>>(), [RST], "{context}");
            }
            Same => assert_eq!((view, accepted), (before, None), "{context}"),
            Open => assert_eq!(view, open(false), "{context}"),
            PeerClosed => assert_eq!(view, open(true), "{context}"),
            Then::TimeWait => assert_eq!(view, closed(None, true), "{context}"),
            Over => assert_eq!(view, closed(None, false), "{context}"),
            Refused => assert_eq!(view, closed(Some(FlowFailure::Refused), false), "{context}"),
            Broken => assert_eq!(view, closed(Some(FlowFailure::Reset), false), "{context}"),
        }
    }
}

fn hold(state: State, tables: &[&[Row]]) {
    let mut ways = 0;
    for (accepted, v6) in [(false, false), (false, true), (true, false), (true, true)] {
        for row in tables.iter().copied().flatten() {
            let Some(world) = World::reach(state, accepted, v6) else { continue };
            let family = if v6 { 6 } else { 4 };
            let way = if accepted { "accepted" } else { "dialled" };
            world.check(row, &format!("{state:?}, {way}, IPv{family}: {row:?}"));
            ways += 1;
        }
    }
    assert!(ways > 0, "{state:?} was never reached");
}

#[test]
fn closed() {
    hold(State::Closed, &[CLOSED]);
}

#[test]
fn listen() {
    hold(State::Listen, &[LISTEN]);
}

#[test]
fn syn_sent() {
    hold(State::SynSent, &[SYN_SENT]);
}

/// A server retransmits the SYN-ACK of an earlier connection of the same five-tuple, which may
/// arrive before our SYN leaves.
#[test]
fn a_syn_ack_before_our_syn_has_left_is_not_the_answer_to_it() {
    for v6 in [false, true] {
        let mut world = World::new(v6);
        world.dial();
        world.peer(SYN | ACK, Next(5000), Unsent, 0);
        let syn =
            world.sent().into_iter().find(|sent| sent.flags & !(1 << 6 | 1 << 7) == SYN).expect("our SYN");
        (world.una, world.nxt) = (syn.sequence.wrapping_add(1), syn.sequence.wrapping_add(1));
        world.peer(SYN | ACK, Next(0), All, 0);
        let sent = world.sent();
        assert_eq!(
            sent.last().map(|sent| (sent.flags, sent.acknowledgment)),
            Some((ACK, IRS.wrapping_add(1)))
        );
        assert_eq!(world.view().phase, Some(Phase::Open), "IPv6: {v6}");
    }
}

#[test]
fn syn_received() {
    hold(State::SynReceivedActive, &[SYN_RECEIVED, SYN_RECEIVED_ACTIVE]);
    hold(State::SynReceivedPassive, &[SYN_RECEIVED, SYN_RECEIVED_PASSIVE]);
}

#[test]
fn established() {
    hold(State::Established, &[SYNCHRONIZED, RESET, ESTABLISHED]);
}

#[test]
fn fin_wait() {
    hold(State::FinWait1, &[SYNCHRONIZED, RESET, FIN_WAIT_1]);
    hold(State::FinWait2, &[SYNCHRONIZED, RESET, FIN_WAIT_2]);
}

#[test]
fn close_wait() {
    hold(State::CloseWait, &[SYNCHRONIZED, RESET, FINISHED]);
}

#[test]
fn closing() {
    hold(State::Closing, &[SYNCHRONIZED, RESET, FINISHED, CLOSING]);
}

#[test]
fn last_ack() {
    hold(State::LastAck, &[SYNCHRONIZED, RESET, FINISHED, LAST_ACK]);
}

#[test]
fn time_wait() {
    hold(State::TimeWait, &[SYNCHRONIZED, FINISHED, TIME_WAIT]);
    hold(State::TimeWaitRecord, &[TIME_WAIT_RECORD]);
}
