//! What each management route is called in the trail. A route that isn't here is none: it decides about keys, or tells
//! everybody the same. `tests/it/api/audit_acceptance.rs` holds this list against the OpenAPI document.

use axum::http::Method;

use crate::base::id::{DeliveryId, KeyId, ProjectId, SessionId, UserId, WebhookId};

/// A management route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Its method.
    pub method: &'static str,
    /// Its path, with the names of its parameters.
    pub template: &'static str,
    /// What it does: `noun.verb`.
    pub action: &'static str,
    /// With what kind of thing.
    pub resource: &'static str,
}

macro_rules! operations {
    ($($method:ident $template:literal $action:literal $resource:literal;)*) => {
        /// All of them.
        pub const OPERATIONS: &[Operation] = &[$(Operation {
            method: stringify!($method),
            template: $template,
            action: $action,
            resource: $resource,
        }),*];
    };
}

operations! {
    POST "/register" "user.create" "user";
    POST "/login" "session.create" "session";
    POST "/logout" "session.delete" "session";
    POST "/generate-key" "key.create" "key";
    GET "/list-keys" "keys.list" "project";
    POST "/revoke-key" "key.revoke" "key";
    GET "/v1/audit" "audit.list" "audit";
    GET "/v1/audit/{id}" "audit.read" "audit";
    GET "/v1/audit:stats" "audit.stats" "audit";
    GET "/v1/audit/checkpoints" "audit.list_checkpoints" "audit";
    GET "/v1/audit/keys" "audit.list_keys" "audit";
    GET "/v1/audit:export" "audit.export" "audit";
    GET "/v1/audit:verify" "audit.verify" "audit";
    GET "/v1/deliveries/{id}" "delivery.read" "delivery";
    POST "/v1/deliveries/{id}/retry" "delivery.retry" "delivery";
    GET "/v1/keys/self" "key.read" "key";
    GET "/v1/keys/{id}" "key.read" "key";
    PATCH "/v1/keys/{id}" "key.update" "key";
    DELETE "/v1/keys/{id}" "key.delete" "key";
    GET "/v1/keys/{id}/config/effective" "key.read" "key";
    POST "/v1/keys/{id}/disable" "key.disable" "key";
    POST "/v1/keys/{id}/enable" "key.enable" "key";
    GET "/v1/keys/{id}/limits" "key.read" "key";
    PUT "/v1/keys/{id}/limits" "key.update" "key";
    POST "/v1/keys/{id}/limits/reset" "key.reset_limits" "key";
    POST "/v1/keys/{id}/revoke" "key.revoke" "key";
    POST "/v1/keys/{id}/rotate" "key.rotate" "key";
    GET "/v1/keys/{id}/requests" "requests.list" "key";
    GET "/v1/keys/{id}/secrets" "key.read" "key";
    GET "/v1/keys/{id}/usage" "usage.read" "key";
    POST "/v1/keys/{id}/transfer" "key.transfer" "key";
    GET "/v1/projects" "projects.list" "project";
    POST "/v1/projects" "project.create" "project";
    GET "/v1/projects/{project}" "project.read" "project";
    PATCH "/v1/projects/{project}" "project.update" "project";
    DELETE "/v1/projects/{project}" "project.delete" "project";
    GET "/v1/projects/{project}/alerts" "alerts.list" "project";
    POST "/v1/projects/{project}/alerts" "alert.create" "alert";
    GET "/v1/projects/{project}/alerts/history" "alerts.history" "project";
    GET "/v1/projects/{project}/alerts/{id}" "alert.read" "alert";
    PATCH "/v1/projects/{project}/alerts/{id}" "alert.update" "alert";
    DELETE "/v1/projects/{project}/alerts/{id}" "alert.delete" "alert";
    POST "/v1/projects/{project}/alerts/{id}/test" "alert.test" "alert";
    GET "/v1/projects/{project}/config" "project.read" "project";
    PATCH "/v1/projects/{project}/config" "project.configure" "project";
    GET "/v1/projects/{project}/events" "events.list" "project";
    GET "/v1/projects/{project}/events/{event}" "event.read" "project";
    GET "/v1/projects/{project}/keys" "keys.list" "project";
    POST "/v1/projects/{project}/keys" "key.create" "key";
    GET "/v1/projects/{project}/keys:export" "keys.export" "project";
    POST "/v1/projects/{project}/keys:import" "keys.import" "project";
    GET "/v1/projects/{project}/members" "members.list" "project";
    POST "/v1/projects/{project}/members" "member.add" "member";
    GET "/v1/projects/{project}/members/{user}" "member.read" "member";
    PATCH "/v1/projects/{project}/members/{user}" "member.update" "member";
    DELETE "/v1/projects/{project}/members/{user}" "member.remove" "member";
    GET "/v1/projects/{project}/requests" "requests.list" "project";
    POST "/v1/projects/{project}/restore" "project.restore" "project";
    POST "/v1/projects/{project}/resume" "project.resume" "project";
    GET "/v1/projects/{project}/scopes" "scopes.list" "project";
    POST "/v1/projects/{project}/scopes" "scope.create" "scope";
    GET "/v1/projects/{project}/scopes/{name}" "scope.read" "scope";
    PATCH "/v1/projects/{project}/scopes/{name}" "scope.update" "scope";
    DELETE "/v1/projects/{project}/scopes/{name}" "scope.delete" "scope";
    GET "/v1/projects/{project}/scopes:export" "scopes.export" "project";
    POST "/v1/projects/{project}/scopes:from-openapi" "scopes.import" "project";
    POST "/v1/projects/{project}/scopes:import" "scopes.import" "project";
    GET "/v1/projects/{project}/sensitive-fields" "sensitive_fields.list" "project";
    POST "/v1/projects/{project}/sensitive-fields" "sensitive_field.create" "sensitive_field";
    GET "/v1/projects/{project}/sensitive-fields/{name}" "sensitive_field.read" "sensitive_field";
    PATCH "/v1/projects/{project}/sensitive-fields/{name}" "sensitive_field.update" "sensitive_field";
    DELETE "/v1/projects/{project}/sensitive-fields/{name}" "sensitive_field.delete" "sensitive_field";
    POST "/v1/projects/{project}/sensitive-fields:preview" "sensitive_fields.preview" "project";
    POST "/v1/projects/{project}/suspend" "project.suspend" "project";
    GET "/v1/projects/{project}/usage" "usage.read" "project";
    GET "/v1/projects/{project}/webhooks" "webhooks.list" "project";
    POST "/v1/projects/{project}/webhooks" "webhook.create" "webhook";
    GET "/v1/projects/{project}/webhooks/{id}" "webhook.read" "webhook";
    PATCH "/v1/projects/{project}/webhooks/{id}" "webhook.update" "webhook";
    DELETE "/v1/projects/{project}/webhooks/{id}" "webhook.delete" "webhook";
    GET "/v1/projects/{project}/webhooks/{id}/deliveries" "deliveries.list" "webhook";
    POST "/v1/projects/{project}/webhooks/{id}/replay" "webhook.replay" "webhook";
    POST "/v1/projects/{project}/webhooks/{id}/rotate-secret" "webhook.rotate_secret" "webhook";
    POST "/v1/projects/{project}/webhooks/{id}/test" "webhook.test" "webhook";
    GET "/v1/sensitive-fields" "sensitive_fields.list" "sensitive_field";
    POST "/v1/sensitive-fields" "sensitive_field.create" "sensitive_field";
    GET "/v1/sensitive-fields/{name}" "sensitive_field.read" "sensitive_field";
    PATCH "/v1/sensitive-fields/{name}" "sensitive_field.update" "sensitive_field";
    DELETE "/v1/sensitive-fields/{name}" "sensitive_field.delete" "sensitive_field";
    POST "/v1/sensitive-fields:preview" "sensitive_fields.preview" "sensitive_field";
    GET "/v1/services" "services.list" "service";
    GET "/v1/services/operations/{id}" "service.read" "service";
    GET "/v1/services/{name}" "service.read" "service";
    GET "/v1/services/{name}/history" "service.read" "service";
    POST "/v1/services/{name}/restart" "service.restart" "service";
    GET "/v1/system/log-level" "log_level.read" "process";
    PUT "/v1/system/log-level" "log_level.update" "process";
    GET "/v1/usage" "usage.read" "usage";
    GET "/v1/users" "users.list" "user";
    POST "/v1/users" "user.create" "user";
    GET "/v1/users/me" "user.read" "user";
    PUT "/v1/users/me/password" "user.change_password" "user";
    GET "/v1/users/me/sessions" "sessions.list" "session";
    DELETE "/v1/users/me/sessions/{session}" "session.delete" "session";
    GET "/v1/users/{id}" "user.read" "user";
    PATCH "/v1/users/{id}" "user.update" "user";
    DELETE "/v1/users/{id}" "user.delete" "user";
    POST "/v1/users/{id}/disable" "user.disable" "user";
    POST "/v1/users/{id}/enable" "user.enable" "user";
    PUT "/v1/users/{id}/password" "user.reset_password" "user";
}

