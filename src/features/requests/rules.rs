//! What is kept of the texts that a request brings: others wrote them, and may have put anything there.

use crate::base::masking::mask_secrets;

/// The most characters of an endpoint that are kept.
pub const ENDPOINT: usize = 512;
/// The most characters of what a client calls itself.
pub const USER_AGENT: usize = 256;
/// The most characters of a method.
pub const METHOD: usize = 32;
/// The most characters of a request's id.
pub const REQUEST_ID: usize = 128;

/// How much of a text is looked at: enough to see whole what begins in the part that is kept.
const LOOKED_AT: usize = 4_096;

/// A path without its query and fragment, which hold what nobody should keep.
#[must_use]
pub fn endpoint(path: &str) -> Box<str> {
    kept(path.split(['?', '#']).next().unwrap_or_default(), ENDPOINT)
}

/// A text without control characters and with Keyward's own secrets masked, cut to so many characters. Where it is cut it
/// ends with a whole word: half of something secret would no longer be recognised.
#[must_use]
pub fn kept(text: &str, most: usize) -> Box<str> {
    let plain: String = text.chars().filter(|c| !c.is_control()).take(LOOKED_AT).collect();
    let masked = mask_secrets(&plain);
    let Some((end, _)) = masked.char_indices().nth(most) else { return masked.into() };
    let (head, _) = masked.split_at(end);
    let in_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
    head.trim_end_matches(in_word).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_and_fragments_are_cut_away() {
        for (path, expected) in [
            ("/orders/42?token=hunter2", "/orders/42"),
            ("/orders#hunter2?x", "/orders"),
            ("/orders", "/orders"),
            ("?hunter2", ""),
            ("/größe/\u{1f980}\u{7}\u{85}\n", "/größe/\u{1f980}"),
        ] {
            assert_eq!(&*endpoint(path), expected, "{path}");
        }
    }

    #[test]
    fn keys_are_masked_wherever_they_stand() {
        let key = "sk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh-V_cIg";
        for text in [format!("/{}{key}", "x/".repeat(240)), format!("/keys/{key}/x"), key.replace('_', "%5F")] {
            for most in [ENDPOINT, 500, 498] {
                let kept = kept(&text, most);
                assert!(!kept.contains("BgcICQoL") && kept.chars().count() <= most, "{kept}");
            }
        }
    }

    #[test]
    fn what_is_too_long_ends_with_a_whole_word() {
        assert_eq!(&*kept("abc def", 7), "abc def");
        assert_eq!(&*kept("abc def", 6), "abc ");
        assert_eq!(&*kept("abc def", 4), "abc ");
        assert_eq!(&*kept(&"x".repeat(1000), 256), "");
        assert_eq!(&*kept(&"/é".repeat(1000), 5), "/é/é/");
        assert_eq!(kept(&"/".repeat(10_000), 512).len(), 512);
    }
}
