//! Whether a service is up: a question, an answer within its time, and what was wrong, for people.

mod command;

use std::time::Duration;

use crate::ctx::Ctx;
use crate::infra::config::{CheckConfig, CheckKind};
use crate::infra::net::{Peer, Probe};

use super::rules::Seen;

/// Asks once.
pub async fn run(ctx: &Ctx, check: &CheckConfig) -> Seen {
    let begun = ctx.clock.monotonic();
    let result = match &check.kind {
        CheckKind::Http { url, status, body } => in_time(check.timeout, http(url, status, body.as_deref())).await,
        CheckKind::Tcp { address } => in_time(check.timeout, tcp(address)).await,
        // Ends what it has begun when the time is over.
        CheckKind::Command(line) => command::run(line, check.timeout).await,
    };
    let took = ctx.clock.monotonic().saturating_sub(begun);
    Seen {
        at: ctx.now(),
        ok: result.is_ok(),
        detail: result.err(),
        duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
    }
}

async fn in_time(most: Duration, asked: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    tokio::time::timeout(most, asked).await.unwrap_or_else(|_| Err("it took too long".to_owned()))
}

async fn http(url: &str, status: &[u16], body: Option<&str>) -> Result<(), String> {
    let heard = Probe::new(url).map_err(|error| error.to_string())?.get().await.map_err(|error| error.to_string())?;
    let code = heard.status.as_u16();
    let is_good = if status.is_empty() { heard.status.is_success() } else { status.contains(&code) };
    if !is_good {
        return Err(format!("status {code}"));
    }
    match body {
        Some(wanted) if !holds(&heard.body, wanted.as_bytes()) => {
            Err("the answer doesn't hold what it should".to_owned())
        }
        _ => Ok(()),
    }
}

fn holds(text: &[u8], wanted: &[u8]) -> bool {
    text.windows(wanted.len().max(1)).any(|window| window == wanted)
}

async fn tcp(address: &str) -> Result<(), String> {
    let peer = Peer::new(address).map_err(|error| error.to_string())?;
    peer.reach().await.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::holds;

    #[test]
    fn a_text_is_found_wherever_it_stands() {
        for (text, wanted, found) in
            [("status: ok", "ok", true), ("ok", "ok", true), ("o", "ok", false), ("", "ok", false)]
        {
            assert_eq!(holds(text.as_bytes(), wanted.as_bytes()), found, "{text}");
        }
    }
}
