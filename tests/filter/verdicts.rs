//! Compares the verdict on every packet with tcpdump's, for the expressions of a list and for random ones.
use super::{
    packets::{Frame, LINK_TYPES, Random, frames},
    tcpdump::{Capture, is_available, passing},
};
use netkat::{
    host::resolve::{Family, Names},
    sniffer::{
        CapturedFrame, FrameDirection, LinkType,
        filter::{Filter, Frames, Program},
    },
};
use std::{collections::BTreeSet, time::Duration};

/// The expressions, one a line.
const LIST: &str = include_str!("expressions");

pub fn list() -> Vec<&'static str> {
    LIST.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

fn compile(expression: &str, link_type: LinkType) -> Result<Program, String> {
    let filter = Filter::parse(expression)
        .and_then(|filter| filter.resolve(Family::Any, Names::Numeric, &|_| Vec::new()));
    filter.and_then(|filter| filter.compile(Frames::Recorded(link_type))).map_err(|error| error.to_string())
}

pub fn ours(program: &Program, link_type: LinkType, frames: &[Frame]) -> BTreeSet<usize> {
    let passes = |frame: &Frame| {
        let captured = CapturedFrame {
            length: frame.length,
            ..CapturedFrame::new(Duration::ZERO, direction(link_type, &frame.bytes), link_type, &frame.bytes)
        };
        program.passes(&captured)
    };
    frames.iter().enumerate().filter(|(_, frame)| passes(frame)).map(|(number, _)| number).collect()
}

/// Returns the direction that a cooked header tells.
fn direction(link_type: LinkType, bytes: &[u8]) -> FrameDirection {
    let sent = match link_type {
        LinkType::LinuxCooked1 => bytes.starts_with(&[0, 4]),
        LinkType::LinuxCooked2 => bytes.get(10) == Some(&4),
        _ => false,
    };
    if sent { FrameDirection::Outbound } else { FrameDirection::Inbound }
}

/// Compares expressions on the frames of each link type. Returns the faults, the comparisons, and the
/// verdicts that let a packet pass.
///
/// libpcap's optimizer reorders tests: a load beyond the end of a cut packet, which rejects it, then comes
/// later or not at all. There the verdict without the optimizer counts, too.
fn compare(expressions: &[String], (link_type, number): (LinkType, u32)) -> (Vec<String>, usize, usize) {
    let frames = frames(link_type);
    let name = format!("{number}-{}", expressions.len());
    let capture = Capture::new(&name, number, &frames);
    let (mut faults, mut compared, mut passed) = (Vec::new(), 0, 0);
    for expression in expressions {
        let ours = compile(expression, link_type).map(|program| ours(&program, link_type, &frames));
        match (passing(capture.path(), expression, true), ours) {
            (Ok(theirs), Ok(ours)) => {
                compared += frames.len();
                passed += ours.len();
                let mut differing: Vec<_> = theirs.symmetric_difference(&ours).collect();
                if !differing.is_empty() {
                    let literal = passing(capture.path(), expression, false).expect("it was taken before");
                    differing.retain(|number| literal.contains(number) != ours.contains(number));
                }
                if let Some(first) = differing.first() {
                    let Frame { bytes, length } = &frames[**first];
                    faults.push(format!(
                        "{link_type:?} {} frames differ; tcpdump passes {first}: {}; {bytes:02x?} of {length}: {expression}",
                        differing.len(),
                        theirs.contains(first)
                    ));
                }
            }
            (Err(_), Err(_)) => {}
            (Ok(_), Err(error)) => faults.push(format!("{link_type:?} {expression}: refused: {error}")),
            (Err(error), Ok(_)) => {
                faults.push(format!("{link_type:?} {expression}: tcpdump refuses: {error}"))
            }
        }
    }
    (faults, compared, passed)
}

fn compare_all(expressions: &[String]) {
    if !is_available() {
        return;
    }
    let threads = LINK_TYPES.map(|link| {
        let expressions = expressions.to_vec();
        std::thread::spawn(move || compare(&expressions, link))
    });
    let results = threads.map(|thread| thread.join().expect("a comparison"));
    let faults: Vec<String> = results.iter().flat_map(|(faults, ..)| faults.clone()).collect();
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    let total = |count: fn(&(Vec<String>, usize, usize)) -> usize| results.iter().map(count).sum::<usize>();
    let (compared, passed) = (total(|result| result.1), total(|result| result.2));
    eprintln!("{} expressions, {compared} verdicts, {passed} of them let a packet pass", expressions.len());
    assert!(passed > compared / 20, "the packets tell too little: {passed} of {compared}");
}

#[test]
fn verdicts_are_those_of_tcpdump() {
    let expressions: Vec<String> = list().into_iter().map(str::to_owned).collect();
    assert!(expressions.len() > 300, "{}", expressions.len());
    compare_all(&expressions);
}

#[test]
fn verdicts_on_random_expressions_are_those_of_tcpdump() {
    let mut list = list();
    list.retain(|expression| compile(expression, LinkType::Ethernet).is_ok());
    let mut random = Random(7);
    let expressions: Vec<String> = (0..120).map(|_| combined(&list, &mut random, 1)).collect();
    compare_all(&expressions);
}

/// Connects expressions of the list at random.
fn combined(list: &[&str], random: &mut Random, depth: usize) -> String {
    let operand = |random: &mut Random| match depth {
        0 => format!("({})", list[random.below(list.len())]),
        _ => format!("({})", combined(list, random, depth - 1)),
    };
    let mut text = operand(random);
    for _ in 0..1 + random.below(3) {
        let connective = [" and ", " or ", " && ", " || ", " and not ", " or ! "][random.below(6)];
        text = text + connective + &operand(random);
    }
    text
}
