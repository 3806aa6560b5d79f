use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use proptest::prelude::*;

use super::*;
use crate::base::key_shape::checksum;

fn key(prefix: &str, random: &[u8; 32]) -> String {
    let head = format!("{prefix}_");
    let sum = checksum(&head, random);
    head + &URL_SAFE_NO_PAD.encode([&random[..], &sum].concat())
}

fn shown(secret: &str) -> String {
    let head = secret.len() - 48;
    format!("{}…{}", &secret[..head], &secret[secret.len() - 4..])
}

/// Percent, JSON and other forms of single characters.
fn written(byte: u8, form: usize) -> String {
    match form % 9 {
        0 => format!("%{byte:02x}"),
        1 => format!("%{byte:02X}"),
        2 => format!("%25{byte:02X}"),
        3 => format!("\\u{byte:04x}"),
        4 => format!("\\\\u{byte:04X}"),
        5 => format!("\\x{byte:02x}"),
        6 => format!("\\u{{{byte:x}}}"),
        7 => format!("&#{byte};"),
        _ => format!("&#x{byte:X};"),
    }
}

#[test]
fn a_key_is_masked_wherever_it_stands() {
    let random = std::array::from_fn(|i| u8::try_from(i * 7 % 256).unwrap());
    for prefix in ["sk", "acme_live", "a", "a1_b2_c3", "abcdefghijklmnop_q"] {
        let key = key(prefix, &random);
        let masked = shown(&key);
        for (before, after) in [
            ("", ""),
            ("key ", " end"),
            ("https://h/v1/keys/", "/revoke?x=1"),
            ("?api_key=", "&b=c"),
            ("{\"key\":\"", "\"}"),
            ("{\\\"key\\\":\\\"", "\\\"}"),
            ("XYZ", "xyz"),
            ("line\\n", "\\r\\n"),
            ("0_-_", "_-_0"),
            ("é", "é"),
            ("\u{200b}", "\u{feff}"),
            ("%0A", "%20"),
            ("%", "%5"),
            ("\\", "\\u00"),
            ("&#9", "&#x5"),
            (&"_".repeat(300), &"-".repeat(300)),
        ] {
            let text = format!("{before}{key}{after}");
            assert_eq!(mask_secrets(&text), format!("{before}{masked}{after}"), "{text}");
            assert!(holds_secret(&text));
        }
        let twice = format!("{key}{key},{key}");
        assert_eq!(mask_secrets(&twice), format!("{masked}{masked},{masked}"));
    }
}

#[test]
fn encodings_are_looked_through() {
    let key = key("sk", &[0xFB; 32]);
    let masked = shown(&key);
    for form in 0..9 {
        let underscore = key.replacen('_', &written(b'_', form), 1);
        assert_eq!(mask_secrets(&underscore), masked, "{underscore}");
        let all: String = key.bytes().map(|byte| written(byte, form)).collect();
        assert_eq!(mask_secrets(&format!("a={all}&b")), format!("a={masked}&b"), "{all}");
    }
    assert_eq!(mask_secrets(&key.replace('_', "\\_")), masked, "Markdown");
    assert_eq!(mask_secrets(&key.replacen('k', "k\u{200b}", 1)), masked, "unseen characters");
    assert_eq!(mask_secrets(&key.replacen('k', "k\\u200b", 1)), masked);
    assert_eq!(mask_secrets(&key.replace('_', "%25255f")), masked, "encoded three times");
}

#[test]
fn base64_is_looked_through_once() {
    let key = key("sk", &[0x41; 32]);
    for text in [format!("user:{key}"), key.clone(), format!("{{\"sub\":\"{key}\",\"n\":1}}"), format!("{key}:")] {
        for encoded in [STANDARD.encode(&text), URL_SAFE_NO_PAD.encode(&text)] {
            for around in ["", "Basic ", "Basic%20", "auth=", "/", "a", "ab", "abc", "eyJhbGciOiJub25lIn0."] {
                let whole = format!("{around}{encoded}");
                let masked = mask_secrets(&whole);
                assert!(masked.contains(&format!("sk_…{}", &key[key.len() - 4..])), "{whole}: {masked}");
                assert!(masked.len() < whole.len() - 40, "{masked}");
                assert!(masked.starts_with(around), "{masked}");
            }
        }
    }
    let percent = STANDARD.encode(format!("u:{key}")).replace('=', "%3D").replace('/', "%2F").replace('+', "%2B");
    assert!(holds_secret(&percent));
}

