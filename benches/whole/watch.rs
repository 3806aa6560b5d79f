//! What it costs that somebody is told of traffic: refusals that are noticed, keys that are used from ever other addresses, and
//! a project with many webhooks and alert rules.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use serde_json::json;

use super::Result;
use super::load::{Answer, Call, Compared, PLACEHOLDER, Target};
use super::scenarios::Scenarios;
use super::seed::Person;
use super::server::Server;

const VALID: Answer = Answer::Holds(&[r#""code":"VALID""#]);

/// Different addresses: more than the table of pairs has cells.
const ADDRESSES: u32 = 100_000;

/// A service of its own, with a person in it.
async fn service(of: &Scenarios, name: &str, more: &[(&str, &str)]) -> Result<(Server, Person)> {
    let home = of.bench.directory.join(format!("watch-{name}"));
    // What was measured before left its log and its keys.
    drop(fs::remove_dir_all(&home));
    let more = more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let settings: Vec<_> = of.settings.iter().cloned().chain(more).collect();
    let server = Server::keyward(&of.binary, &home, &settings).await?;
    let person = Person::register(&server, "ada").await?;
    Ok((server, person))
}

/// Clients as JSON, each as long as what it stands in for.
fn clients(of: &Scenarios) -> Result<PathBuf> {
    let mut all = String::new();
    for n in 0..ADDRESSES {
        let [_, a, b, c] = n.to_be_bytes();
        let client = format!(r#"{{"ip":"10.{a}.{b}.{c}"}}"#);
        write!(all, "{client:<width$}", width = PLACEHOLDER.len())?;
    }
    let file = of.bench.directory.join("clients");
    fs::write(&file, all)?;
    Ok(file)
}

/// Questions about one key from ever other addresses, against a service that doesn't look at them.
pub(super) async fn changing_addresses(of: &Scenarios) -> Result<Compared> {
    let file = clients(of)?;
    let mut asked = Vec::new();
    for (name, more) in [("careless", &[("KEYWARD_SUSPICION_ADDRESSES", "0")][..]), ("careful", &[])] {
        let (server, person) = service(of, name, more).await?;
        let key = person.key(of.limits(&["minute"])).await?;
        let body = format!(r#"{{"key":"{key}","client":{PLACEHOLDER}}}"#);
        let call = Call::post("/v1/keys/verify", body).header("x-api-key", &person.caller);
        asked.push((server, Call { keys: Some(file.clone()), ..call }));
    }
    compared(of, asked).await
}

/// The same questions in a project with 100 webhooks and 100 alert rules, against one with none.
pub(super) async fn watched(of: &Scenarios) -> Result<Compared> {
    let mut asked = Vec::new();
    for (name, count) in [("unwatched", 0), ("watched", 100)] {
        let (server, person) = service(of, name, &[]).await?;
        person.watch(count).await?;
        let key = person.key(of.limits(&["minute"])).await?;
        let call = Call::post("/v1/keys/verify", json!({ "key": key }).to_string());
        asked.push((server, call.header("x-api-key", &person.caller)));
    }
    compared(of, asked).await
}

async fn compared(of: &Scenarios, asked: Vec<(Server, Call)>) -> Result<Compared> {
    let target = |which: usize| Target::new(&asked[which].0, asked[which].1.clone(), VALID);
    let compared = of.bench.compare(&target(0), &target(1)).await?;
    for (server, _) in asked {
        server.end().await;
    }
    Ok(compared)
}
