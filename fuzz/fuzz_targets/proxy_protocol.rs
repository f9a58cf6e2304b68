//! Reads any bytes as the front of a stream with a PROXY protocol header. Whole or in pieces, the outcome is the same;
//! nothing behind the header is taken; a header written from its ends reads back; no control character in the words.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netkat::proxy_protocol::{Ends, Header, HeaderError, HeaderReader, Transport, Version, Versions};

/// Takes a header from pieces of `size` bytes. Returns it with the bytes taken.
fn take(versions: Versions, data: &[u8], size: usize) -> Result<(usize, Option<Header>), HeaderError> {
    let (mut reader, mut total) = (HeaderReader::new(versions), 0);
    for piece in data.chunks(size) {
        let (taken, header) = reader.take(piece)?;
        total += taken;
        assert!(taken <= piece.len() && reader.taken() == total);
        if header.is_some() {
            return Ok((total, header));
        }
        assert_eq!(taken, piece.len());
    }
    Ok((total, None))
}

// The first byte chooses the versions and the size of the pieces.
fuzz_target!(|input: &[u8]| {
    let [choice, data @ ..] = input else { return };
    let versions = match choice & 3 {
        0 => Versions::Only(Version::One),
        1 => Versions::Only(Version::Two),
        _ => Versions::Both,
    };
    let whole = take(versions, data, data.len().max(1));
    let pieces = take(versions, data, usize::from(choice >> 2) + 1);
    match (&whole, &pieces) {
        // A message quotes as many bytes as had come, which depends on the pieces.
        (Err(HeaderError::Absent(_)), Err(HeaderError::Absent(_))) => {}
        _ => assert_eq!(whole, pieces),
    }
    let words = match &whole {
        Ok((taken, Some(header))) => {
            assert_eq!(header.length, *taken);
            // The rest is not looked at.
            assert_eq!(take(versions, &data[..*taken], *taken), whole);
            if let Ends::Inet { transport: Transport::Stream, source, destination } = header.ends {
                let (written, bytes) = Header::write(header.version, source, destination);
                assert_eq!(take(versions, &bytes, bytes.len()), Ok((bytes.len(), Some(written.clone()))));
                assert_eq!(written.ends, header.ends);
            }
            header.to_string()
        }
        Ok((taken, None)) => {
            assert_eq!(*taken, data.len());
            return;
        }
        Err(error) => error.to_string(),
    };
    assert!(!words.contains(char::is_control) && words.len() < 64 << 10, "{words:?}");
});
