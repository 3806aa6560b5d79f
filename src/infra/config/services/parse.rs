//! From the file's tables to services.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::base::secret::Secret;
use crate::infra::net::{Peer, Probe};

use super::super::source::{ConfigError, Loaded};
use super::super::table::SETTINGS;
use super::fields::Fields;
use super::{
    CheckConfig, CheckKind, CommandLine, HookConfig, KEY, ProcessConfig, RestartPolicy, ServiceConfig, ServiceKind,
    ServiceName,
};

/// How many services there may be.
const MAX_SERVICES: usize = 64;
/// How many checks one may have.
const MAX_CHECKS: usize = 8;
/// How many words a command may have.
const MAX_WORDS: usize = 128;
/// The longest word, value or path, in bytes.
const MAX_WORD: usize = 4096;
/// How many variables an environment may have.
const MAX_VARIABLES: usize = 128;

const SERVICE: &[&str] = &[
    "name",
    "kind",
    "command",
    "directory",
    "environment",
    "pass_environment",
    "stop_grace",
    "url",
    "secret",
    "timeout",
    "start_period",
    "checks",
    "restart",
];
const COMMAND: [&str; 4] = ["command", "directory", "environment", "pass_environment"];
const CHECK: &[&str] = &[
    "name",
    "kind",
    "url",
    "status",
    "body",
    "address",
    "command",
    "directory",
    "environment",
    "pass_environment",
    "interval",
    "timeout",
    "failures",
    "successes",
];
const RESTART: &[&str] = &["after", "backoff", "backoff_max", "cooldown", "per_hour"];

/// Every service of the file, in the order of their names.
pub(in super::super) fn parse(loaded: &Loaded) -> Result<Vec<ServiceConfig>, ConfigError> {
    let Some((value, source)) = loaded.services() else { return Ok(Vec::new()) };
    let wrong = |reason: String| ConfigError::Service { place: KEY.to_owned(), reason, source_of: source.clone() };
    let toml::Value::Array(entries) = value else {
        return Err(wrong("expected [[services]] tables".to_owned()));
    };
    if entries.len() > MAX_SERVICES {
        return Err(wrong(format!("expected at most {MAX_SERVICES} services")));
    }
    let mut services = BTreeMap::new();
    for (at, entry) in entries.iter().enumerate() {
        let mut fields = Fields::open(format!("{KEY}[{at}]"), entry.clone(), SERVICE, source)?;
        let service = service(&mut fields)?;
        if services.contains_key(&service.name) {
            return Err(fields.invalid("name", "another service has it already"));
        }
        services.insert(service.name.clone(), service);
    }
    Ok(services.into_values().collect())
}

fn service(fields: &mut Fields) -> Result<ServiceConfig, ConfigError> {
    let name = fields.needed("name", 63)?;
    let name: ServiceName = name.parse().map_err(|error| fields.invalid("name", format!("{error}")))?;
    fields.call(format!("{KEY}.{name}"));
    let kind = match fields.needed("kind", 32)?.as_str() {
        "process" => ServiceKind::Process(ProcessConfig {
            command: command(fields)?,
            stop_grace: fields.duration("stop_grace", 10, 0..=300)?,
        }),
        "http" => ServiceKind::Http(hook(fields)?),
        "watch" => ServiceKind::Watch,
        _ => return Err(fields.invalid("kind", "expected process, http or watch")),
    };
    fields.refuse(&COMMAND, "only a service of the kind process has it")?;
    fields.refuse(&["stop_grace"], "only a service of the kind process has it")?;
    fields.refuse(&["url", "secret", "timeout"], "only a service of the kind http has it")?;
    let checks = checks(fields)?;
    if checks.is_empty() && !matches!(kind, ServiceKind::Process(_)) {
        return Err(fields.invalid("checks", "expected at least one: only a process can do without"));
    }
    let start_period = fields.duration("start_period", 5, 0..=3600)?;
    let restart = policy(fields)?;
    if restart.is_some() && matches!(kind, ServiceKind::Watch) {
        return Err(fields.invalid("restart", "a service of the kind watch can't be restarted"));
    }
    Ok(ServiceConfig { name, kind, checks, restart, start_period })
}

