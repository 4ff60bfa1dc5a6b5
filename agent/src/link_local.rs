//! Where every cloud has its metadata service: one address of IPv4, and in OpenStack one of IPv6, which
//! is on whichever interface it answers.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::Path;

use nix::net::if_::if_nameindex;

pub(crate) const LINK_LOCAL_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

const LINK_LOCAL_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe);

const PORT: u16 = 80;

/// An instance has a handful; an engine that runs already adds one for each container.
const MAX_INTERFACES: usize = 16;

/// The address of IPv6 on each interface that is there now. Interfaces come up one by one, so this is to
/// be asked anew each time.
pub(crate) fn addresses_v6() -> Vec<SocketAddr> {
    let at = |scope| SocketAddrV6::new(LINK_LOCAL_V6, PORT, 0, scope).into();
    interfaces().into_iter().map(at).collect()
}

/// The indexes of the interfaces on which a metadata service may answer: no loopback, no bridge
/// and no port of one, which are the engine's own.
fn interfaces() -> Vec<u32> {
    let Ok(interfaces) = if_nameindex() else { return Vec::new() };
    let mut indexes: Vec<u32> = interfaces
        .iter()
        .filter(|interface| {
            let name = interface.name().to_string_lossy();
            let path = Path::new("/sys/class/net").join(&*name);
            name != "lo" && !path.join("bridge").exists() && !path.join("brport").exists()
        })
        .map(|interface| interface.index())
        .collect();
    indexes.sort_unstable();
    indexes.truncate(MAX_INTERFACES);
    indexes
}
