//! A header in words, for a log line.
use super::{
    Ends, Header, Transport,
    tlv::{Ssl, Tlv, Value},
};
use crate::text;
use std::fmt::{self, Write};

/// Maximum characters of a value.
const SHOWN: usize = 80;
/// Maximum number of TLVs, and of those within one of SSL.
const LISTED: usize = 32;
const LISTED_WITHIN: usize = 8;

/// As `version 2, TCP from 192.0.2.7:4000 to 192.0.2.10:443, ALPN "h2", CRC32C verified`.
impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "version {}, ", self.version)?;
        match &self.ends {
            Ends::Unspecified if self.local => f.write_str("LOCAL")?,
            Ends::Unspecified => f.write_str("a connection of unknown kind")?,
            Ends::Inet { transport, source, destination } => {
                let protocol = if *transport == Transport::Stream { "TCP" } else { "UDP" };
                write!(f, "{protocol} from {source} to {destination}")?;
            }
            Ends::Unix { transport, source, destination } => {
                let kind = if *transport == Transport::Stream { "stream" } else { "datagrams" };
                let [source, destination] = [source, destination].map(|path| path.escape_ascii());
                write!(f, "UNIX {kind} from \"{source}\" to \"{destination}\"")?;
            }
        }
        for tlv in self.tlvs.iter().take(LISTED) {
            write!(f, ", {tlv}")?;
        }
        match self.tlvs.len().saturating_sub(LISTED) {
            0 => Ok(()),
            more => write!(f, ", and {more} more TLVs"),
        }
    }
}

impl fmt::Display for Tlv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name {
            Some(name) => f.write_str(name)?,
            None => write!(f, "type 0x{:02x}", self.kind)?,
        }
        match &self.value {
            // A header with another one is refused.
            _ if self.kind == super::tlv::CRC32C && self.name.is_some() => f.write_str(" verified"),
            Value::Text(value) => write!(f, " \"{}\"", text::beginning(value, SHOWN)),
            Value::Bytes(value) => {
                f.write_char(' ')?;
                value.iter().take(SHOWN / 2).try_for_each(|byte| write!(f, "{byte:02x}"))?;
                if value.len() > SHOWN / 2 { f.write_char('…') } else { Ok(()) }
            }
            Value::Ssl(ssl) => write!(f, " ({ssl})"),
        }
    }
}

impl fmt::Display for Ssl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let given = self.certificate_in_connection() || self.certificate_in_session();
        match (self.is_used(), given, self.verify) {
            (false, ..) => f.write_str("no TLS")?,
            (true, false, _) => f.write_str("no client certificate")?,
            (true, true, 0) => f.write_str("client certificate verified")?,
            (true, true, code) => write!(f, "client certificate not verified: {code}")?,
        }
        self.tlvs.iter().take(LISTED_WITHIN).try_for_each(|tlv| write!(f, ", {tlv}"))
    }
}
