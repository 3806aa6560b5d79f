use proptest::prelude::*;

use super::*;

fn paths(patterns: &[&str]) -> Paths {
    Paths::new(patterns.iter().map(|pattern| pattern.parse().unwrap())).unwrap()
}

#[test]
fn methods_are_upper_case_tokens() {
    let list: Methods = serde_json::from_str(r#"["GET", "POST", "GET", "PROPFIND"]"#).unwrap();
    assert_eq!(serde_json::to_string(&list).unwrap(), r#"["GET","POST","PROPFIND"]"#);
    for (method, admitted) in [
        ("GET", true),
        ("POST", true),
        ("PROPFIND", true),
        ("get", false),
        ("Get", false),
        ("PUT", false),
        ("GE", false),
        ("GETS", false),
        ("GET POST", false),
        ("GET ", false),
        ("", false),
    ] {
        assert_eq!(list.admits(method), admitted, "{method}");
    }
    let none: Methods = serde_json::from_str("[]").unwrap();
    assert!(none.is_empty() && !none.admits("GET") && !none.admits(""));
    assert_eq!(serde_json::to_string(&none).unwrap(), "[]");
    for text in ["", "get", "Get", "GET ", "M-SEARCH", "GET1", "*", "ＧET", "ABCDEFGHIJKLMNOPQRSTU"] {
        assert_eq!(text.parse::<Method>(), Err(NotAMethod), "{text}");
    }
    assert!("ABCDEFGHIJKLMNOPQRST".parse::<Method>().is_ok());
    let read = |n: u8| {
        let names: Vec<String> = (0..n).map(|i| char::from(b'A' + i).to_string()).collect();
        serde_json::from_value::<Methods>(names.into())
    };
    assert_eq!(read(16).unwrap().iter().count(), MAX_METHODS);
    assert_eq!(read(17).unwrap_err().to_string(), "expected at most 16 entries");
}

#[test]
fn patterns_match_segment_by_segment() {
    for (pattern, matching, other) in [
        ("/", &["/", "/?x", "/#x"][..], &["/a", ""][..]),
        (
            "/orders",
            &["/orders", "/orders?", "/orders?a=/b/../c", "/orders#x", "/orders#x?y", "/orders?x#/y"],
            &["/orders/", "/order", "/orders1", "/Orders", "/orders/1", "/", "/%6frders", "/orders;a=1"],
        ),
        ("/orders/", &["/orders/"], &["/orders", "/orders/1"]),
        (
            "/orders/*",
            &["/orders/1", "/orders/*", "/orders/**", "/orders/a;b=c", "/orders/%20", "/orders/1?x"],
            &["/orders", "/orders/", "/orders/1/", "/orders/1/lines", "/orders/?x", "/orders/#x"],
        ),
        (
            "/users/*/avatar",
            &["/users/1/avatar"],
            &["/users/avatar", "/users/1/2/avatar", "/users/1/avatar/", "/users/1"],
        ),
        ("/*/*", &["/a/b"], &["/", "/a", "/a/", "/a/b/", "/a/b/c"]),
        ("/*/", &["/a/"], &["/", "/a", "/a/b"]),
        (
            "/orders/**",
            &["/orders", "/orders/", "/orders/1", "/orders/1/lines", "/orders/1/"],
            &["/orders1", "/order", "/"],
        ),
        ("/*/**", &["/a", "/a/", "/a/b/c"], &["/"]),
        (
            "/**",
            &[
                "/",
                "/a",
                "/a/",
                "/a/b/c",
                "/caf%C3%A9",
                "/a%20b",
                "/a%3Fb",
                "/100%25",
                "/100%25off",
                "/a%25%20b",
                "/%7Ea",
            ],
            &["", "a", "*"],
        ),
        ("/caf%C3%A9", &["/caf%C3%A9"], &["/caf%c3%a9", "/café"]),
        ("/a.b/.c/d..e", &["/a.b/.c/d..e"], &["/a.b/c/d..e"]),
    ] {
        let list = paths(&[pattern]);
        for path in matching {
            assert!(list.admits(path), "{pattern} {path}");
        }
        for path in other {
            assert!(!list.admits(path), "{pattern} {path}");
        }
    }
    let several = paths(&["/a", "/b/*", "/c/**"]);
    assert_eq!(
        ["/a", "/b/1", "/c/1/2", "/a /b/*", "/d"].map(|path| several.admits(path)),
        [true, true, true, false, false]
    );
}

/// The ways of writing a path that a service could read as another one.
const TRICKS: &[&str] = &[
    // Doesn't begin with a slash.
    "",
    "a",
    "*",
    "?/a",
    "#/a",
    "http://example.org/a",
    "\\a",
    "%2fa",
    " /a",
    "../a",
    // Empty segments.
    "//",
    "//a",
    "///a",
    "/a//b",
    "/a/b//",
    "//?x",
    // Dots.
    "/.",
    "/..",
    "/...",
    "/a/.",
    "/a/..",
    "/a/./b",
    "/a/../b",
    "/../a",
    "/a/..?x",
    "/a/..#x",
    "/a/.../b",
    // Dots and nothing, with parameters.
    "/a/..;/b",
    "/a/..;x=1/b",
    "/a/.;/b",
    "/a/;/b",
    "/;x/a",
    "/a/;",
    "/a/..%3b/b",
    "/a/..%3Bx/b",
    "/a/%3b/b",
    // Backslashes.
    "/\\",
    "/a\\b",
    "/a/..\\b",
    "/a\\..\\b",
    "/\\example.org",
    // Not visible ASCII.
    "/a\0",
    "/a\nb",
    "/a\r\nb",
    "/a\tb",
    "/a b",
    "/a\u{7f}",
    "/a\u{85}b",
    "/a ",
    "/café",
    "/a\u{ff0f}b",
    "/\u{ff0e}\u{ff0e}/b",
    "/a\u{200b}",
    // Encoded slash, backslash, dot, NUL and other control characters, in any case.
    "/a%2fb",
    "/a%2Fb",
    "/a%2f",
    "/%2f",
    "/a%5cb",
    "/a%5Cb",
    "/a%2eb",
    "/a%2Eb",
    "/%2e%2e/a",
    "/%2e./a",
    "/.%2E/a",
    "/a%00",
    "/a%00b",
    "/a/b%00.png",
    "/a%0a",
    "/a%0D%0ab",
    "/a%09",
    "/a%1f",
    "/a%7f",
    "/a%7F",
    // Encoded more than once, whole or in part.
    "/a%252fb",
    "/a%252Fb",
    "/a%255cb",
    "/%252e%252e/a",
    "/a%2500",
    "/a%25252fb",
    "/a%2525252eb",
    "/a%25%32%66b",
    "/a%252%66b",
    "/a%25%2532%2566b",
    // Overlong UTF-8.
    "/a%c0%afb",
    "/%C0%AE%c0%ae/a",
    "/a%c1%9cb",
    // Letters and digits that nobody encodes.
    "/%61",
    "/%41dmin",
    "/a%30",
    // Not an encoding at all.
    "/a%",
    "/a%2",
    "/a%zz",
    "/a%u002fb",
    "/a%2/b",
    "/%%32%66",
    "/a%+2",
    "/a%?41",
    // Fragments that a service could take for a part of the path.
    "/a#/../b",
    "/a#/b",
    "/a#\\..\\b",
    "/a#%2f..%2fb",
    "/a#x/y",
    "/a#\u{ff0f}",
    "/a# ",
    "/a#\n",
];

#[test]
fn a_path_with_two_meanings_is_never_admitted() {
    let all = paths(&["/**", "/a", "/a/**", "/*", "/*/*", "/a/*/b", "/a/b", "/*/"]);
    for trick in TRICKS {
        assert!(!all.admits(trick), "{trick:?}");
    }
}

#[test]
fn a_pattern_that_never_matches_is_refused() {
    use PatternError::{Below, Form, Never};
    let longest = format!("/{}", "a".repeat(255));
    assert!(longest.parse::<PathPattern>().is_ok());
    assert_eq!(format!("{longest}a").parse::<PathPattern>(), Err(Form));
    for (text, error) in [
        ("", Form),
        ("orders", Form),
        ("*", Form),
        ("**", Form),
        ("/a?x", Form),
        ("/a#x", Form),
        ("/a b", Form),
        ("/café", Form),
        ("/a\n", Form),
        ("/**/a", Below),
        ("/a/**/", Below),
        ("/a/**/b/**", Below),
        ("//", Never),
        ("/a/../b", Never),
        ("/.", Never),
        ("/a\\b", Never),
        ("/a%2Fb", Never),
        ("/a%", Never),
    ] {
        assert_eq!(text.parse::<PathPattern>(), Err(error), "{text}");
        assert!(error.to_string().starts_with("expected "));
    }
    for trick in TRICKS {
        assert!(trick.parse::<PathPattern>().is_err(), "{trick:?}");
    }
}

#[test]
fn lists_of_patterns_are_bounded_and_without_repetition() {
    let text = r#"["/orders/**","/users/*/avatar","/"]"#;
    let list: Paths = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&list).unwrap(), text);
    assert_eq!(list, paths(&["/orders/**", "/users/*/avatar", "/orders/**", "/"]));
    let none: Paths = serde_json::from_str("[]").unwrap();
    assert!(none.is_empty() && !none.admits("/") && !none.admits(""));
    let read = |n: usize| serde_json::from_value::<Paths>((0..n).map(|i| format!("/{i}")).collect::<Vec<_>>().into());
    assert_eq!(read(64).unwrap().iter().count(), MAX_PATTERNS);
    assert_eq!(Paths::new(vec!["/".parse().unwrap(); 65]), Err(TooMany(MAX_PATTERNS)));
    assert_eq!(read(65).unwrap_err().to_string(), "expected at most 64 entries");
    for bad in ["null", "{}", "\"/a\"", "[1]", "[null]", "[[\"/a\"]]", "[\"hunter2\"]"] {
        let message = serde_json::from_str::<Paths>(bad).unwrap_err().to_string();
        assert!(message.contains("expected ") && !message.contains("hunter2"), "{bad}: {message}");
    }
}