fn hook(fields: &mut Fields) -> Result<HookConfig, ConfigError> {
    let url = fields.needed("url", MAX_WORD)?;
    Probe::check(&url).map_err(|error| fields.invalid("url", error.to_string()))?;
    let secret = fields.needed("secret", 256)?;
    let bytes = secret.strip_prefix("whsec_").and_then(|text| STANDARD.decode(text).ok()).map(|bytes| bytes.len());
    if !bytes.is_some_and(|length| (24..=64).contains(&length)) {
        return Err(fields.invalid("secret", "expected whsec_ and base64 of 24 to 64 random bytes"));
    }
    Ok(HookConfig { url, secret: Secret::new(secret), timeout: fields.duration("timeout", 10, 1..=60)? })
}

fn command(fields: &mut Fields) -> Result<CommandLine, ConfigError> {
    let words = fields.texts("command", MAX_WORD, MAX_WORDS)?;
    if !words.first().is_some_and(|program| program.starts_with('/')) {
        return Err(fields.invalid(
            "command",
            "expected the program's absolute path and its arguments, as a list: there is no shell and no search path",
        ));
    }
    let directory = fields.text("directory", MAX_WORD)?.map(PathBuf::from);
    if directory.as_ref().is_some_and(|path| !path.is_absolute()) {
        return Err(fields.invalid("directory", "expected an absolute path"));
    }
    let pass_environment = fields.texts("pass_environment", 256, MAX_VARIABLES)?;
    let is_ours = |name: &String| name.starts_with("KEYWARD_") || SETTINGS.iter().any(|setting| setting.env == name);
    if !pass_environment.iter().all(|name| is_variable(name)) || pass_environment.iter().any(is_ours) {
        return Err(
            fields.invalid("pass_environment", "expected names of variables, none of them one of Keyward's own")
        );
    }
    Ok(CommandLine { words, directory, environment: environment(fields)?, pass_environment })
}

fn environment(fields: &mut Fields) -> Result<BTreeMap<String, Secret>, ConfigError> {
    let wrong = |fields: &Fields| {
        fields.invalid("environment", "expected a table of names and texts, such as { RUST_LOG = \"info\" }")
    };
    let table = match fields.take("environment") {
        None => return Ok(BTreeMap::new()),
        Some(toml::Value::Table(table)) if table.len() <= MAX_VARIABLES => table,
        Some(_) => return Err(wrong(fields)),
    };
    let pair = |(name, value): (String, toml::Value)| match value {
        toml::Value::String(text) if is_variable(&name) && text.len() <= MAX_WORD && !text.contains('\0') => {
            Some((name, Secret::new(text)))
        }
        _ => None,
    };
    table.into_iter().map(pair).collect::<Option<_>>().ok_or_else(|| wrong(fields))
}

fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn checks(fields: &mut Fields) -> Result<Vec<CheckConfig>, ConfigError> {
    let entries = match fields.take("checks") {
        None => return Ok(Vec::new()),
        Some(toml::Value::Array(entries)) if entries.len() <= MAX_CHECKS => entries,
        Some(_) => return Err(fields.invalid("checks", format!("expected at most {MAX_CHECKS} tables"))),
    };
    let mut names = BTreeSet::new();
    let mut checks = Vec::new();
    for (at, entry) in entries.into_iter().enumerate() {
        let mut inner = Fields::open(format!("{}[{at}]", fields.at("checks")), entry, CHECK, fields.source())?;
        let check = check(&mut inner, at)?;
        if !names.insert(check.name.clone()) {
            return Err(inner.invalid("name", "another check of this service has it already"));
        }
        checks.push(check);
    }
    Ok(checks)
}

