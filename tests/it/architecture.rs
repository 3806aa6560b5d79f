//! Who may import whom, read from the code itself. The rule stands in `ARCHITECTURE.md`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Each source file under `src`, as (module path such as `features/keys/http/create.rs`, text without its tests).
fn sources() -> Vec<(String, String)> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &mut found);
    assert!(found.len() > 60, "found only {} files", found.len());
    found
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap().to_owned();
            (path.strip_prefix(&root).unwrap().to_string_lossy().into_owned(), code)
        })
        .collect()
}

/// Paths that a file names under `crate::` or `super::`, as segments from the crate's root; groups are taken apart.
fn imports(file: &str, code: &str) -> BTreeSet<Vec<String>> {
    let own: Vec<&str> = file.trim_end_matches(".rs").trim_end_matches("/mod").split('/').collect();
    let mut found = BTreeSet::new();
    let code: String = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    for (start, _) in code.match_indices("crate::").chain(code.match_indices("super::")) {
        if code[..start].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let rest = &code[start..];
        let mut base: Vec<String> = Vec::new();
        let mut tail = rest;
        if let Some(after) = rest.strip_prefix("crate::") {
            tail = after;
        } else {
            let mut up = 0;
            while let Some(after) = tail.strip_prefix("super::") {
                tail = after;
                up += 1;
            }
            base.extend(own[..own.len().saturating_sub(up)].iter().map(ToString::to_string));
        }
        expand(&base, tail, &mut found);
    }
    found
}

fn expand(base: &[String], tail: &str, found: &mut BTreeSet<Vec<String>>) {
    let mut path = base.to_vec();
    let mut rest = tail;
    loop {
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        if end > 0 {
            path.push(rest[..end].to_owned());
            rest = &rest[end..];
            match rest.strip_prefix("::") {
                Some(after) => rest = after,
                None => break,
            }
        } else if let Some(group) = rest.strip_prefix('{') {
            let (mut depth, mut start) = (0, 0);
            for (i, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' if depth > 0 => depth -= 1,
                    ',' | '}' if depth == 0 => {
                        expand(&path, group[start..i].trim(), found);
                        start = i + 1;
                        if c == '}' {
                            return;
                        }
                    }
                    _ => {}
                }
            }
            return;
        } else {
            break;
        }
    }
    found.insert(path);
}

const LAYERS: [&str; 6] = ["base", "infra", "gate", "ctx", "web", "features"];

fn layer(path: &str) -> usize {
    let first = path.split('/').next().unwrap().trim_end_matches(".rs");
    LAYERS.iter().position(|layer| *layer == first).unwrap_or(LAYERS.len())
}

#[test]
fn imports_go_one_way() {
    let mut wrong = Vec::new();
    for (file, code) in sources() {
        for import in imports(&file, &code) {
            let target =
                import.first().map_or(0, |first| if LAYERS.contains(&first.as_str()) { layer(first) } else { 0 });
            let is_top = ["server", "worker", "embed", "cli"].contains(&import.first().map_or("", String::as_str));
            let target = if is_top { LAYERS.len() } else { target };
            if target > layer(&file) {
                wrong.push(format!("{file} imports {}", import.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn inside_a_feature_http_stands_above_use_cases_above_rules_and_store() {
    let mut wrong = Vec::new();
    for (file, code) in sources() {
        let parts: Vec<&str> = file.split('/').collect();
        let ["features", own, rest @ ..] = parts.as_slice() else {
            continue;
        };
        let in_http = rest.first().is_some_and(|part| part.trim_end_matches(".rs") == "http");
        for import in imports(&file, &code) {
            let path: Vec<&str> = import.iter().map(String::as_str).collect();
            let ["features", feature, what @ ..] = path.as_slice() else {
                continue;
            };
            let names = |word: &str| what.first() == Some(&word);
            if names("http") && !(in_http && feature == own) {
                wrong.push(format!("{file} imports {}: only server.rs may", import.join("::")));
            }
            if rest == ["rules.rs"] && (names("store") || names("http")) {
                wrong.push(format!("{file} imports {}: rules decide without I/O", import.join("::")));
            }
            if rest == ["rules.rs"]
                && feature == own
                && what.first().is_some_and(|w| ["create", "change", "verify", "list", "login", "register"].contains(w))
            {
                wrong.push(format!("{file} imports {}: rules know no use-case", import.join("::")));
            }
            if ["webhooks", "alerts"].contains(feature) && feature != own {
                wrong.push(format!("{file} imports {}: they read events", import.join("::")));
            }
        }
        if rest == ["rules.rs"] && (code.contains("async fn") || code.contains("ctx::Ctx") || code.contains(".now()")) {
            wrong.push(format!("{file}: rules have no I/O and no clock"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn only_stores_speak_sql() {
    let mut wrong = Vec::new();
    for (file, code) in sources() {
        let may = file.ends_with("/store.rs") || file.starts_with("infra/db/");
        if !may
            && ["sqlx::query", "Sql::same(", "Sql::pick(", "crate::on!", "use crate::{on"]
                .iter()
                .any(|word| code.contains(word))
        {
            wrong.push(format!("{file}: SQL stands in store.rs"));
        }
        if file.ends_with("/store.rs") {
            for call in
                ["sqlx::query(\"", "sqlx::query_as(\"", "sqlx::query_scalar(\"", "sqlx::raw_sql", "AssertSqlSafe"]
            {
                if code.contains(call) {
                    wrong.push(format!("{file}: {call} isn't one of the declared statements"));
                }
            }
            let feature = file.split('/').nth(1).unwrap();
            if !crate::store::STORES.iter().any(|(name, _)| *name == feature) {
                wrong.push(format!("{file}: its statements aren't prepared by a test"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn only_the_guarded_client_calls_out() {
    let mut wrong = Vec::new();
    for (file, code) in sources() {
        for client in ["hyper::client", "hyper_util::client", "tokio_rustls", "reqwest", "rustls_native_certs"] {
            if !file.starts_with("infra/net/") && code.contains(client) {
                wrong.push(format!("{file}: {client} has its home in infra/net"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn files_fit_in_the_head() {
    let long: Vec<_> = sources()
        .into_iter()
        .map(|(file, code)| (code.lines().count(), file))
        .filter(|(lines, _)| *lines > 450)
        .collect();
    assert!(long.is_empty(), "past about 400 lines is two files: {long:?}");
}

#[test]
fn the_reader_of_imports_sees_what_stands_there() {
    let code = "use crate::base::{clock::Clock, id};\nuse super::super::store;\nfn f() { crate::features::keys::http::x() }\n// crate::cli\n";
    let found: Vec<String> =
        imports("features/users/http/me.rs", code).into_iter().map(|path| path.join("::")).collect();
    assert_eq!(found, ["base::clock::Clock", "base::id", "features::keys::http::x", "features::users::store"]);
}
