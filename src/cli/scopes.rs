//! `keyward scopes …`.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, Read as _, Write};
use std::path::Path;
use std::pin::pin;

use futures_util::TryStreamExt as _;

use crate::base::id::ProjectId;
use crate::base::page::Limit;
use crate::ctx::Ctx;
use crate::features::audit::By;
use crate::features::scopes::bulk::Bulk;
use crate::features::scopes::import::{self, Existing, Imported, Options};
use crate::features::scopes::store::Filter;
use crate::features::scopes::{Scope, ScopesError, described, export, manage, openapi};
use crate::web::extract::json::parse;

use super::args::{Described, Format, Scopes, Whose};
use super::keys::{cursor, more, obeyed, usage};
use super::{Failure, output};

/// As much as the service takes at once.
const MAX_FILE: u64 = 16 * 1024 * 1024;
/// The largest description of an API, which no request carries.
const MAX_DOCUMENT: u64 = 256 * 1024 * 1024;

pub(super) async fn run(ctx: &Ctx, command: Scopes, format: Format) -> Result<(), Failure> {
    match command {
        Scopes::List { whose, category, under, page } => {
            let project = project(ctx, &whose).await?;
            let under =
                under.map(|text| text.parse().map_err(|error| usage(format!("--under: {error}")))).transpose()?;
            let filter = Filter { category, under, ..Filter::default() };
            let after = cursor(page.cursor.as_deref())?;
            let scopes = manage::list(ctx, project, &filter, after, Limit::new(page.limit).unwrap_or_default()).await?;
            match format {
                Format::Json => output::json(&scopes)?,
                Format::Table => {
                    let rows = scopes.data.iter().map(|scope| {
                        let state = if scope.is_active { "active" } else { "inactive" };
                        let category = scope.category.clone().unwrap_or_default();
                        vec![scope.name.to_string(), state.to_owned(), category, scope.description.clone()]
                    });
                    output::table(&["NAME", "STATE", "CATEGORY", "DESCRIPTION"], rows);
                    more(scopes.next_cursor.as_deref());
                }
            }
        }
        Scopes::Import { file, whose, dry_run, partial } => {
            let project = project(ctx, &whose).await?;
            let options = Options { dry_run, partial, existing: Existing::Update, may_switch: true };
            bring(ctx, project, &file, options, format).await?;
        }
        Scopes::FromOpenapi(wish) => derive(ctx, wish, format).await?,
        Scopes::Export { whose, output } => write(ctx, project(ctx, &whose).await?, output.as_deref()).await?,
    }
    super::finish(ctx).await;
    Ok(())
}

async fn project(ctx: &Ctx, whose: &Whose) -> Result<ProjectId, Failure> {
    if whose.user.is_none() && whose.project.is_none() && !whose.system {
        return Err(usage("say whose catalogue it is: --user USERNAME, --project ID, or --system"));
    }
    Ok(super::keys::project(ctx, whose).await?.0)
}

async fn bring(ctx: &Ctx, project: ProjectId, file: &str, options: Options, format: Format) -> Result<(), Failure> {
    let bytes = read(file, MAX_FILE)?;
    let body: Bulk = parse(&bytes).map_err(|problem| Failure::Refused(format!("{file}: {}", problem.detail())))?;
    let options = Options { dry_run: options.dry_run || body.dry_run, ..options };
    let candidates = body.read().map_err(|invalid| Failure::Refused(format!("{file}: {invalid}")))?;
    let done = match import::import(ctx, &By::system("cli", ctx), project, candidates, options).await {
        Err(ScopesError::Refused(imported)) => {
            tell(&imported, format)?;
            return Err(Failure::Refused(imported.refusal()));
        }
        result => result?,
    };
    if !done.dry_run && done.created + done.updated > 0 {
        obeyed().await;
    }
    tell(&done, format)
}

async fn derive(ctx: &Ctx, wish: Described, format: Format) -> Result<(), Failure> {
    let mut options = openapi::Options {
        strategy: wish.strategy.parse().map_err(usage)?,
        namespace: wish
            .namespace
            .map(|text| text.parse().map_err(|error| usage(format!("--namespace: {error}"))))
            .transpose()?,
        ..openapi::Options::default()
    };
    for text in &wish.action {
        let (method, word) = text.split_once('=').ok_or_else(|| usage("--action: expected METHOD=WORD"))?;
        let method = method.parse().map_err(|error| usage(format!("--action: {error}")))?;
        options.actions.set(method, word.parse().map_err(|error| usage(format!("--action: {error}")))?);
    }
    let project = project(ctx, &wish.whose).await?;
    let document = read(&wish.file, MAX_DOCUMENT)?;
    let by = By::system("cli", ctx);
    let (done, derived) = described::bring(ctx, &by, project, document, options, wish.dry_run)
        .await
        .map_err(|error| Failure::Refused(format!("{}: {error}", wish.file)))?;
    if !done.dry_run && done.created > 0 {
        obeyed().await;
    }
    if format == Format::Json {
        return output::json(&serde_json::json!({ "imported": done, "derived": derived }));
    }
    let new: HashSet<&str> = done.scope_names.iter().map(Scope::as_str).collect();
    let rows = derived.scopes.iter().map(|scope| {
        let state = if new.contains(scope.name.as_str()) { "new" } else { "there" };
        vec![scope.name.to_string(), state.to_owned(), scope.operations.to_string(), scope.description.clone()]
    });
    output::table(&["NAME", "STATE", "OPERATIONS", "DESCRIPTION"], rows);
    for unmapped in &derived.unmapped {
        output::complain(&format!("no scope for {}: {}", unmapped.operation, unmapped.reason));
    }
    tell(&done, Format::Table)
}

/// What was done, and on the side what wasn't.
fn tell(done: &Imported, format: Format) -> Result<(), Failure> {
    if format == Format::Json {
        return output::json(done);
    }
    for error in &done.errors {
        output::complain(&format!("{}: {}", error.field, error.message));
    }
    if done.errors.is_empty() || done.created + done.updated + done.skipped > 0 {
        let would = if done.dry_run { "would be " } else { "" };
        let Imported { created, updated, skipped, .. } = done;
        output::say(&format!("{would}created {created}, {would}updated {updated}, unchanged {skipped}"));
    }
    Ok(())
}

fn read(file: &str, most: u64) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let failed = |error: std::io::Error| Failure::Refused(format!("{file}: {error}"));
    if file == "-" {
        std::io::stdin().take(most + 1).read_to_end(&mut bytes).map_err(failed)?;
    } else {
        File::open(file).map_err(failed)?.take(most + 1).read_to_end(&mut bytes).map_err(failed)?;
    }
    if bytes.len() as u64 > most {
        return Err(Failure::Refused(format!("{file}: it is larger than {} MiB", most / (1024 * 1024))));
    }
    Ok(bytes)
}

async fn write(ctx: &Ctx, project: ProjectId, file: Option<&Path>) -> Result<(), Failure> {
    let by = By::system("cli", ctx);
    export::begin(ctx, &by, project).await?;
    let mut pieces = pin!(export::pieces(ctx.clone(), by, project));
    let mut target: Box<dyn Write> = match file {
        Some(path) => Box::new(BufWriter::new(File::create(path).map_err(|error| named(path, &error))?)),
        None => Box::new(std::io::stdout().lock()),
    };
    while let Some(piece) = pieces.try_next().await? {
        target.write_all(&piece)?;
    }
    Ok(target.flush()?)
}

fn named(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Refused(format!("{}: {error}", path.display()))
}
