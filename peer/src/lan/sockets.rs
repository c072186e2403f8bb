//! Sockets for multicast on one network, and the networks there are.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use crate::endpoint::PeerEndpoint;

/// Where services on the local network are asked for (RFC 6762, section 3). Routers don't pass it on.
pub(super) const GROUP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(224, 0, 0, 251), 5353);

/// Whether an address is of a local network or this machine's own: never one on the open Internet.
pub fn is_local(address: Ipv4Addr) -> bool {
    address.is_private() || address.is_link_local() || address.is_loopback()
}

/// The local addresses of this machine on which `endpoint` listens. Loopback counts only where it listens there alone.
pub(super) fn interfaces(endpoint: &PeerEndpoint) -> BTreeSet<Ipv4Addr> {
    let bound = endpoint.bound();
    let everywhere = bound.iter().any(|address| address.ip().is_unspecified());
    let addresses = if everywhere { endpoint.address().direct } else { bound };
    let v4 = addresses.iter().filter_map(|address| match address.ip() {
        IpAddr::V4(v4) => Some(v4),
        IpAddr::V6(_) => None,
    });
    v4.filter(|v4| is_local(*v4) && !(everywhere && v4.is_loopback())).collect()
}

/// A socket that hears questions on the network of `interface`, beside those of other programs.
pub(super) fn answering(interface: Ipv4Addr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    // Without this it hears what any program of this machine has joined, on other networks, too.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_multicast_all_v4(false)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, GROUP.port())).into())?;
    socket.join_multicast_v4(GROUP.ip(), &interface)?;
    sending_on(socket, interface)
}

/// A socket that asks on the network of `interface` and hears what is answered to it alone.
pub(super) fn asking(interface: Ipv4Addr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind(&SocketAddr::from((interface, 0)).into())?;
    sending_on(socket, interface)
}

fn sending_on(socket: Socket, interface: Ipv4Addr) -> io::Result<UdpSocket> {
    socket.set_multicast_if_v4(&interface)?;
    // Coordinators and workers of one machine find each other.
    socket.set_multicast_loop_v4(true)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_addresses_are_not_local() {
        for (address, local) in [
            ("192.168.1.1", true),
            ("10.0.0.1", true),
            ("172.16.0.1", true),
            ("169.254.7.7", true),
            ("127.0.0.1", true),
            ("8.8.8.8", false),
            ("172.32.0.1", false),
            ("100.64.0.1", false),
            ("192.0.2.2", false),
            ("224.0.0.251", false),
            ("0.0.0.0", false),
        ] {
            assert_eq!(is_local(address.parse().expect("an address")), local, "{address}");
        }
    }
}
