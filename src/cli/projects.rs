//! `keyward projects …`.

use crate::base::id::ProjectId;
use crate::base::page::Limit;
use crate::ctx::Ctx;
use crate::features::audit::By;
use crate::features::projects::manage::{self, Making, NewProject, Whose};
use crate::features::projects::{Status, end, store};

use super::args::{Format, Page, Projects};
use super::keys::{cursor, more, obeyed};
use super::users::person;
use super::{Failure, output};

pub(super) async fn run(ctx: &Ctx, command: Projects, format: Format) -> Result<(), Failure> {
    let by = By::system("cli", ctx);
    match command {
        Projects::Create { name, prefix, description, owner } => {
            let owner = match owner {
                Some(username) => Some(person(ctx, &username).await?.id),
                None => None,
            };
            let making = Making { caller: None, by: &by, owner, request: None };
            let made = manage::create(ctx, making, NewProject { name, prefix, description }).await?;
            obeyed().await;
            let view: serde_json::Value =
                serde_json::from_str(&made.body).map_err(|error| Failure::Refused(error.to_string()))?;
            match format {
                Format::Json => output::json(&view)?,
                Format::Table => {
                    let text = |field: &str| view[field].as_str().unwrap_or_default().to_owned();
                    output::say(&format!("made {} ({})", text("name"), text("id")));
                }
            }
        }
        Projects::List { user, deleted, page } => list(ctx, user, deleted, page, format).await?,
        Projects::Delete { id, force } => {
            let missing = || Failure::Refused("there is no such project".to_owned());
            let id: ProjectId = id.parse().map_err(|_| missing())?;
            let found = store::find(ctx.db.reader().await?.conn(), id).await?.ok_or_else(missing)?;
            if !force {
                output::confirm(&format!("Delete {} ({id})? Its keys are refused at once.", found.name))?;
            }
            let project = end::delete(ctx, &by, id).await?;
            obeyed().await;
            match format {
                Format::Json => output::json(&project)?,
                Format::Table => {
                    let until = project.purge_at.map(|at| at.to_string()).unwrap_or_default();
                    output::say(&format!("deleted {id}; it can be restored until {until}"));
                }
            }
        }
    }
    super::finish(ctx).await;
    Ok(())
}

async fn list(ctx: &Ctx, user: Option<String>, deleted: bool, page: Page, format: Format) -> Result<(), Failure> {
    let whose = match user {
        Some(username) => Whose::Member(person(ctx, &username).await?.id),
        None => Whose::All,
    };
    let after = cursor(page.cursor.as_deref())?;
    let status = deleted.then_some(Status::Deleted);
    let projects = manage::list(ctx, whose, status, after, Limit::new(page.limit).unwrap_or_default()).await?;
    match format {
        Format::Json => output::json(&projects)?,
        Format::Table => {
            let rows = projects.data.iter().map(|project| {
                vec![
                    project.id.to_string(),
                    project.name.clone(),
                    project.kind.word().to_owned(),
                    project.status.word().to_owned(),
                    project.prefix.clone(),
                    project.created_at.to_string(),
                ]
            });
            output::table(&["ID", "NAME", "KIND", "STATUS", "PREFIX", "CREATED"], rows);
            more(projects.next_cursor.as_deref());
        }
    }
    Ok(())
}
