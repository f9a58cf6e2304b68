//! Datagrams of the harness's own sockets.
use std::{
    io,
    net::{SocketAddr, UdpSocket},
};

/// Receives a datagram, or ends with the socket's time-out. Any interruption ends a receive with a time-out, whatever
/// the handler says (signal(7)), so it is begun again.
pub fn receive_from(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    loop {
        match socket.recv_from(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            received => return received,
        }
    }
}
