//! Strings and documents that hold keys, tokens, secrets of webhooks and passwords in unusual places, each with one of its
//! own, so that what is found says where it came from.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

/// A text with one of our own secrets in it, which nothing may keep.
pub struct Carrier {
    pub name: String,
    pub text: String,
    pub secret: String,
}

/// A document with a password under a name that tells, which may stand only where its owner put it.
pub struct Document {
    pub name: String,
    pub held: Value,
    pub password: String,
}

fn bytes(seed: usize) -> [u8; 32] {
    // Not random: a failure can be looked at again.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed as u64 + 1);
    std::array::from_fn(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    })
}

/// A key of the right form that nobody has.
pub fn key(prefix: &str, seed: usize) -> String {
    let head = format!("{prefix}_");
    let mut body = bytes(seed).to_vec();
    body.extend(crc32fast::hash(&[head.as_bytes(), &body].concat()).to_be_bytes());
    head + &URL_SAFE_NO_PAD.encode(body)
}

fn secret(kind: usize, seed: usize) -> String {
    match kind {
        0 => key(["sk", "acme_live", "k", "a1_b2_c3", "kws"][seed % 5], seed),
        1 => format!("kws_{}", URL_SAFE_NO_PAD.encode(bytes(seed))),
        _ => format!("whsec_{}", STANDARD.encode(&bytes(seed)[..24])),
    }
}

fn escaped(text: &str, form: impl Fn(u8) -> String) -> String {
    text.bytes().map(form).collect()
}

