//! One netlink request and its answers, blocking: the kernel answers within the same system calls.

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkDeserializable, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};
use std::io;

/// Asks the kernel for every object of a kind.
///
/// # Errors
/// The kernel's error, or `InvalidData` for an answer that is cut short.
pub(super) fn dump<M>(family: isize, request: M) -> io::Result<Vec<M>>
where
    M: NetlinkSerializable + NetlinkDeserializable + Into<NetlinkPayload<M>>,
{
    exchange(family, request, NLM_F_DUMP)
}

/// Asks the kernel to change something; `flags` are added to NLM_F_REQUEST and NLM_F_ACK.
///
/// # Errors
/// As for [`dump`].
pub(super) fn change<M>(family: isize, request: M, flags: u16) -> io::Result<()>
where
    M: NetlinkSerializable + NetlinkDeserializable + Into<NetlinkPayload<M>>,
{
    exchange(family, request, NLM_F_ACK | flags).map(drop)
}

fn exchange<M>(family: isize, request: M, flags: u16) -> io::Result<Vec<M>>
where
    M: NetlinkSerializable + NetlinkDeserializable + Into<NetlinkPayload<M>>,
{
    let mut socket = Socket::new(family)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;

    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut message = NetlinkMessage::new(header, request.into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;

    let mut answers = Answers::default();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        if answers.take_in(&datagram)? {
            return Ok(answers.0);
        }
    }
}

/// What the kernel has answered to one request so far.
#[derive(Debug)]
pub struct Answers<M>(pub Vec<M>);

impl<M> Default for Answers<M> {
    fn default() -> Self {
        Answers(Vec::new())
    }
}

impl<M: NetlinkDeserializable> Answers<M> {
    /// Takes in one datagram; `true`: the answer is complete. What can't be read is skipped: an object of a kind yet
    /// unknown must not hide the others, ours among them.
    ///
    /// # Errors
    /// The kernel's, or `InvalidData` for a message that is cut short.
    pub fn take_in(&mut self, datagram: &[u8]) -> io::Result<bool> {
        let mut rest = datagram;
        while !rest.is_empty() {
            let length = NetlinkBuffer::new_checked(rest).map_err(unreadable)?.length();
            let length = usize::try_from(length).map_err(unreadable)?;
            match NetlinkMessage::<M>::deserialize(rest).map(|message| message.payload) {
                Ok(NetlinkPayload::InnerMessage(answer)) => self.0.push(answer),
                Ok(NetlinkPayload::Done(done)) if done.code != 0 => {
                    return Err(io::Error::from_raw_os_error(done.code.saturating_neg()));
                }
                Ok(NetlinkPayload::Done(_)) => return Ok(true),
                Ok(NetlinkPayload::Error(error)) => match error.code {
                    None => return Ok(true),
                    Some(code) => return Err(io::Error::from_raw_os_error(code.get().saturating_neg())),
                },
                Ok(_) => {}
                Err(error) => log::debug!("skipping a netlink message: {error}"),
            }
            // Messages are aligned to four bytes (netlink(7)); the last one's padding may be cut.
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(false)
    }
}

fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_route::RouteNetlinkMessage;

    /// A message as netlink(7) has it, with a sequence number and a port of 0.
    fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(16 + payload.len()).expect("short");
        let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], payload].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn an_object_of_an_unknown_kind_does_not_hide_the_others() {
        // RTM_NEWTFILTER without its header, then whole.
        let mut datagram = message(44, &[1, 2]);
        datagram.extend(message(44, &[0; 20]));
        let mut answers = Answers::<RouteNetlinkMessage>::default();
        assert!(!answers.take_in(&datagram).expect("readable"));
        assert!(matches!(answers.0.as_slice(), [RouteNetlinkMessage::NewTrafficFilter(_)]));
        assert!(answers.take_in(&message(3, &[0; 4])).expect("done"));
    }

    #[test]
    fn no_error_number_is_too_large() {
        for kind in [2, 3] {
            let datagram = message(kind, &i32::MIN.to_ne_bytes());
            let error = Answers::<RouteNetlinkMessage>::default().take_in(&datagram).expect_err("refused");
            assert_eq!(error.raw_os_error(), Some(i32::MAX));
        }
    }

    #[test]
    fn what_is_cut_short_is_an_error() {
        let datagram = message(44, &[0; 20]);
        let mut answers = Answers::<RouteNetlinkMessage>::default();
        assert!(answers.take_in(&datagram[..30]).is_err());
        assert!(answers.take_in(&[4, 0, 0, 0]).is_err());
    }
}
