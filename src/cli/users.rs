//! `keyward users …`.

use std::io::{IsTerminal as _, Read as _};

use serde_json::json;

use crate::base::page::Limit;
use crate::base::secret::Secret;
use crate::ctx::Ctx;
use crate::features::audit::By;
use crate::features::users::{manage, register};

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
            let users = manage::list(ctx, after, Limit::new(page.limit).unwrap_or_default()).await?;
            match format {
                Format::Json => output::json(&users)?,
                Format::Table => {
                    let rows = users.data.iter().map(|user| {
                        let state = match (user.disabled_at, user.is_admin) {
                            (Some(_), _) => "disabled",
                            (None, true) => "administrator",
                            (None, false) => "active",
                        };
                        vec![user.id.to_string(), user.username.clone(), state.to_owned(), user.created_at.to_string()]
                    });
                    output::table(&["ID", "USERNAME", "STATE", "CREATED"], rows);
                    super::keys::more(users.next_cursor.as_deref());
                }
            }
        }
    }
    ctx.db.close().await;
    Ok(())
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
