//! CRLF translation (`-C`): a bare LF becomes CR LF; an LF after a CR stays as it is.

/// The translation of one stream, piece by piece.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CrlfTranslator {
    last: u8,
    /// Whether an LF found no room behind its CR.
    owed: bool,
}

impl CrlfTranslator {
    /// Returns the maximum to read into a buffer of `room` bytes so that the translation fits, in bytes; at
    /// least 1.
    pub(crate) fn limit(room: usize) -> usize {
        room.div_ceil(2)
    }

    /// Takes the LF that must precede further data, if there is one.
    pub(crate) fn owed(&mut self) -> Option<u8> {
        std::mem::take(&mut self.owed).then_some(b'\n')
    }

    /// Translates the first `len` bytes of `room` in place. Returns their new length. `len` is at most
    /// [`CrlfTranslator::limit`].
    pub(crate) fn translate(&mut self, room: &mut [u8], len: usize) -> usize {
        let len = len.min(room.len());
        let mut before = self.last;
        let bare = room[..len]
            .iter()
            .filter(|byte| {
                let bare = **byte == b'\n' && before != b'\r';
                before = **byte;
                bare
            })
            .count();
        if len > 0 {
            self.last = room[len - 1];
        }
        // Only in a room of odd length can the last byte find no place.
        self.owed = len + bare > room.len();
        let end = (len + bare).min(room.len());
        let (mut from, mut to) = (len, len + bare);
        while from < to && from > 0 {
            from -= 1;
            to -= 1;
            let byte = room[from];
            if to < end {
                room[to] = byte;
            }
            // `to - from` is the number of bare LFs that are still to be translated.
            if byte == b'\n' && to > from && !room[..from].ends_with(b"\r") {
                to -= 1;
                room[to] = b'\r';
            }
        }
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns the translation of a stream that is read into buffers of these sizes.
    fn read(mut input: &[u8], rooms: &[usize]) -> Vec<u8> {
        let (mut ends, mut output) = (CrlfTranslator::default(), Vec::new());
        let mut rooms = rooms.iter().cycle();
        loop {
            let mut room = vec![0; *rooms.next().expect("a room")];
            if let Some(byte) = ends.owed() {
                output.push(byte);
                continue;
            }
            let len = CrlfTranslator::limit(room.len()).min(input.len());
            if len == 0 {
                return output;
            }
            room[..len].copy_from_slice(&input[..len]);
            input = &input[len..];
            let len = ends.translate(&mut room, len);
            output.extend_from_slice(&room[..len]);
        }
    }

    #[test]
    fn bare_line_feeds_get_a_carriage_return() {
        for (text, expected) in [
            ("", ""),
            ("a\nb\n", "a\r\nb\r\n"),
            ("a\r\nb", "a\r\nb"),
            ("\n\n\r\n\r\r\n", "\r\n\r\n\r\n\r\r\n"),
        ] {
            assert_eq!(read(text.as_bytes(), &[64]), expected.as_bytes(), "{text:?}");
        }
    }

    proptest! {
        /// The result does not depend on how the stream is cut.
        #[test]
        fn pieces_of_any_size_give_one_result(
            text in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b'a')], 0..60),
            rooms in proptest::collection::vec(1..9usize, 1..5),
        ) {
            let mut expected = Vec::new();
            for (at, byte) in text.iter().enumerate() {
                if *byte == b'\n' && (at == 0 || text[at - 1] != b'\r') {
                    expected.push(b'\r');
                }
                expected.push(*byte);
            }
            prop_assert_eq!(read(&text, &rooms), expected);
        }
    }
}
