//! `keyward users …`.

use std::io::{IsTerminal as _, Read as _};

use serde_json::json;

use crate::base::page::Limit;
use crate::base::secret::Secret;
use crate::ctx::Ctx;
use crate::features::audit::By;
use crate::features::users::admin::{self, Acting};
use crate::features::users::rules::Username;
use crate::features::users::store::{self, Filter};
use crate::features::users::{Account, Status, manage, register};

use super::args::{Format, Users};
use super::{Failure, output};

pub(super) async fn run(ctx: &Ctx, command: Users, format: Format) -> Result<(), Failure> {
    match command {
        Users::Create { username, admin } => {
            let password = new_password()?;
            let user = register::register(ctx, &By::system("cli", ctx), &username, &password, admin, None).await?;
            match format {
                Format::Json => output::json(&json!({
                    "id": user.id, "username": user.username, "is_admin": admin, "created_at": user.created_at,
                }))?,
                Format::Table => output::say(&format!("made {} ({})", user.username, user.id)),
            }
        }
        Users::List(page) => {
            let after = super::keys::cursor(page.cursor.as_deref())?;
            let users =
                manage::list(ctx, &Filter::default(), after, Limit::new(page.limit).unwrap_or_default()).await?;
            match format {
                Format::Json => output::json(&users)?,
                Format::Table => {
                    let rows = users.data.iter().map(|user| {
                        let state = match (user.status, user.is_admin) {
                            (Status::Disabled, _) => "disabled",
                            (Status::Active, true) => "administrator",
                            (Status::Active, false) => "active",
                        };
                        vec![user.id.to_string(), user.username.clone(), state.to_owned(), user.created_at.to_string()]
                    });
                    output::table(&["ID", "USERNAME", "STATE", "CREATED"], rows);
                    super::keys::more(users.next_cursor.as_deref());
                }
            }
        }
        Users::Disable { username } => {
            let id = person(ctx, &username).await?.id;
            let by = By::system("cli", ctx);
            let user = admin::disable(ctx, Acting { caller: None, by: &by }, id).await?;
            done("disabled", &user, format).await?;
        }
        Users::Enable { username } => {
            let id = person(ctx, &username).await?.id;
            let by = By::system("cli", ctx);
            let user = admin::enable(ctx, Acting { caller: None, by: &by }, id).await?;
            done("enabled", &user, format).await?;
        }
        Users::ResetPassword { username } => {
            let user = person(ctx, &username).await?;
            let password = new_password()?;
            let by = By::system("cli", ctx);
            admin::reset_password(ctx, Acting { caller: None, by: &by }, user.id, &password).await?;
            done("changed the password of", &user, format).await?;
        }
    }
    super::finish(ctx).await;
    Ok(())
}

/// Says what was done, once running services know.
async fn done(what: &str, user: &Account, format: Format) -> Result<(), Failure> {
    super::keys::obeyed().await;
    match format {
        Format::Json => output::json(user),
        Format::Table => {
            output::say(&format!("{what} {} ({})", user.username, user.id));
            Ok(())
        }
    }
}

/// Somebody by their name.
pub(super) async fn person(ctx: &Ctx, username: &str) -> Result<Account, Failure> {
    let missing = || Failure::Refused("there is no such person".to_owned());
    let username = Username::parse(username).map_err(|_| missing())?;
    let mut reader = ctx.db.reader().await?;
    let found = store::credentials(reader.conn(), &username).await?.ok_or_else(missing)?;
    Ok(store::find(reader.conn(), found.id).await?.ok_or_else(missing)?.into())
}

/// Asks twice on a terminal; reads one line otherwise.
fn new_password() -> Result<Secret, Failure> {
    if std::io::stdin().is_terminal() {
        let first = rpassword::prompt_password("Password: ")?;
        let second = rpassword::prompt_password("Once more: ")?;
        if first != second {
            return Err(Failure::Refused("the two passwords differ".to_owned()));
        }
        return Ok(Secret::new(first));
    }
    let mut text = String::new();
    std::io::stdin().take(64 * 1024).read_to_string(&mut text)?;
    Ok(Secret::new(text.lines().next().unwrap_or_default().to_owned()))
}