fn check(fields: &mut Fields, at: usize) -> Result<CheckConfig, ConfigError> {
    let kind = match fields.needed("kind", 32)?.as_str() {
        "http" => {
            let url = fields.needed("url", MAX_WORD)?;
            Probe::check(&url).map_err(|error| fields.invalid("url", error.to_string()))?;
            CheckKind::Http { url, status: statuses(fields)?, body: fields.text("body", 256)? }
        }
        "tcp" => {
            let address = fields.needed("address", 300)?;
            Peer::new(&address).map_err(|_| fields.invalid("address", "expected host:port"))?;
            CheckKind::Tcp { address }
        }
        "command" => CheckKind::Command(command(fields)?),
        _ => return Err(fields.invalid("kind", "expected http, tcp or command")),
    };
    fields.refuse(&["url", "status", "body"], "only a check of the kind http has it")?;
    fields.refuse(&["address"], "only a check of the kind tcp has it")?;
    fields.refuse(&COMMAND, "only a check of the kind command has it")?;
    let name = fields.text("name", 63)?.unwrap_or_else(|| format!("{}-{at}", kind.word()));
    if name.parse::<ServiceName>().is_err() {
        return Err(fields.invalid("name", "expected 1 to 63 of a-z 0-9 - _, beginning with a letter or a digit"));
    }
    Ok(CheckConfig {
        name,
        kind,
        interval: fields.duration("interval", 10, 1..=86_400)?,
        timeout: fields.duration("timeout", 5, 1..=60)?,
        failures: fields.number("failures", 3, 1..=100)?,
        successes: fields.number("successes", 1, 1..=100)?,
    })
}

fn statuses(fields: &mut Fields) -> Result<Vec<u16>, ConfigError> {
    let wrong = |fields: &Fields| fields.invalid("status", "expected a status from 200 to 599, or a list of up to 16");
    let Some(value) = fields.take("status") else { return Ok(Vec::new()) };
    let entries = match value {
        toml::Value::Array(entries) if (1..=16).contains(&entries.len()) => entries,
        toml::Value::Integer(_) => vec![value],
        _ => return Err(wrong(fields)),
    };
    let status = |entry: &toml::Value| {
        entry.as_integer().and_then(|number| u16::try_from(number).ok()).filter(|status| (200..600).contains(status))
    };
    entries.iter().map(status).collect::<Option<_>>().ok_or_else(|| wrong(fields))
}

fn policy(fields: &mut Fields) -> Result<Option<RestartPolicy>, ConfigError> {
    let Some(value) = fields.take("restart") else { return Ok(None) };
    let mut inner = Fields::open(fields.at("restart"), value, RESTART, fields.source())?;
    let policy = RestartPolicy {
        after: inner.number("after", 3, 1..=100)?,
        backoff: inner.duration("backoff", 1, 0..=3600)?,
        backoff_max: inner.duration("backoff_max", 300, 0..=86_400)?,
        cooldown: inner.duration("cooldown", 10, 0..=86_400)?,
        per_hour: inner.number("per_hour", 10, 1..=1000)?,
    };
    if policy.backoff_max < policy.backoff {
        return Err(inner.invalid("backoff_max", "expected at least the backoff"));
    }
    Ok(Some(policy))
}

/// Each value by its path, secrets hidden.
pub(in super::super) fn shown(value: &toml::Value) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    for (at, entry) in value.as_array().into_iter().flatten().enumerate() {
        let name = entry.get("name").and_then(toml::Value::as_str).filter(|name| name.parse::<ServiceName>().is_ok());
        let place = name.map_or_else(|| format!("{KEY}[{at}]"), |name| format!("{KEY}.{name}"));
        flatten(&place, entry, false, &mut rows);
    }
    rows
}

