//! tcpdump's flags, which `--sniff` and `--read` take in tcpdump's meaning.
//!
//! Some letters mean other things to nc: -w, -s, -l, -x, -t, -c. So beside --sniff or --read, tcpdump's
//! letters become netkat's long flags before the command line is parsed, or are refused with netkat's own
//! way. -i, -n, -v, -4 and -6 mean the same to both; -d, -u and -p stay netkat's.
use std::ffi::{OsStr, OsString};

/// The translation of a letter of tcpdump.
#[derive(Clone, Copy)]
enum Meaning {
    /// A long flag of netkat.
    Flag(&'static str),
    /// A long flag of netkat with the value.
    Value(&'static str),
    /// A netkat flag of this letter.
    Same,
    /// A netkat flag of this letter, with a value.
    SameWithValue,
    /// A form of a long flag, by the number of times that the letter is given.
    Counted(&'static str, &'static [&'static str]),
    /// netkat does so anyway.
    Default,
    /// Advice on netkat's own way.
    Refused(&'static str),
}
use Meaning::{Counted, Default, Flag, Refused, Same, SameWithValue, Value};

const ROTATION: &str =
    "files are not rotated; end a capture by --count N or by timeout(1), or split its file with editcap";
const CLOCK: &str = "times are the kernel's, in nanoseconds in files and in JSON";

const LETTERS: [(&[u8], Meaning); 34] = [
    (b"c", Value("--count")),
    (b"w", Value("--pcap")),
    (b"r", Value("--read")),
    (b"s", Value("--snapshot-length")),
    (b"e", Flag("--link-header")),
    (b"D", Flag("--list-interfaces")),
    (b"S", Flag("--absolute-tcp-sequence-numbers")),
    (b"x", Counted("--dump", &["x", "xx"])),
    (b"X", Counted("--dump", &["X", "XX"])),
    (b"A", Counted("--dump", &["A", "AA"])),
    (b"t", Counted("--time", &["none", "epoch", "delta", "date", "elapsed"])),
    (b"n", Counted("--numeric", &[])),
    (b"v46duh", Same),
    (b"ip", SameWithValue),
    // Lines and files are flushed before netkat waits; checksums are never verified.
    (b"lUKONf", Default),
    (b"q", Refused("lines have one length; take what you need of --json")),
    (b"Q", Refused("a direction is a word of the filter: inbound or outbound")),
    (b"F", Refused("give the filter as an argument: \"$(cat FILE)\"")),
    (b"V", Refused("one file is read; join several with mergecap")),
    (b"C", Refused(ROTATION)),
    (b"G", Refused(ROTATION)),
    (b"W", Refused(ROTATION)),
    (b"z", Refused("no command is run on files; run it behind netkat")),
    (
        b"Z",
        Refused(
            "netkat goes on as the user who called sudo, or as nobody, by itself; --no-sandbox keeps the user",
        ),
    ),
    (b"B", Refused("the receive buffer is sized by the memory that there is")),
    (b"I", Refused("802.11 frames are not a format that netkat reads")),
    (b"j", Refused(CLOCK)),
    (b"J", Refused(CLOCK)),
    (b"y", Refused("frames have their interface's own link type")),
    (b"L", Refused("frames have their interface's own link type")),
    (b"E", Refused("IPsec is not decrypted; use tcpdump -E")),
    (b"M", Refused("TCP MD5 signatures are not verified; use tcpdump -M")),
    (b"T", Refused("payloads are not decoded; show them with --payload or -X, or use tcpdump -T")),
    (b"bHkm#", Refused("netkat has no such form; use tcpdump on a file that --pcap wrote")),
];

/// tcpdump's long flags that netkat does not have by that name.
const LONG: [(&str, Meaning); 12] = [
    ("--print", Flag("--debug")),
    ("--immediate-mode", Default),
    ("--packet-buffered", Default),
    ("--no-promiscuous-mode", Default),
    ("--no-optimize", Default),
    ("--dont-verify-checksums", Default),
    ("--direction", Refused("a direction is a word of the filter: inbound or outbound")),
    ("--number", Refused("number the lines with nl(1)")),
    ("--time-stamp-precision", Refused(CLOCK)),
    ("--micro", Refused(CLOCK)),
    ("--nano", Refused(CLOCK)),
    ("--buffer-size", Refused("the receive buffer is sized by the memory that there is")),
];

/// Returns whether the arguments ask for a sniffer.
pub(super) fn is_for_a_sniffer(arguments: &[OsString]) -> bool {
    let flags = arguments.iter().skip(1).take_while(|word| *word != "--").filter_map(|word| word.to_str());
    flags.into_iter().any(|word| matches!(word, "--sniff" | "--read") || word.starts_with("--read="))
}

/// Replaces tcpdump's flags in a sniffer's arguments by netkat's.
///
/// # Errors
/// Advice, for a flag that netkat refuses.
pub(super) fn translate(arguments: Vec<OsString>) -> Result<Vec<OsString>, String> {
    let mut translation = Translation::default();
    let mut words = arguments.into_iter();
    translation.words.extend(words.next());
    while let Some(word) = words.next() {
        let text = word.to_str().unwrap_or_default();
        if text == "--" {
            translation.words.push(word);
            translation.words.extend(words);
            break;
        } else if text.starts_with("--") {
            translation.long(&word)?;
        } else if text.starts_with('-') && text.len() > 1 {
            translation.letters(text, &mut words)?;
        } else {
            translation.words.push(word);
        }
    }
    Ok(translation.finish())
}

/// Arguments under translation.
#[derive(Default)]
struct Translation {
    words: Vec<OsString>,
    /// Letters that are counted, and their number.
    counted: Vec<(u8, usize)>,
}

impl Translation {
    fn long(&mut self, word: &OsStr) -> Result<(), String> {
        let text = word.to_str().unwrap_or_default();
        let name = text.split('=').next().unwrap_or(text);
        match LONG.iter().find(|(known, _)| *known == name).map(|(_, meaning)| *meaning) {
            Some(Flag(flag)) => self.words.push(flag.into()),
            Some(Default) => {}
            Some(Refused(advice)) => return Err(refusal(name, advice)),
            _ => self.words.push(word.to_owned()),
        }
        Ok(())
    }

    /// Translates letters behind one hyphen. The value of a letter is the rest, or the next word.
    fn letters(&mut self, cluster: &str, words: &mut impl Iterator<Item = OsString>) -> Result<(), String> {
        for (at, letter) in cluster.char_indices().skip(1) {
            let known = u8::try_from(letter).ok();
            let meaning =
                LETTERS.iter().find(|(letters, _)| known.is_some_and(|byte| letters.contains(&byte)));
            let mut value = || {
                let rest = cluster.get(at + letter.len_utf8()..).filter(|rest| !rest.is_empty());
                rest.map(OsString::from).or_else(|| words.next())
            };
            match meaning.map(|(_, meaning)| *meaning) {
                Some(Flag(flag)) => self.words.push(flag.into()),
                Some(Value(flag)) => {
                    self.words.push(flag.into());
                    self.words.extend(value());
                    return Ok(());
                }
                Some(SameWithValue) => {
                    self.words.push(format!("-{letter}").into());
                    self.words.extend(value());
                    return Ok(());
                }
                Some(Counted(..)) => self.count(letter as u8),
                Some(Default) => {}
                Some(Refused(advice)) => return Err(refusal(&format!("-{letter}"), advice)),
                Some(Same) => self.words.push(format!("-{letter}").into()),
                None => {
                    let advice = "neither tcpdump nor netkat's sniffer has this flag; see netkat --help";
                    return Err(refusal(&format!("-{}", letter.escape_default()), advice));
                }
            }
        }
        Ok(())
    }

    fn count(&mut self, letter: u8) {
        match self.counted.iter_mut().find(|(known, _)| *known == letter) {
            Some((_, number)) => *number += 1,
            None => self.counted.push((letter, 1)),
        }
    }

    /// Puts the counted letters in front, where no "--" stands before them, in their order.
    fn finish(mut self) -> Vec<OsString> {
        for (letter, number) in self.counted.into_iter().rev() {
            let meaning = LETTERS.iter().find(|(letters, _)| letters.contains(&letter));
            let Some((_, Counted(flag, forms))) = meaning else { continue };
            let form = forms.get(number - 1).or(forms.last());
            let flag = form.map_or((*flag).to_owned(), |form| format!("{flag}={form}"));
            self.words.insert(1, flag.into());
        }
        self.words
    }
}

fn refusal(flag: &str, advice: &str) -> String {
    format!("{flag}: {advice}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(line: &str) -> String {
        let words = line.split(' ').map(OsString::from).collect();
        match translate(words) {
            Ok(words) => words.join(OsStr::new(" ")).into_string().expect("text"),
            Err(words) => words,
        }
    }

    #[test]
    fn letters_of_tcpdump_become_flags_of_netkat() {
        for (line, expected) in [
            ("netkat --sniff -c 5 -w out tcp", "netkat --sniff --count 5 --pcap out tcp"),
            ("netkat --sniff -nnvvXi eth0 -c5", "netkat --numeric --dump=X --sniff -v -v -i eth0 --count 5"),
            ("netkat --sniff -XX -tttt -A", "netkat --dump=XX --time=date --dump=A --sniff"),
            (
                "netkat --sniff -lU -s0 -e -S",
                "netkat --sniff --snapshot-length 0 --link-header --absolute-tcp-sequence-numbers",
            ),
            ("netkat --sniff -r in -- -c 5", "netkat --sniff --read in -- -c 5"),
            ("netkat --sniff -w - -p 80 --print", "netkat --sniff --pcap - -p 80 --debug"),
        ] {
            assert_eq!(translated(line), expected, "{line}");
        }
    }

    #[test]
    fn other_letters_are_refused_with_netkats_way() {
        for (line, advice) in [
            ("netkat --sniff -G 60", "-G: files are not rotated"),
            ("netkat --sniff -nQ in", "-Q: a direction is a word of the filter"),
            ("netkat --sniff -k", "-k: netkat has no such form"),
            ("netkat --sniff -g", "-g: neither tcpdump"),
            ("netkat --sniff --direction=in", "--direction: a direction"),
        ] {
            assert!(translated(line).contains(advice), "{line}: {}", translated(line));
        }
    }

    #[test]
    fn only_a_sniffer_has_them() {
        let is = |line: &str| is_for_a_sniffer(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert!(is("netkat --sniff -c 5") && is("netkat -n --read=in -c 5"));
        assert!(!is("netkat -w 5 host 80") && !is("netkat -- --sniff"));
    }
}
