//! `keyward services …`.

use serde_json::json;

use crate::ctx::Ctx;
use crate::features::audit::By;
use crate::features::services::restart::{self, RestartError};
use crate::features::services::view;

use super::args::{Format, Services};
use super::{Failure, output};

pub(super) async fn run(ctx: &Ctx, command: Services, format: Format) -> Result<(), Failure> {
    match command {
        Services::List => list(ctx, format).await?,
        Services::Restart { name, reason } => {
            let name = name.parse().map_err(|_| RestartError::Unknown)?;
            let by = By::system("cli", ctx);
            let operation = restart::request(ctx, &by, &name, reason.as_deref()).await?;
            match format {
                Format::Json => output::json(&json!({ "operation_id": operation }))?,
                Format::Table => output::say(&format!("asked for {operation}: whoever watches {name} restarts it")),
            }
        }
    }
    super::finish(ctx).await;
    Ok(())
}

async fn list(ctx: &Ctx, format: Format) -> Result<(), Failure> {
    let services = view::all(ctx).await?;
    match format {
        Format::Json => output::json(&json!({ "data": services, "next_cursor": null }))?,
        Format::Table => {
            let rows = services.iter().map(|service| {
                let text = |at: Option<crate::base::clock::Timestamp>| at.map(|at| at.to_string()).unwrap_or_default();
                vec![
                    service.name.clone(),
                    service.kind.to_owned(),
                    service.state.word().to_owned(),
                    text(service.since),
                    service.restarts.to_string(),
                    text(service.last_check.as_ref().map(|check| check.seen.at)),
                    service.reason.clone().unwrap_or_default(),
                ]
            });
            output::table(&["NAME", "KIND", "STATE", "SINCE", "RESTARTS", "LAST CHECK", "REASON"], rows);
        }
    }
    Ok(())
}
