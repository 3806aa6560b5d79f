//! Session tokens: opaque, random, and known to the storage by their hash alone.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use crate::base::rng::Rng;
use crate::base::secret::Secret;

/// What tells a token from an API key in `Authorization: Bearer`; a key's last part is longer.
const PREFIX: &str = "kws_";

/// 256 random bits, so that a plain SHA-256 is enough to keep.
#[must_use]
pub fn generate(rng: &dyn Rng) -> Secret {
    let mut random = [0; 32];
    rng.fill(&mut random);
    Secret::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random)))
}

/// Whether a text has a token's form: the prefix and 43 characters.
#[must_use]
pub fn is_token(text: &str) -> bool {
    text.strip_prefix(PREFIX).is_some_and(|rest| rest.len() == 43)
}

/// What the storage knows a token by.
#[must_use]
pub fn hash(token: &str) -> Vec<u8> {
    Sha256::digest(token).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::SystemRng;

    #[test]
    fn a_token_has_its_form_and_a_key_never_has() {
        let token = generate(&SystemRng);
        assert!(is_token(token.expose()), "{}", token.expose());
        let key = crate::features::keys::format::NewSecret::generate("kws", &SystemRng);
        assert!(!is_token(key.secret.expose()));
        assert!(!is_token("") && !is_token("kws_") && !is_token(&token.expose()[1..]));
    }
}