/// Refusals whose entry the change itself has written, with more than is known from outside: action and code.
const WRITTEN: &[(&str, &str)] =
    &[("session.create", "invalid_credentials"), ("user.change_password", "wrong_password")];

/// The operation of a route.
#[must_use]
pub fn find(method: &Method, template: &str) -> Option<&'static Operation> {
    let method = if *method == Method::HEAD { "GET" } else { method.as_str() };
    OPERATIONS.iter().find(|operation| operation.template == template && operation.method == method)
}

impl Operation {
    /// Whether the change itself writes this refusal.
    #[must_use]
    pub fn writes(&self, code: &str) -> bool {
        WRITTEN.contains(&(self.action, code))
    }

    /// What a request is about: the last thing that its path names by an id. What can't be an id is never repeated, as it may
    /// be a secret that somebody put there.
    #[must_use]
    pub fn subject(&self, path: &str) -> (&'static str, Option<String>) {
        let parts = self.template.split('/').zip(path.split('/'));
        let named = parts.filter_map(|(name, text)| {
            let text = text.split(':').next().unwrap_or_default();
            let is = |good: bool, kind: &'static str| good.then(|| (kind, text.to_owned()));
            match name.split(':').next().unwrap_or_default() {
                "{project}" => is(text.parse::<ProjectId>().is_ok(), "project"),
                "{user}" => is(text.parse::<UserId>().is_ok(), "member"),
                "{session}" => is(text.parse::<SessionId>().is_ok(), "session"),
                "{id}" if self.resource == "key" => is(text.parse::<KeyId>().is_ok(), "key"),
                "{id}" if self.resource == "webhook" => is(text.parse::<WebhookId>().is_ok(), "webhook"),
                "{id}" if self.resource == "delivery" => is(text.parse::<DeliveryId>().is_ok(), "delivery"),
                "{id}" if self.resource == "user" => is(text.parse::<UserId>().is_ok(), "user"),
                _ => None,
            }
        });
        named.last().map_or((self.resource, None), |(kind, id)| (kind, Some(id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_has_one_name() {
        let mut routes: Vec<_> = OPERATIONS.iter().map(|operation| (operation.template, operation.method)).collect();
        routes.sort_unstable();
        routes.dedup();
        assert_eq!(routes.len(), OPERATIONS.len());
        for operation in OPERATIONS {
            assert!(operation.action.split('.').count() == 2 && operation.action.is_ascii(), "{operation:?}");
            assert!(operation.template.starts_with('/'), "{operation:?}");
        }
    }

    #[test]
    fn the_subject_is_the_last_thing_that_the_path_names() {
        let subject = |method: &str, template, path: &str| {
            let operation = find(&method.parse().unwrap(), template).unwrap();
            operation.subject(path)
        };
        let (project, user, key) =
            ("prj_01K5ZV8QXW3M7C2R9T4B6D8F0G", "usr_01K5ZV8QXW3M7C2R9T4B6D8F0G", "key_01K5ZV8QXW3M7C2R9T4B6D8F0G");
        let one = "/v1/projects/{project}/members/{user}";
        assert_eq!(
            subject("GET", one, &format!("/v1/projects/{project}/members/{user}")),
            ("member", Some(user.into()))
        );
        let keys = "/v1/projects/{project}/keys";
        assert_eq!(subject("POST", keys, &format!("/v1/projects/{project}/keys")), ("project", Some(project.into())));
        let export = "/v1/projects/{project}/keys:export";
        assert_eq!(subject("HEAD", export, &format!("/v1/projects/{project}/keys:export")).1.unwrap(), project);
        assert_eq!(subject("GET", "/v1/keys/{id}", &format!("/v1/keys/{key}")), ("key", Some(key.into())));
        assert_eq!(subject("GET", "/v1/keys/{id}", "/v1/keys/sk_secret"), ("key", None));
        assert_eq!(subject("POST", "/login", "/login"), ("session", None));
        assert!(find(&Method::POST, "/v1/keys/verify").is_none());
    }
}