type Wrapper = (&'static str, fn(&str) -> String);

/// What may stand around a secret, or be done to it.
const WRAPPERS: &[Wrapper] = &[
    ("bare", |s| s.to_owned()),
    ("in a sentence", |s| format!("my key is {s}, don't tell")),
    ("in quotes", |s| format!("\"{s}\"")),
    ("in single quotes", |s| format!("'{s}'")),
    ("in back quotes", |s| format!("```{s}```")),
    ("in brackets", |s| format!("[{s}](<{s}>)")),
    ("in the path of a URL", |s| format!("https://h.example/v1/keys/{s}/revoke")),
    ("in the query of a URL", |s| format!("https://h.example/?a=b&api_key={s}&c=d")),
    ("in the fragment of a URL", |s| format!("https://h.example/#token={s}")),
    ("as the user of a URL", |s| format!("https://{s}@h.example/")),
    ("as the password of a URL", |s| format!("https://u:{s}@h.example:443/")),
    ("as a git remote", |s| format!("git+https://oauth2:{s}@git.example/x.git")),
    ("as a connection string", |s| format!("Server=h;User=u;Password={s};")),
    ("as a header", |s| format!("X-API-Key: {s}")),
    ("as bearer", |s| format!("Authorization: Bearer {s}")),
    ("as a cookie", |s| format!("Cookie: theme=dark; session={s}; x=1")),
    ("in curl", |s| format!("curl -H 'X-API-Key: {s}' https://h.example")),
    ("in several lines", |s| format!("first\nsecond {s}\nthird")),
    ("after a line break of Windows", |s| format!("first\r\n{s}\r\n")),
    ("in JSON", |s| json!({"a": [{"b": s}]}).to_string()),
    ("in JSON in JSON", |s| json!({"a": json!({"b": s}).to_string()}).to_string()),
    ("in JSON three deep", |s| json!([json!([json!([s]).to_string()]).to_string()]).to_string()),
    ("in broken JSON", |s| format!("{{\"key\": \"{s}")),
    ("in YAML", |s| format!("key:\n  value: {s}\n")),
    ("in XML", |s| format!("<key a=\"b\">{s}</key>")),
    ("in TOML", |s| format!("[a]\nkey = \"{s}\"")),
    ("in CSV", |s| format!("1,{s},x;{s}|{s}")),
    ("in an environment", |s| format!("export KEYWARD_KEY={s}")),
    ("in Rust's debug output", |s| format!("Some({s:?})")),
    ("in Python", |s| format!("{{'k': '{s}', 'n': None}}")),
    ("percent-encoded underscore", |s| s.replace('_', "%5F")),
    ("percent-encoded small", |s| s.replace('_', "%5f").replace('-', "%2d")),
    ("percent-encoded twice", |s| s.replace('_', "%255F")),
    ("percent-encoded thrice", |s| s.replace('_', "%25255f")),
    ("percent-encoded all", |s| escaped(s, |b| format!("%{b:02X}"))),
    ("percent-encoded around", |s| format!("redirect%3Fkey%3D{s}%26x%3D1")),
    ("percent-encoded by the book", |s| utf8_percent_encode(s, NON_ALPHANUMERIC).to_string()),
    ("JSON escapes", |s| s.replace('_', "\\u005f")),
    ("JSON escapes twice", |s| s.replace('_', "\\\\u005F")),
    ("JSON escapes all", |s| escaped(s, |b| format!("\\u{b:04x}"))),
    ("C escapes", |s| escaped(s, |b| format!("\\x{b:02x}"))),
    ("Rust escapes", |s| s.replace('_', "\\u{5f}")),
    ("HTML references", |s| s.replace('_', "&#95;")),
    ("HTML references, hexadecimal", |s| s.replace('_', "&#x5F;")),
    ("Markdown escapes", |s| s.replace('_', "\\_")),
    ("zero width around", |s| format!("\u{200b}{s}\u{feff}")),
    ("zero width within", |s| s.replacen('_', "\u{200d}_\u{200b}", 1)),
    ("soft hyphen within", |s| s.replacen('_', "_\u{ad}", 1)),
    ("marks of direction", |s| format!("\u{202e}{s}\u{202c}")),
    ("Cyrillic around", |s| format!("ключ{s}ключ")),
    ("wide letters around", |s| format!("ｓｋ＿{s}＿")),
    ("emoji around", |s| format!("🔑{s}🔑")),
    ("combining marks around", |s| format!("é\u{301}{s}\u{301}")),
    ("after letters", |s| format!("XYZ{s}")),
    ("after many underscores", |s| format!("{}{s}", "_".repeat(100))),
    ("between hyphens", |s| format!("--{s}-- ")),
    ("after a prefix of another", |s| format!("sk_{s}")),
    ("twice without a gap", |s| format!("{s}{s}")),
    ("basic", |s| format!("Basic {}", STANDARD.encode(format!("user:{s}")))),
    ("base64", |s| STANDARD.encode(s)),
    ("base64 of JSON", |s| URL_SAFE_NO_PAD.encode(json!({"auths": {"h": {"auth": s}}}).to_string())),
    ("in a JWT", |s| format!("eyJhbGciOiJub25lIn0.{}.c2ln", URL_SAFE_NO_PAD.encode(json!({"k": s}).to_string()))),
    ("base64 shifted by one", |s| format!("A{}", STANDARD.encode(format!("x{s}")))),
    ("base64, percent-encoded", |s| {
        utf8_percent_encode(&STANDARD.encode(format!("u:{s}")), NON_ALPHANUMERIC).to_string()
    }),
    ("in a path of a file", |s| format!("/home/u/.config/{s}.json")),
    ("as an address", |s| format!("{s}@mail.example")),
    ("as a tag", |s| format!("#{s} @{s}")),
];

/// Every kind of secret in every wrapper.
pub fn carriers() -> Vec<Carrier> {
    let mut all = Vec::new();
    for (number, (name, wrap)) in WRAPPERS.iter().enumerate() {
        for (kind, kind_name) in ["key", "token", "webhook's secret"].iter().enumerate() {
            let secret = secret(kind, number * 3 + kind);
            let text = wrap(&secret);
            // The secrets of webhooks are base64 with + and /, which some forms leave as they are.
            all.push(Carrier { name: format!("{kind_name} {name}"), text, secret });
        }
    }
    all
}

type Holder = (&'static str, fn(&str) -> Value);

/// Documents in which a name tells what is a password.
const DOCUMENTS: &[Holder] = &[
    ("password", |p| json!({"password": p})),
    ("deep", |p| json!({"a": {"b": [{"c": {"d": [[{"password": p}]]}}]}})),
    ("capitals", |p| json!({"PASSWORD": p})),
    ("camel case", |p| json!({"userPassword": p})),
    ("hyphens", |p| json!({"user-password": p})),
    ("dots", |p| json!({"spring.datasource.password": p})),
    ("blanks", |p| json!({"user password": p})),
    ("brackets", |p| json!({"user[password]": p})),
    ("unseen characters in the name", |p| json!({"pass\u{200b}word": p})),
    ("passwd", |p| json!({"passwd": p, "pwd": p})),
    ("passphrase", |p| json!({"passphrase": p})),
    ("api key", |p| json!({"apiKey": p, "api_key": p, "X-API-Key": p})),
    ("tokens", |p| json!({"accessToken": p, "refresh-token": p, "csrf_token": p})),
    ("secrets", |p| json!({"clientSecret": p, "secret": p, "aws_secret_access_key": p})),
    ("authorization", |p| json!({"Authorization": format!("Bearer {p}"), "proxy_authorization": p})),
    ("cookies", |p| json!({"Cookie": format!("sid={p}"), "set-cookie": [p, p]})),
    ("private key", |p| json!({"privateKey": format!("-----BEGIN PRIVATE KEY-----\n{p}\n-----END PRIVATE KEY-----")})),
    ("a list under the name", |p| json!({"tokens": [p, {"x": p}]})),
    ("an object under the name", |p| json!({"credentials": {"user": "u", "other": {"pass": p}}})),
    ("a list of headers", |p| json!({"headers": [{"name": "Authorization", "value": p}]})),
    ("a list of parameters", |p| json!({"parameters": [{"key": "password", "value": {"v": p}}]})),
    ("in a URL's user", |p| json!({"callback": format!("https://u:{p}@h.example/")})),
    ("in a query", |p| json!({"link": format!("https://h.example/?x=1&password={p}&y=2")})),
    ("in a query with an odd name", |p| json!({"link": format!("https://h.example/?api-key={p}#x")})),
    ("in a fragment", |p| json!({"link": format!("https://h.example/#access_token={p}")})),
    ("in a connection string", |p| json!({"db": format!("postgres://app:{p}@db.example/app")})),
    ("in another connection string", |p| json!({"db": format!("Server=h;Uid=u;Password={p};Ssl=1")})),
    ("JSON in a text", |p| json!({"body": json!({"login": {"password": p}}).to_string()})),
    ("JSON in JSON in a text", |p| json!({"body": json!({"b": json!({"password": p}).to_string()}).to_string()})),
    ("broken JSON in a text", |p| json!({"body": format!("{{\"user\": \"u\", \"password\": \"{p}\", ")})),
    ("escaped JSON in a text", |p| json!({"line": format!("got {{\\\"password\\\":\\\"{p}\\\"}}")})),
    ("YAML in a text", |p| json!({"file": format!("user: u\npassword: {p}\nhost: h")})),
    ("an environment in a text", |p| json!({"file": format!("A=1\nexport DB_PASSWORD='{p}'\nB=2")})),
    ("Python in a text", |p| json!({"repr": format!("{{'password': '{p}'}}")})),
    ("headers in a text", |p| json!({"dump": format!("GET / HTTP/1.1\r\nAuthorization: Basic {p}\r\nHost: h")})),
    ("a header's cookies in a text", |p| json!({"dump": format!("Cookie: a=1; sid={p}; b=2\n")})),
    ("bearer in a sentence", |p| json!({"log": format!("sent Bearer {p} to h")})),
    ("basic in a sentence", |p| json!({"log": format!("sent Basic {p} to h")})),
    ("a command line", |p| json!({"cmd": format!("tool --password={p} --x")})),
    ("quoted, with a blank", |p| json!({"cmd": format!("tool password=\"{p} and more\"")})),
    ("one-time", |p| json!({"otp": p, "pin": p})),
    ("card numbers", |p| json!({"card": {"cvv": p, "security_code": p}})),
    ("connection", |p| json!({"database_url": p, "dsn": p})),
    ("many at once", |p| json!({"a": {"token": p}, "b": [{"secret": p}], "c": {"jwt": p}})),
];

/// All of them, each with a password of its own.
pub fn documents() -> Vec<Document> {
    let made = DOCUMENTS.iter().enumerate().map(|(number, (name, hold))| {
        let password = format!("cnry{number:04}Zq7vX9kLmP4w");
        Document { name: (*name).to_owned(), held: hold(&password), password }
    });
    made.collect()
}
