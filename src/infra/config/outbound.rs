//! Requests that the service makes itself.

use ipnet::IpNet;

use super::server::networks;
use super::source::{ConfigError, Loaded};

/// Settings of outbound requests.
#[derive(Clone, Debug)]
pub struct OutboundConfig {
    /// Networks that may be reached although they aren't on the public internet.
    pub allow: Vec<IpNet>,
}

impl OutboundConfig {
    pub(super) fn parse(loaded: &Loaded) -> Result<Self, ConfigError> {
        Ok(Self { allow: networks(loaded, "outbound_allow")? })
    }
}
