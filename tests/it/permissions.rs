//! What `docs/permissions.md` says of scopes and roles is what the code does.

use keyward::features::auth::Role;
use keyward::features::auth::permission::{IN_PROJECTS, INSTANCE, ROLES};

#[test]
fn the_table_is_the_code() {
    let page = include_str!("../../docs/permissions.md");
    let said: Vec<&str> = page.lines().filter(|line| line.starts_with("| `keyward:")).collect();
    let row = |scope: &str, description: &str, in_projects: bool| {
        let roles = ROLES.map(|role| if in_projects && role.grants(scope) { "yes" } else { "" }).join(" | ");
        format!("| `{scope}` | {} | {roles} | yes |", description.trim())
    };
    let meant: Vec<String> = IN_PROJECTS
        .iter()
        .map(|(scope, description)| row(scope, description, true))
        .chain(INSTANCE.iter().map(|(scope, description)| row(scope, description, false)))
        .collect();
    assert_eq!(said, meant, "the table in docs/permissions.md should be:\n{}", meant.join("\n"));
    let roles = ROLES.map(Role::word).join(" | ");
    assert!(page.contains(&format!("| scope | allows | {roles} | administrator |")));
}
