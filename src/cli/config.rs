//! `keyward config` and `keyward openapi`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use crate::base::clock::SystemClock;
use crate::base::rng::SystemRng;
use crate::ctx::Ctx;
use crate::infra::config::{Config, DatabaseUrl, Loaded};
use crate::infra::db::Db;
use crate::server;

use super::args::Format;
use super::{Failure, output};

/// Prints every setting.
pub(super) fn show(loaded: &Loaded, format: Format) -> Result<(), Failure> {
    let settings = loaded.shown().into_iter().map(|(key, value, source)| (key.to_owned(), value, source));
    let shown = settings.chain(loaded.shown_services());
    match format {
        Format::Json => {
            let map: BTreeMap<_, _> =
                shown.map(|(key, value, source)| (key, json!({ "value": value, "source": source }))).collect();
            output::json(&map)
        }
        Format::Table => {
            let rows = shown.map(|(key, value, source)| vec![key, value, source]);
            output::table(&["SETTING", "VALUE", "SOURCE"], rows);
            Ok(())
        }
    }
}

/// Prints the OpenAPI document, without touching the configured database.
pub(super) async fn openapi(mut config: Config) -> Result<(), Failure> {
    // The document comes from the handlers, which need a state to be made; a pool that is never used is enough.
    let scratch = std::env::temp_dir().join(format!("keyward-openapi-{}.db", std::process::id()));
    config.database.url = DatabaseUrl::Sqlite(scratch.clone());
    let db = Db::open(&config.database).await?;
    let ctx = Ctx::new(db, Arc::new(SystemClock::new()), Arc::new(SystemRng), config)?;
    let document = server::document(&ctx);
    ctx.db.close().await;
    // Best effort: it is a temporary file.
    drop(std::fs::remove_file(scratch));
    output::json(&document)
}
