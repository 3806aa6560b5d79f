//! The addresses of a host name. What is found here is judged by the guard before anything connects to it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs as _};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;

/// Finds the addresses of a host name; a test has its own.
pub trait Resolve: Send + Sync {
    /// All addresses, the preferred ones first; several requests may ask at once.
    fn resolve(&self, name: String) -> BoxFuture<'_, io::Result<Vec<IpAddr>>>;
}

/// How many names are looked up at once. The system takes up to half a minute for a name whose servers are silent, each on a
/// thread of the pool that also hashes passwords.
const LOOKUPS: usize = 32;

/// The system's resolver.
pub(super) struct System(Arc<Semaphore>);

impl System {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(LOOKUPS)))
    }
}

impl Resolve for System {
    fn resolve(&self, name: String) -> BoxFuture<'_, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            if is_localhost(&name) {
                return Ok(LOCALHOST.to_vec());
            }
            let permit = Arc::clone(&self.0).acquire_owned().await.map_err(io::Error::other)?;
            let look_up = move || {
                // Held until the look-up ends, also where nobody waits for it any more.
                let _permit = permit;
                #[expect(clippy::disallowed_methods, reason = "the one look-up: what it finds is judged")]
                let found = (name.as_str(), 0).to_socket_addrs();
                found.map(|addresses| addresses.map(|address| address.ip()).collect())
            };
            tokio::task::spawn_blocking(look_up).await.map_err(io::Error::other)?
        })
    }
}

/// What those names mean.
pub(super) const LOCALHOST: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// RFC 6761, section 6.3: such names mean this machine, whatever DNS says.
pub(super) fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn this_machine_is_found_without_a_server() {
        for name in ["localhost", "localhost.", "db.localhost"] {
            let found = System::new().resolve(name.to_owned()).await.unwrap();
            assert_eq!(found, [IpAddr::from([127, 0, 0, 1]), Ipv6Addr::LOCALHOST.into()], "{name}");
        }
        assert!(!is_localhost("notlocalhost") && !is_localhost("localhost.example"));
    }
}