fn flatten(place: &str, value: &toml::Value, secret: bool, rows: &mut Vec<(String, String)>) {
    match value {
        toml::Value::Table(table) => {
            for (name, inner) in table {
                let secret = secret || name == "secret" || name == "environment";
                flatten(&format!("{place}.{name}"), inner, secret, rows);
            }
        }
        toml::Value::Array(entries) if entries.iter().any(toml::Value::is_table) => {
            for (at, inner) in entries.iter().enumerate() {
                flatten(&format!("{place}[{at}]"), inner, secret, rows);
            }
        }
        _ if secret => rows.push((place.to_owned(), "[secret]".to_owned())),
        toml::Value::String(text) => {
            // What stands behind the question mark may be a token.
            let shown = text.split_once('?').filter(|_| place.rsplit('.').next() == Some("url"));
            rows.push((place.to_owned(), shown.map_or_else(|| text.clone(), |(head, _)| format!("{head}?[secret]"))));
        }
        other => rows.push((place.to_owned(), other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::super::super::Config;
    use super::*;

    fn read(text: &str) -> Result<Vec<ServiceConfig>, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let loaded = Loaded::load(Some(file.path()), [], []).map_err(|error| error.to_string())?;
        Config::parse(&loaded).map(|config| config.services).map_err(|error| error.to_string())
    }

    const WHOLE: &str = r#"
        [[services]]
        name = "worker"
        kind = "process"
        command = ["/bin/worker", "--queue", "a b; rm -rf /"]
        directory = "/srv"
        environment = { TOKEN = "hunter2" }
        pass_environment = ["PATH"]
        stop_grace = "30s"
        restart = { after = 2, backoff = "2s", backoff_max = "1m", cooldown = 0, per_hour = 4 }

        [[services.checks]]
        kind = "http"
        url = "http://127.0.0.1:9000/health?token=hunter2"
        status = [200, 204]
        body = "ok"
        interval = "5s"
        timeout = 2
        failures = 4
        successes = 2

        [[services]]
        name = "api"
        kind = "http"
        url = "https://hooks.example/restart"
        secret = "whsec_aHVudGVyMmh1bnRlcjJodW50ZXIyaHVudGVyMg=="
        checks = [{ kind = "tcp", address = "db.internal:5432", name = "port" }]
    "#;

    #[test]
    fn services_are_read_in_the_order_of_their_names() {
        let services = read(WHOLE).unwrap();
        assert_eq!(services.iter().map(|service| service.name.as_str()).collect::<Vec<_>>(), ["api", "worker"]);
        let worker = &services[1];
        let ServiceKind::Process(process) = &worker.kind else { panic!("{worker:?}") };
        assert_eq!(process.command.words, ["/bin/worker", "--queue", "a b; rm -rf /"]);
        assert_eq!((process.stop_grace.as_secs(), worker.start_period.as_secs()), (30, 5));
        assert_eq!(process.command.environment["TOKEN"].expose(), "hunter2");
        let check = &worker.checks[0];
        assert_eq!((check.name.as_str(), check.failures, check.successes), ("http-0", 4, 2));
        assert_eq!((check.interval.as_secs(), check.timeout.as_secs()), (5, 2));
        let policy = worker.restart.unwrap();
        assert_eq!((policy.after, policy.backoff.as_secs(), policy.per_hour), (2, 2, 4));
        assert!(services[0].restart.is_none() && services[0].checks[0].name == "port");
        assert!(!format!("{:?}", process.command.environment).contains("hunter2"));
        assert!(read("").unwrap().is_empty());
    }

    #[test]
    fn what_is_shown_holds_no_secret() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(WHOLE.as_bytes()).unwrap();
        let shown = Loaded::load(Some(file.path()), [], []).unwrap().shown_services();
        let of = |key: &str| shown.iter().find(|row| row.0 == key).map(|row| row.1.as_str());
        assert_eq!(of("services.worker.environment.TOKEN"), Some("[secret]"));
        assert_eq!(of("services.api.secret"), Some("[secret]"));
        assert_eq!(of("services.worker.checks[0].url"), Some("http://127.0.0.1:9000/health?[secret]"));
        assert_eq!(of("services.worker.restart.per_hour"), Some("4"));
        assert!(shown.iter().all(|row| !row.1.contains("hunter2") && !row.1.contains("aHVu")), "{shown:?}");
    }

    #[test]
    fn what_is_wrong_is_refused_with_its_place_and_never_shown() {
        let tcp = "checks = [{ kind = \"tcp\", address = \"a:1\" }]";
        let watch = format!("[[services]]\nname = \"web\"\nkind = \"watch\"\n{tcp}\n");
        for (text, place) in [
            ("services = 1", "services can't be used"),
            ("[[service]]\nname = \"web\"", "did you mean services?"),
            ("[[services]]\nkind = \"watch\"", "services[0].name"),
            ("[[services]]\nname = \"Web\"\nkind = \"watch\"", "services[0].name"),
            ("[[services]]\nname = \"a/../b\"\nkind = \"watch\"", "services[0].name"),
            ("[[services]]\nname = \"operations\"\nkind = \"watch\"", "services[0].name"),
            ("[[services]]\nname = \"web\"\nkind = \"docker\"", "services.web.kind"),
            ("[[services]]\nname = \"web\"\nkind = \"watch\"", "services.web.checks"),
            (&format!("{watch}{watch}"), "services.web.name"),
            (&format!("{watch}intervall = 3"), "unknown setting services[0].intervall"),
            (&format!("{watch}chekcs = []"), "did you mean checks?"),
            (&format!("{watch}url = \"https://a\""), "services.web.url"),
            (&format!("{watch}command = [\"/bin/true\"]"), "services.web.command"),
            (&format!("{watch}[services.restart]\nafter = 1"), "services.web.restart"),
            (&format!("{watch}start_period = \"2d\""), "services.web.start_period"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(place), "{text}: {error}");
        }
        for (check, place) in [
            ("kind = \"icmp\"", "checks[0].kind"),
            ("kind = \"tcp\", address = \"nowhere\"", "checks[0].address"),
            ("kind = \"tcp\", address = \"a:0\"", "checks[0].address"),
            ("kind = \"tcp\", address = \"a:1/x\"", "checks[0].address"),
            ("kind = \"tcp\", address = \"a:1\", url = \"http://a\"", "checks[0].url"),
            ("kind = \"tcp\", address = \"a:1\", intervall = 1", "did you mean interval?"),
            ("kind = \"tcp\", address = \"a:1\", interval = 0", "checks[0].interval"),
            ("kind = \"tcp\", address = \"a:1\", timeout = \"2m\"", "checks[0].timeout"),
            ("kind = \"tcp\", address = \"a:1\", failures = 0", "checks[0].failures"),
            ("kind = \"tcp\", address = \"a:1\", successes = 1.5", "checks[0].successes"),
            ("kind = \"http\", url = \"file:///etc/passwd\"", "checks[0].url"),
            ("kind = \"http\", url = \"http://u:hunter2@a/\"", "checks[0].url"),
            ("kind = \"http\", url = \"http://a/\", status = [100]", "checks[0].status"),
            ("kind = \"http\", url = \"http://a/\", status = []", "checks[0].status"),
            ("kind = \"command\", command = \"/bin/true hunter2\"", "checks[0].command"),
            ("kind = \"command\", command = [\"true\"]", "checks[0].command"),
            ("kind = \"command\", command = []", "checks[0].command"),
        ] {
            let error = read(&format!("[[services]]\nname = \"web\"\nkind = \"watch\"\nchecks = [{{ {check} }}]"))
                .expect_err(check);
            assert!(error.contains(place) && !error.contains("hunter2"), "{check}: {error}");
        }
        for (field, place) in [
            ("pass_environment = [\"DATABASE_URL\"]", "services.web.pass_environment"),
            ("pass_environment = [\"KEYWARD_ADMIN_PASSWORD\"]", "services.web.pass_environment"),
            ("pass_environment = [\"A=hunter2\"]", "services.web.pass_environment"),
            ("environment = { \"A B\" = \"hunter2\" }", "services.web.environment"),
            ("environment = { A = 1 }", "services.web.environment"),
            ("directory = \"srv\"", "services.web.directory"),
            ("stop_grace = \"1h\"", "services.web.stop_grace"),
            ("restart = { backoff = 10, backoff_max = 5 }", "services.web.restart.backoff_max"),
            ("restart = { per_hour = 0 }", "services.web.restart.per_hour"),
            ("restart = { afer = 1 }", "did you mean after?"),
        ] {
            let error =
                read(&format!("[[services]]\nname = \"web\"\nkind = \"process\"\ncommand = [\"/bin/true\"]\n{field}"))
                    .expect_err(field);
            assert!(error.contains(place) && !error.contains("hunter2"), "{field}: {error}");
        }
        for secret in ["hunter2", "whsec_hunter2", "whsec_aHVudGVyMg=="] {
            let text = format!(
                "[[services]]\nname = \"web\"\nkind = \"http\"\nurl = \"https://a/\"\nsecret = \"{secret}\"\n{tcp}"
            );
            let error = read(&text).expect_err(secret);
            assert!(error.contains("services.web.secret") && !error.contains(secret), "{error}");
        }
    }
}
