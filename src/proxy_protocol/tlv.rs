//! The TLVs of version 2: type, length, value (spec 2.2.1 to 2.2.8).
use crate::net::count;

/// The type of the checksum.
pub(super) const CRC32C: u8 = 0x03;
/// The type of padding.
pub(super) const NOOP: u8 = 0x04;
const UNIQUE_ID: u8 = 0x05;
const SSL: u8 = 0x20;

/// Names of the registered types, and whether their value is text.
const NAMES: [(u8, &str, bool); 7] = [
    (0x01, "ALPN", true),
    (0x02, "AUTHORITY", true),
    (CRC32C, "CRC32C", false),
    (NOOP, "NOOP", false),
    (UNIQUE_ID, "UNIQUE_ID", true),
    (SSL, "SSL", false),
    (0x30, "NETNS", true),
];
/// The same for the types within SSL.
const SSL_NAMES: [(u8, &str, bool); 5] = [
    (0x21, "SSL_VERSION", true),
    (0x22, "SSL_CN", true),
    (0x23, "SSL_CIPHER", true),
    (0x24, "SSL_SIG_ALG", true),
    (0x25, "SSL_KEY_ALG", true),
];

/// Maximum length of a UNIQUE_ID, in bytes (spec 2.2.5).
const LONGEST_ID: usize = 128;

/// A TLV.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tlv {
    /// The type.
    pub kind: u8,
    /// The type's name; `None` if it is not registered.
    pub name: Option<&'static str>,
    /// The value.
    pub value: Value,
    /// Distance of the value's first byte from the end of what was parsed, in bytes.
    pub(super) from_end: usize,
}

/// The value of a TLV.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Registered as text, and printable.
    Text(String),
    /// Anything else.
    Bytes(Vec<u8>),
    /// That of SSL.
    Ssl(Ssl),
}

/// The client's TLS (spec 2.2.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ssl {
    /// The client field.
    pub client: u8,
    /// The verify field: 0 if the client's certificate was verified.
    pub verify: u32,
    /// The TLVs within.
    pub tlvs: Vec<Tlv>,
}

impl Ssl {
    /// Returns whether the client connected over TLS (PP2_CLIENT_SSL).
    pub fn is_used(&self) -> bool {
        self.client & 1 != 0
    }

    /// Returns whether the client gave a certificate over this connection (PP2_CLIENT_CERT_CONN).
    pub fn certificate_in_connection(&self) -> bool {
        self.client & 2 != 0
    }

    /// Returns whether the client gave a certificate in this TLS session (PP2_CLIENT_CERT_SESS).
    pub fn certificate_in_session(&self) -> bool {
        self.client & 4 != 0
    }
}

/// Parses the TLVs that fill `bytes`.
///
/// # Errors
/// The fault in words.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Tlv>, String> {
    parse_level(bytes, &NAMES)
}

fn parse_level(mut bytes: &[u8], names: &[(u8, &'static str, bool)]) -> Result<Vec<Tlv>, String> {
    let mut tlvs = Vec::new();
    while !bytes.is_empty() {
        let [kind, high, low, rest @ ..] = bytes else {
            return Err(format!("{} left behind the last TLV", count(bytes.len() as u64, "byte")));
        };
        let (length, from_end) = (usize::from(u16::from_be_bytes([*high, *low])), rest.len());
        let Some((value, behind)) = rest.split_at_checked(length) else {
            return Err(format!("the TLV of type 0x{kind:02x} has {length} bytes, {} are left", rest.len()));
        };
        let known = names.iter().find(|(known, ..)| known == kind);
        let is_text = known.is_some_and(|(.., is_text)| *is_text);
        let value = match *kind {
            SSL if known.is_some() => Value::Ssl(ssl(value)?),
            UNIQUE_ID if known.is_some() && length > LONGEST_ID => {
                return Err(format!("the UNIQUE_ID has {length} bytes, more than {LONGEST_ID}"));
            }
            _ => text(value).filter(|_| is_text).map_or_else(|| Value::Bytes(value.to_vec()), Value::Text),
        };
        tlvs.push(Tlv { kind: *kind, name: known.map(|(_, name, _)| *name), value, from_end });
        bytes = behind;
    }
    Ok(tlvs)
}

fn ssl(value: &[u8]) -> Result<Ssl, String> {
    let [client, a, b, c, d, rest @ ..] = value else {
        return Err(format!("the TLV SSL has {} bytes, fewer than 5", value.len()));
    };
    let tlvs = parse_level(rest, &SSL_NAMES).map_err(|fault| format!("in the TLV SSL, {fault}"))?;
    Ok(Ssl { client: *client, verify: u32::from_be_bytes([*a, *b, *c, *d]), tlvs })
}

/// Returns printable UTF-8.
fn text(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?;
    (!text.contains(char::is_control)).then(|| text.to_owned())
}
