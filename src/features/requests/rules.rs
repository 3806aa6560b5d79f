//! What is kept of the texts that a request brings: others wrote them, and may have put anything there.

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

/// A text without control characters, cut to so many characters. Where it is cut it ends with a whole word: half of
/// something secret would no longer be recognised.
#[must_use]
pub fn kept(text: &str, most: usize) -> Box<str> {
    let plain: String = text.chars().filter(|c| !c.is_control()).take(LOOKED_AT).collect();
    let Some((end, _)) = plain.char_indices().nth(most) else { return plain.into() };
    let (head, _) = plain.split_at(end);
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
    fn what_is_too_long_ends_with_a_whole_word() {
        assert_eq!(&*kept("abc def", 7), "abc def");
        assert_eq!(&*kept("abc def", 6), "abc ");
        assert_eq!(&*kept("abc def", 4), "abc ");
        assert_eq!(&*kept(&"x".repeat(1000), 256), "");
        assert_eq!(&*kept(&"/é".repeat(1000), 5), "/é/é/");
        assert_eq!(kept(&"/".repeat(10_000), 512).len(), 512);
    }
}
