//! A PROXY protocol header, as JSON objects have it.
use crate::{
    net::zone,
    proxy_protocol::{
        Ends, Header, Transport,
        tlv::{Ssl, Tlv, Value},
    },
};
use serde::Serialize;

/// A header that a client sent or a listener read.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ProxyHeader {
    version: u8,
    command: &'static str,
    /// Null where the header names no ends, as those that follow.
    family: Option<&'static str>,
    transport: Option<&'static str>,
    source: Option<String>,
    destination: Option<String>,
    header_bytes: usize,
    tlvs: Vec<TlvObject>,
}

/// A TLV, with one of `text`, `hex` and `ssl`.
#[derive(Clone, Debug, Serialize)]
struct TlvObject {
    r#type: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ssl: Option<SslObject>,
}

#[derive(Clone, Debug, Serialize)]
struct SslObject {
    client_ssl: bool,
    client_certificate_in_connection: bool,
    client_certificate_in_session: bool,
    verify: u32,
    tlvs: Vec<TlvObject>,
}

impl From<&Header> for ProxyHeader {
    fn from(header: &Header) -> ProxyHeader {
        let (family, transport, ends) = match &header.ends {
            Ends::Unspecified => (None, None, None),
            Ends::Inet { transport, source, destination } => {
                let family = if source.is_ipv4() { "ipv4" } else { "ipv6" };
                (
                    Some(family),
                    Some(transport),
                    Some([source, destination].map(|end| zone::endpoint(end).to_string())),
                )
            }
            Ends::Unix { transport, source, destination } => {
                let paths = [source, destination].map(|path| path.escape_ascii().to_string());
                (Some("unix"), Some(transport), Some(paths))
            }
        };
        let [source, destination] = ends.map_or([None, None], |ends| ends.map(Some));
        ProxyHeader {
            version: header.version as u8,
            command: if header.local { "local" } else { "proxy" },
            family,
            transport: transport.map(|transport| match transport {
                Transport::Stream => "stream",
                Transport::Datagram => "datagram",
            }),
            source,
            destination,
            header_bytes: header.length,
            tlvs: header.tlvs.iter().map(TlvObject::from).collect(),
        }
    }
}

impl From<&Tlv> for TlvObject {
    fn from(tlv: &Tlv) -> TlvObject {
        let name = tlv.name.map(str::to_ascii_lowercase);
        let empty = TlvObject { r#type: tlv.kind, name, text: None, hex: None, ssl: None };
        match &tlv.value {
            Value::Text(text) => TlvObject { text: Some(text.clone()), ..empty },
            Value::Bytes(bytes) => {
                let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                TlvObject { hex: Some(hex), ..empty }
            }
            Value::Ssl(ssl) => TlvObject { ssl: Some(ssl.into()), ..empty },
        }
    }
}

impl From<&Ssl> for SslObject {
    fn from(ssl: &Ssl) -> SslObject {
        SslObject {
            client_ssl: ssl.is_used(),
            client_certificate_in_connection: ssl.certificate_in_connection(),
            client_certificate_in_session: ssl.certificate_in_session(),
            verify: ssl.verify,
            tlvs: ssl.tlvs.iter().map(TlvObject::from).collect(),
        }
    }
}
