//! Recognises files by their first bytes: those that cannot be read are refused by name.
use super::format::CaptureError;

/// The byte-order magic of a pcapng section, at offset 8.
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
/// The type of a pcapng section header, in either byte order.
pub(super) const SECTION_HEADER: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
/// pcap's magic numbers: microseconds, nanoseconds, and Alexey Kuznetzov's with a longer record header.
const PCAP: [u32; 3] = [0xa1b2_c3d4, 0xa1b2_3c4d, 0xa1b2_cd34];
/// The major version of pcap that is read.
const PCAP_MAJOR: u16 = 2;
/// The major version of pcapng that is read.
pub(super) const PCAPNG_MAJOR: u16 = 1;

/// First bytes of compressed files, their format, and the program that unpacks them.
const COMPRESSED: [(&[u8], &str, &str); 6] = [
    (&[0x1f, 0x8b], "gzip", "gzip -dc"),
    (&[0x28, 0xb5, 0x2f, 0xfd], "zstd", "zstd -dc"),
    (&[0xfd, b'7', b'z', b'X', b'Z', 0], "xz", "xz -dc"),
    (b"BZh", "bzip2", "bzip2 -dc"),
    (&[0x04, 0x22, 0x4d, 0x18], "lz4", "lz4 -dc"),
    (&[b'P', b'K', 3, 4], "zip", "unzip -p"),
];

/// First bytes of captures in other formats (libpcap's sf-pcap.c, Wireshark's wiretap), and their names.
const FOREIGN: [(&[u8], &str); 14] = [
    (b"snoop\0\0\0", "a capture of Solaris' snoop"),
    (b"GMBU", "a capture of Microsoft's Network Monitor"),
    (b"RTSS", "a capture of Microsoft's Network Monitor"),
    (b"TRSNIFF data    \x1a", "a capture of Network General's Sniffer"),
    (b"XCP\0", "a capture of NetXRay"),
    (&[0xa1, 0xb2, 0xcd, 0x34], "a big-endian pcap file of Kuznetzov's variant"),
    (&[0xa1, 0xe2, 0xcb, 0x12], AIX_PCAP),
    (&[0x12, 0xcb, 0xe2, 0xa1], AIX_PCAP),
    (&[0xa1, 0x2b, 0x3c, 0x4d], NAVTEL_PCAP),
    (&[0x4d, 0x3c, 0x2b, 0xa1], NAVTEL_PCAP),
    (&[0x1c, 0x00, 0x01, 0xac], IXIA_PCAP),
    (&[0xac, 0x01, 0x00, 0x1c], IXIA_PCAP),
    (&[0x1c, 0x00, 0x01, 0xab], IXIA_PCAP),
    (&[0xab, 0x01, 0x00, 0x1c], IXIA_PCAP),
];
const AIX_PCAP: &str = "a pcap file of a variant with longer records";
const NAVTEL_PCAP: &str = "a pcap file of Navtel's variant";
const IXIA_PCAP: &str = "a pcap file of Ixia's variant";

/// Accepts the start of a file that can be read; `start` has at least its header, if the file is long
/// enough.
///
/// # Errors
/// [`CaptureError`], which names the format or the version.
pub(super) fn check(start: &[u8], name: &str) -> Result<(), CaptureError> {
    let name = || name.to_owned();
    if let Some((_, format, program)) = COMPRESSED.iter().find(|(magic, ..)| start.starts_with(magic)) {
        return Err(CaptureError::Compressed { name: name(), format, program });
    }
    if let Some((_, format)) = FOREIGN.iter().find(|(magic, _)| start.starts_with(magic)) {
        return Err(CaptureError::Foreign { name: name(), format });
    }
    let (format, wanted, version) = match start.first_chunk() {
        Some(&SECTION_HEADER) => ("pcapng", PCAPNG_MAJOR, section_version(start)),
        Some(&magic) => ("pcap", PCAP_MAJOR, pcap_version(magic, start)),
        None => ("pcap", PCAP_MAJOR, None),
    };
    match version {
        Some((major, minor)) if major == wanted => {
            log::trace!("{} is {format} {major}.{minor}", name());
            Ok(())
        }
        Some((major, minor)) => Err(CaptureError::Version { name: name(), format, major, minor }),
        None => Err(CaptureError::NotACapture { name: name() }),
    }
}

fn pcap_version(magic: [u8; 4], start: &[u8]) -> Option<(u16, u16)> {
    let little = PCAP.contains(&u32::from_le_bytes(magic));
    let known = little || PCAP.contains(&u32::from_be_bytes(magic));
    version(start.get(4..)?, !little).filter(|_| known)
}

fn section_version(start: &[u8]) -> Option<(u16, u16)> {
    let order = *start.get(8..)?.first_chunk()?;
    let little = u32::from_le_bytes(order) == BYTE_ORDER;
    let known = little || u32::from_be_bytes(order) == BYTE_ORDER;
    version(start.get(12..)?, !little).filter(|_| known)
}

/// Returns a major and a minor version.
fn version(bytes: &[u8], big_endian: bool) -> Option<(u16, u16)> {
    let &[a, b, c, d] = bytes.first_chunk()?;
    let number = |bytes| if big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) };
    Some((number([a, b]), number([c, d])))
}
