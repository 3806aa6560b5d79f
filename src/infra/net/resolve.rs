//! The addresses of a host name. What is found here is judged by the guard before anything connects to it.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs as _};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;

/// Finds the addresses of a host name; a test has its own.
pub trait Resolve: Send + Sync {
    /// All addresses, the preferred ones first; several requests may ask at once.
    fn resolve(&self, name: String) -> BoxFuture<'_, io::Result<Vec<IpAddr>>>;
}

/// How many names are looked up at once. The system takes up to half a minute for a name whose servers are silent, each on a
/// thread of the pool that also hashes passwords.
const LOOKUPS: usize = 96;

/// How many of them may be below one domain (its last two labels): whose servers are silent mustn't keep the names of others
/// from being found.
const OF_A_DOMAIN: usize = 6;

/// The system's resolver.
pub(super) struct System {
    all: Arc<Semaphore>,
    /// Of the domains in which something is being looked up now.
    domains: Mutex<HashMap<String, Weak<Semaphore>>>,
}

impl System {
    pub(super) fn new() -> Self {
        Self { all: Arc::new(Semaphore::new(LOOKUPS)), domains: Mutex::default() }
    }

    /// The places of a name's domain.
    fn places(&self, name: &str) -> Arc<Semaphore> {
        let name = name.trim_end_matches('.');
        let domain = name.rmatch_indices('.').nth(1).map_or(name, |(dot, _)| &name[dot + 1..]);
        let mut domains = self.domains.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = domains.get(domain).and_then(Weak::upgrade) {
            return places;
        }
        domains.retain(|_, places| places.strong_count() > 0);
        let places = Arc::new(Semaphore::new(OF_A_DOMAIN));
        domains.insert(domain.to_owned(), Arc::downgrade(&places));
        places
    }
}

impl Resolve for System {
    fn resolve(&self, name: String) -> BoxFuture<'_, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            if is_localhost(&name) {
                return Ok(LOCALHOST.to_vec());
            }
            let own = self.places(&name).acquire_owned().await.map_err(io::Error::other)?;
            let permit = Arc::clone(&self.all).acquire_owned().await.map_err(io::Error::other)?;
            let look_up = move || {
                // Held until the look-up ends, also where nobody waits for it any more.
                let _permits = (own, permit);
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

    #[test]
    fn a_domain_has_few_places_and_none_of_another() {
        let system = System::new();
        let first = system.places("a.b.evil.example");
        assert!(
            Arc::ptr_eq(&first, &system.places("c.evil.example."))
                && Arc::ptr_eq(&first, &system.places("evil.example"))
        );
        let held: Vec<_> = (0..OF_A_DOMAIN).map(|_| first.clone().try_acquire_owned().unwrap()).collect();
        assert!(system.places("d.evil.example").try_acquire().is_err());
        assert!(
            system.places("good.example").try_acquire().is_ok() && system.places("localhost").try_acquire().is_ok()
        );
        drop((held, first));
        // What nobody uses is forgotten.
        drop(system.places("other.example"));
        drop(system.places("another.example"));
        assert_eq!(system.domains.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn this_machine_is_found_without_a_server() {
        for name in ["localhost", "localhost.", "db.localhost"] {
            let found = System::new().resolve(name.to_owned()).await.unwrap();
            assert_eq!(found, [IpAddr::from([127, 0, 0, 1]), Ipv6Addr::LOCALHOST.into()], "{name}");
        }
        assert!(!is_localhost("notlocalhost") && !is_localhost("localhost.example"));
    }
}