#[test]
fn tokens_and_the_secrets_of_webhooks_are_masked() {
    let body = URL_SAFE_NO_PAD.encode([7; 32]);
    let end = &body[39..];
    assert_eq!(mask_secrets(&format!("Bearer kws_{body}")), format!("Bearer kws_…{end}"));
    assert_eq!(mask_secrets(&format!("xkws%5F{body}!")), format!("xkws_…{end}!"));
    let secret = STANDARD.encode([0xFF; 24]);
    assert_eq!(mask_secrets(&format!("a whsec_{secret} of ours")), format!("a whsec_…{} of ours", &secret[28..]));
    // A key with the prefix of a token is a key.
    let key = key("kws", &[9; 32]);
    assert_eq!(mask_secrets(&key), shown(&key));
}

#[test]
fn what_only_looks_like_a_secret_stays() {
    let good = key("sk", &[3; 32]);
    let wrong = good.replace("sk_A", "sk_B");
    let hex = "0123456789abcdef".repeat(8);
    let id = "key_01K5ZV8QXW3M7C2R9T4B6D8F0G";
    for text in [
        "",
        "sk_",
        "whsec_short",
        "kws_",
        &wrong,
        &good[3..],
        &good.to_uppercase(),
        &hex,
        id,
        "whsec_…abcd",
        "sk_…AbCd",
    ] {
        assert!(matches!(mask_secrets(text), Cow::Borrowed(same) if same == text), "{text}");
        let long = format!("{text} {}", "word ".repeat(50));
        assert!(matches!(mask_secrets(&long), Cow::Borrowed(_)), "{text}");
    }
    assert_eq!(mask_secrets(&shown(&good)), shown(&good));
}

/// The most steps that a byte of text may cost, whatever it is.
const STEPS_A_BYTE: usize = 160;

fn steps(text: &str) -> usize {
    let mut work = 0;
    find(text.as_bytes(), &mut work);
    work
}

#[test]
fn hostile_texts_cost_linear_work() {
    let unit = 64 * 1024;
    let run = |length: usize| "a".repeat(length);
    for pattern in [
        "a_".to_owned(),
        "_".to_owned(),
        "a".to_owned(),
        format!("{}_", run(16)),
        format!("{} ", run(37)),
        format!("{} ", run(48)),
        format!("a_{}", run(48)),
        "%25".to_owned(),
        "25".to_owned(),
        "\\".to_owned(),
        "\\u005f".to_owned(),
        "&#".to_owned(),
        "&#00000000".to_owned(),
        "kws_".to_owned(),
        "whsec_".to_owned(),
        "\u{200b}".to_owned(),
        "é".to_owned(),
        STANDARD.encode("a_a_a_a_a_a_"),
    ] {
        let text = |bytes: usize| pattern.repeat(bytes / pattern.len());
        let (once, twice) = (steps(&text(unit)), steps(&text(unit * 2)));
        assert!(once <= STEPS_A_BYTE * unit, "{pattern}: {}", once / unit);
        assert!(twice <= once * 2 + once / 50 + 1000, "{pattern}: {once} {twice}");
    }
    let percents = format!("%{}", "25".repeat(unit));
    assert!(steps(&percents) <= STEPS_A_BYTE * percents.len());
}

#[test]
fn prose_is_jumped_over() {
    let text = "Text of people has a blank now and then. ".repeat(1000);
    assert!(steps(&text) < text.len() / 3, "{}", steps(&text));
}

proptest! {
    #[test]
    fn every_key_is_found(
        prefix in "[a-z][a-z0-9]{0,15}(_[a-z][a-z0-9]{0,15}){0,2}",
        random in any::<[u8; 32]>(),
        before in ".{0,70}",
        after in ".{0,70}",
        forms in proptest::collection::vec(0_usize..40, 100),
    ) {
        let key = key(&prefix, &random);
        let text: String = key
            .bytes()
            .zip(&forms)
            .map(|(byte, form)| if *form < 9 { written(byte, *form) } else { char::from(byte).to_string() })
            .collect();
        let masked = mask_secrets(&format!("{before}{text}{after}")).into_owned();
        prop_assert!(!masked.contains(&text), "{masked}");
        prop_assert!(masked.contains(&key[key.len() - 4..]));
        prop_assert!(!holds_secret(&masked), "{masked}");
    }

    #[test]
    fn nothing_is_found_in_anything_else(text in "[a-z_%\\\\&#;u0-9A-F-]{0,300}") {
        prop_assert!(matches!(mask_secrets(&text), Cow::Borrowed(_)));
    }

    #[test]
    fn anything_can_be_masked(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        drop(mask_secret_bytes(&bytes));
    }

    /// A line of a log stays JSON.
    #[test]
    fn json_stays_json(random in any::<[u8; 32]>(), around in ".{0,20}") {
        let value = serde_json::json!({ "message": format!("{around}{}{around}", key("sk", &random)) });
        let once = value.to_string();
        let nested = serde_json::json!([once]).to_string();
        for line in [once, nested] {
            let masked = mask_secrets(&line).into_owned();
            prop_assert!(serde_json::from_str::<serde_json::Value>(&masked).is_ok(), "{masked}");
        }
    }
}
