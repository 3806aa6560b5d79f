//! Members over HTTP.

mod change;
mod list;

use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ctx::Ctx;
use crate::features::auth::forbidden;
use crate::web::problem::Problem;

use super::MemberError;

/// The routes.
pub fn router() -> OpenApiRouter<Ctx> {
    OpenApiRouter::new().routes(routes!(list::list, change::add)).routes(routes!(
        list::get,
        change::patch,
        change::remove
    ))
}

fn no_member() -> Problem {
    Problem::not_found("member_not_found", "There is no such member.")
}

impl From<MemberError> for Problem {
    fn from(error: MemberError) -> Self {
        let conflict = |code, detail: &'static str| Self::new(StatusCode::CONFLICT, code, detail);
        match error {
            MemberError::NoProject => Self::not_found("project_not_found", "There is no such project."),
            MemberError::NoUser => Self::not_found("user_not_found", "Nobody has this username."),
            MemberError::NoMember => no_member(),
            MemberError::Already => conflict("already_member", "They are a member already; change their role instead."),
            MemberError::Forbidden => forbidden(),
            MemberError::NotHeld => Self::new(
                StatusCode::FORBIDDEN,
                "role_not_held",
                "Nobody gives or takes a role that grants more than they hold themselves.",
            ),
            MemberError::Restricted => Self::new(
                StatusCode::FORBIDDEN,
                "restriction_not_held",
                "A key that ends, or that is restricted itself, gives no roles.",
            ),
            MemberError::LastOwner => {
                conflict("last_owner", "A project keeps an owner: make another member owner before.")
            }
            MemberError::NotATeam => {
                conflict("not_a_team", "A personal project is its person's alone; make a project for a team.")
            }
            MemberError::Claimed(claimed) => claimed.into(),
            MemberError::Storage(error) => error.into(),
        }
    }
}