/// What a lenient service makes of a path: decodes it some times, takes backslashes for slashes, drops parameters and
/// empty segments, and walks.
fn walked(path: &str, decodings: u32) -> Vec<u8> {
    let mut bytes = path.as_bytes().to_vec();
    for _ in 0..decodings {
        let (mut decoded, mut i) = (Vec::new(), 0);
        while i < bytes.len() {
            let pair = bytes.get(i + 1..i + 3).and_then(|pair| std::str::from_utf8(pair).ok());
            if let Some(pair) = pair.filter(|pair| bytes[i] == b'%' && pair.bytes().all(|b| b.is_ascii_hexdigit())) {
                decoded.push(u8::from_str_radix(pair, 16).unwrap());
                i += 3;
            } else {
                decoded.push(bytes[i]);
                i += 1;
            }
        }
        bytes = decoded;
    }
    let mut stack: Vec<&[u8]> = Vec::new();
    for segment in bytes.split(|b| matches!(b, b'/' | b'\\')) {
        let name = segment.split(|b| *b == b';').next().unwrap();
        match name {
            b"" | b"." => {}
            b".." => {
                stack.pop();
            }
            name => stack.push(name),
        }
    }
    stack.join(&b'/')
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// Whatever is admitted below a place stays below it, for a service that decodes once, twice or three times.
    #[test]
    fn nothing_leaves_the_place_where_it_was_admitted(
        parts in proptest::collection::vec(proptest::sample::select(vec![
            "/", ".", "..", "%", "25", "2", "e", "f", "2e", "2f", "%2e", "%2F", "%5c", "%25", "%32", "%65", "\\", ";", "%3b", "a", "x=1", "#", "?",
        ]), 0..10),
    ) {
        let path = format!("/public/{}", parts.concat());
        if paths(&["/public/**"]).admits(&path) {
            let target = path.split('?').next().unwrap();
            for decodings in 0..4 {
                prop_assert!(walked(target, decodings).starts_with(b"public"), "{}", path);
            }
        }
    }

    /// The definition of a match, by recursion.
    #[test]
    fn matching_agrees_with_its_definition(pattern in "(/([ab]|\\*){0,1}){0,3}(/\\*\\*)?", path in "(/[ab]{0,1}){1,4}") {
        fn slow(pattern: &[&str], path: &[&str]) -> bool {
            match (pattern, path) {
                (["**"], _) => true,
                (["*", pattern @ ..], [segment, path @ ..]) => !segment.is_empty() && slow(pattern, path),
                ([literal, pattern @ ..], [segment, path @ ..]) => literal == segment && slow(pattern, path),
                (pattern, path) => pattern.is_empty() && path.is_empty(),
            }
        }
        if let Ok(parsed) = pattern.parse::<PathPattern>() {
            let (p, g): (Vec<_>, Vec<_>) = (pattern.split('/').collect(), path.split('/').collect());
            let expected = !path.contains("//") && slow(&p, &g);
            prop_assert_eq!(Paths::new([parsed]).unwrap().admits(&path), expected, "{} {}", pattern, path);
        }
    }

    #[test]
    fn anything_is_asked_without_panic(path in ".{0,40}|/[%./;0-9a-f]{0,20}") {
        let _ = paths(&["/**", "/a/*"]).admits(&path);
        if let Ok(pattern) = path.parse::<PathPattern>() {
            prop_assert_eq!(pattern.0, path);
        }
    }
}

#[test]
fn a_star_is_a_whole_segment() {
    for text in ["/a*", "/*a", "/a/b*c/d", "/***", "/a/***", "/**a"] {
        assert_eq!(text.parse::<PathPattern>(), Err(PatternError::Within), "{text}");
    }
}
