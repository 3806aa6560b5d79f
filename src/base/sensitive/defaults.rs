//! What is sensitive wherever nobody says otherwise.

use std::sync::{Arc, OnceLock};

use super::{Layer, Rule, Strategy};

/// Redacted: credentials.
const REDACTED: &[&str] = &[
    "password",
    "*password*",
    "passwd",
    "*_passwd",
    "pwd",
    "*_pwd",
    "passphrase",
    "*_passphrase",
    "passcode",
    "pin",
    "*_pin",
    "otp",
    "totp",
    "mfa_code",
    "secret",
    "secrets",
    "*_secret",
    "*_secrets",
    "secret_key",
    "*_secret_key",
    "secret_access_key",
    "*_secret_access_key",
    "client_secret",
    "shared_secret",
    "webhook_secret",
    "token",
    "*_token",
    "tokens",
    "access_token",
    "refresh_token",
    "id_token",
    "auth_token",
    "session_token",
    "csrf_token",
    "xsrf_token",
    "bearer",
    "jwt",
    "api_key",
    "*_api_key",
    "api_keys",
    "api_secret",
    "access_key",
    "*_access_key",
    "auth",
    "auth_key",
    "authorization",
    "proxy_authorization",
    "credential",
    "credentials",
    "*_credentials",
    "cookie",
    "cookies",
    "set_cookie",
    "private_key",
    "*_private_key",
    "signing_key",
    "encryption_key",
    "connection_string",
    "database_url",
    "dsn",
    "cvv",
    "cvv2",
    "cvc",
    "card_cvc",
    "security_code",
];

/// Masked but for the last four characters: numbers by which people know what is meant.
const MASKED: &[&str] = &[
    "card_number",
    "*_card_number",
    "credit_card",
    "*_credit_card",
    "credit_card_number",
    "pan",
    "iban",
    "bank_account",
    "account_number",
    "routing_number",
    "ssn",
    "social_security_number",
    "national_id",
    "passport_number",
    "tax_id",
];

/// All of them.
pub fn layer() -> Arc<Layer> {
    static LAYER: OnceLock<Arc<Layer>> = OnceLock::new();
    Arc::clone(LAYER.get_or_init(|| {
        let rules = |names: &[&str], strategy| -> Vec<Rule> {
            names.iter().filter_map(|name| name.parse().ok()).map(|name| Rule::new(name, strategy)).collect()
        };
        let mut all = rules(REDACTED, Strategy::Redact);
        all.extend(rules(MASKED, Strategy::Mask));
        Arc::new(Layer::new(all))
    }))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_default_is_a_name_and_stands_once() {
        let layer = layer();
        assert_eq!(layer.rules().len(), REDACTED.len() + MASKED.len());
        let keys: HashSet<_> = layer.rules().iter().map(|rule| rule.name.key().to_owned()).collect();
        assert_eq!(keys.len(), layer.rules().len());
    }
}
