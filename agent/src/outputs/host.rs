//! The instance's own addresses, which are what other instances reach a published port at.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

/// Somewhere on the default route, in a block that nobody has (RFC 5737). Nothing is sent there:
/// connecting a UDP socket only asks the kernel which of our addresses it would use.
const ANYWHERE: &str = "192.0.2.1:9";

/// The metadata service, for a network without a default route.
const METADATA_SERVICE: &str = "169.254.169.254:80";

/// Interfaces that engines make for containers.
const ENGINE_INTERFACES: [&str; 6] = ["docker", "br-", "veth", "podman", "cni", "virbr"];

/// More than these are not listed; an instance has one per port.
const MAX_ADDRESSES: usize = 32;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostAddresses {
    /// The address that the instance uses towards the world.
    pub primary: Option<IpAddr>,
    /// All addresses but loopback, link-local and the engine's, in the kernel's order.
    pub all: Vec<IpAddr>,
}

/// Asks the kernel.
pub fn addresses() -> HostAddresses {
    let all = interface_addresses();
    let primary = [ANYWHERE, METADATA_SERVICE].into_iter().find_map(source_address_towards);
    HostAddresses { primary: primary.or(all.first().copied()), all }
}

fn interface_addresses() -> Vec<IpAddr> {
    let interfaces = match getifaddrs() {
        Ok(interfaces) => interfaces,
        Err(error) => {
            tracing::warn!(%error, "addresses of this instance cannot be listed");
            return Vec::new();
        }
    };
    let mut addresses = Vec::new();
    for interface in interfaces {
        let is_usable = interface.flags.contains(InterfaceFlags::IFF_UP)
            && !interface.flags.contains(InterfaceFlags::IFF_LOOPBACK)
            && !ENGINE_INTERFACES.iter().any(|name| interface.interface_name.starts_with(name));
        let Some(storage) = interface.address.filter(|_| is_usable) else {
            continue;
        };
        let v4 = storage.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        let v6 = storage.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip()));
        addresses.extend(v4.or(v6).filter(|address| !is_link_local(address)));
    }
    addresses.truncate(MAX_ADDRESSES);
    addresses
}

fn source_address_towards(destination: &str) -> Option<IpAddr> {
    let destination: SocketAddr = destination.parse().ok()?;
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect(destination).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified() && !address.is_loopback()).then_some(address)
}

fn is_link_local(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_loopback_and_no_link_local_address_is_given_out() {
        let addresses = addresses();
        for address in addresses.all.iter().chain(&addresses.primary) {
            assert!(!address.is_loopback() && !is_link_local(address), "{address}");
        }
    }

    #[test]
    fn the_destinations_are_addresses() {
        for destination in [ANYWHERE, METADATA_SERVICE] {
            assert!(destination.parse::<SocketAddr>().is_ok());
        }
    }
}
