//! What is measured, and the table of it.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tokio::time::sleep;

use super::Result;
use super::load::{Answer, Bench, Call, Compared, PLACEHOLDER, Run, Target};
use super::seed::{PASSWORD, Person, strangers};
use super::server::Server;
use super::watch;

/// Where a million keys are compared with few.
const FEW: u32 = 1_000;

const VALID: Answer = Answer::Holds(&[r#""code":"VALID""#]);

const FOUR: Answer = Answer::Holds(&[r#""code":"VALID""#, r#""minute""#, r#""hour""#, r#""day""#, r#""month""#]);

const LIMITED: Answer = Answer::Holds(&[r#""code":"RATE_LIMITED""#]);

const NAMES: [&str; 24] = [
    "bare POST",
    "verify: one window",
    "verify: four windows, three scopes",
    "verify: asked by a person",
    "verify: malformed",
    "verify: unknown",
    "verify: scope missing",
    "verify: limit used up",
    "verify: many keys",
    "notices: refused",
    "notices: changing addresses",
    "watched: 100 webhooks, 100 alert rules",
    "recording: usage and the log",
    "recording: usage",
    "telemetry: the log",
    "telemetry: export, 5 % traced",
    "telemetry: export, all traced",
    "telemetry: log and export, 5 % traced",
    "GET /key/32",
    "GET /v1/keys/self",
    "POST /login",
    "flood: 8 others",
    "flood: 64 others",
    "guessing",
];

/// A service that says nothing and counts nothing.
const OBLIVIOUS: [(&str, &str); 2] = [("KEYWARD_LOG", "off"), ("KEYWARD_USAGE", "off")];

/// A service that says nothing.
const SILENT: [(&str, &str); 1] = [("KEYWARD_LOG", "off")];

/// The settings of a run.
pub(super) struct Scenarios {
    pub(super) bench: Bench,
    pub(super) binary: PathBuf,
    /// How many keys are many.
    pub(super) many: u32,
    pub(super) settings: Vec<(String, String)>,
    /// Whether keys are made with limits of their own.
    pub(super) own_limits: bool,
}

impl Scenarios {
    /// Measures what has one of these names, or everything, and prints the table. Whether nothing failed.
    pub(super) async fn run(&self, names: &[String]) -> Result<bool> {
        let mut world =
            World { of: self, ceiling: OnceCell::new(), everything: OnceCell::new(), crowds: Default::default() };
        let mut report = Report::default();
        let wanted = |scenario: &&str| names.is_empty() || names.iter().any(|name| scenario.contains(name.as_str()));
        for scenario in NAMES.into_iter().filter(wanted) {
            eprintln!("{scenario} ...");
            if let Err(error) = world.measure(scenario, &mut report).await {
                eprintln!("  {error}");
                report.failures.push(format!("{scenario}: {error}"));
            }
        }
        report.print(&self.bench);
        world.end().await;
        Ok(report.failures.is_empty())
    }

    /// The windows of a key, none of which is ever used up.
    pub(super) fn limits(&self, windows: &[&str]) -> Option<Value> {
        let names = [("minute", "1m"), ("hour", "1h"), ("day", "1d"), ("month", "30d")];
        let chosen = names.iter().filter(|(name, _)| windows.contains(name));
        let limits = chosen.map(|(name, window)| json!({ "name": name, "limit": 1_000_000_000, "window": window }));
        self.own_limits.then(|| limits.collect())
    }
}

/// A server with many keys, each of which was asked about.
struct Crowd {
    server: Server,
    person: Person,
    /// Keys to ask about, as many in every crowd.
    keys: PathBuf,
}

/// Servers are started when they are first needed.
struct World<'a> {
    of: &'a Scenarios,
    ceiling: OnceCell<Server>,
    /// Keyward, with everything switched on.
    everything: OnceCell<(Server, Person)>,
    /// With few and with many keys.
    crowds: [OnceCell<Crowd>; 2],
}

fn question(key: &str) -> Call {
    Call::post("/v1/keys/verify", json!({ "key": key }).to_string())
}

impl World<'_> {
    async fn measure(&self, scenario: &'static str, report: &mut Report) -> Result<()> {
        let bench = &self.of.bench;
        let row = |against, wanted| Row { scenario: scenario.to_owned(), against, wanted, ..Row::default() };
        match scenario {
            "bare POST" => {
                let ceiling = self.ceiling().await?;
                let get = Target::new(ceiling, Call::get("/"), Answer::Holds(&["OK"]));
                let post = question(PLACEHOLDER).at("/").header("x-api-key", PLACEHOLDER);
                let compared = bench.compare(&get, &Target::new(ceiling, post, VALID)).await?;
                report.row(Row { scenario: "bare GET".to_owned(), run: Some(compared.base.clone()), ..Row::default() });
                report.row(row("bare GET", "").compared(compared));
            }
            "verify: one window" => {
                let key = self.person().await?.key(self.of.limits(&["minute"])).await?;
                report.row(self.asked(row("bare POST", ""), question(&key), VALID).await?);
            }
            "verify: four windows, three scopes" => {
                let key = self.person().await?.key(self.of.limits(&["minute", "hour", "day", "month"])).await?;
                let asked = json!({ "key": key, "scopes": ["orders:read", "users:read", "billing:invoices:read"] });
                let four = if self.of.own_limits { FOUR } else { VALID };
                let call = Call::post("/v1/keys/verify", asked.to_string());
                report.row(self.asked(row("bare POST", "≥ 0.80, p99 ≤ 1.6"), call, four).await?);
            }
            "verify: asked by a person" => {
                let key = self.person().await?.key(self.of.limits(&["minute"])).await?;
                let bearer = format!("Bearer {}", self.person().await?.token);
                report.row(
                    self.posted(row("bare POST", ""), question(&key).header("authorization", &bearer), VALID).await?,
                );
            }
            "verify: malformed" => {
                let malformed = Answer::Holds(&[r#""code":"MALFORMED""#]);
                report.row(self.asked(row("bare POST", ""), question(PLACEHOLDER), malformed).await?);
            }
            "verify: unknown" => {
                let unknown = fs::read_to_string(strangers(&bench.directory, 1)?)?;
                let not_found = Answer::Holds(&[r#""code":"NOT_FOUND""#]);
                report.row(self.asked(row("bare POST", ""), question(&unknown), not_found).await?);
            }
            "verify: scope missing" => {
                let key = self.person().await?.key(self.of.limits(&["minute"])).await?;
                let asked = json!({ "key": key, "scopes": ["billing:invoices:write"] });
                let missing = Answer::Holds(&[r#""code":"INSUFFICIENT_SCOPE""#]);
                let call = Call::post("/v1/keys/verify", asked.to_string());
                report.row(self.asked(row("bare POST", ""), call, missing).await?);
            }
            "verify: limit used up" => {
                let key = self.used_up().await?;
                report.row(self.asked(row("bare POST", ""), question(&key), LIMITED).await?);
            }
            "verify: many keys" => self.many_keys(report).await?,
            "notices: refused" => report.row(row("admitted", "≥ 0.90").compared(self.refused().await?)),
            "notices: changing addresses" => {
                report.row(row("not looked at", "≥ 0.95").compared(watch::changing_addresses(self.of).await?));
            }
            "watched: 100 webhooks, 100 alert rules" => {
                report.row(row("none", "≥ 0.95").compared(watch::watched(self.of).await?));
            }
            "recording: usage and the log" => {
                report.row(self.told(row("neither", "≥ 0.90"), &OBLIVIOUS, &[]).await?);
            }
            "recording: usage" => {
                report.row(self.told(row("neither", ""), &OBLIVIOUS, &SILENT).await?);
            }
            "telemetry: the log" => {
                report.row(self.told(row("no log", "≥ 0.90"), &SILENT, &[]).await?);
            }
            "telemetry: export, 5 % traced" => {
                report.row(self.told(row("the log alone", ""), &[], &[("KEYWARD_OTLP_SAMPLE", "0.05")]).await?);
            }
            "telemetry: export, all traced" => {
                report.row(self.told(row("the log alone", ""), &[], &[("KEYWARD_OTLP_SAMPLE", "1")]).await?);
            }
            "telemetry: log and export, 5 % traced" => {
                report.row(self.told(row("no log", ""), &SILENT, &[("KEYWARD_OTLP_SAMPLE", "0.05")]).await?);
            }
            "GET /key/32" => report.row(self.got(row("bare GET", ""), Call::get("/key/32"), Answer::Bytes(32)).await?),
            "GET /v1/keys/self" => {
                let key = self.person().await?.key(self.of.limits(&["minute"])).await?;
                let call = Call::get("/v1/keys/self").header("x-api-key", &key);
                report.row(self.got(row("bare GET", ""), call, Answer::Holds(&["billing worker"])).await?);
            }
            "POST /login" => {
                let (server, _) = self.everything().await?;
                // Somebody else: a person's oldest log-in ends when there are too many.
                Person::register(server, "grace").await?;
                let who = json!({ "username": "grace", "password": PASSWORD });
                let call = Call::post("/login", who.to_string());
                let target = Target::new(server, call, Answer::Holds(&[r#""token""#])).connections(4);
                report.row(Row { run: Some(bench.alone(&target).await?), ..row("", "") });
            }
            "flood: 8 others" => self.flood(8, row("no flood", "p99 ≤ 2.0"), report).await?,
            "flood: 64 others" => self.flood(64, row("no flood", "p99 ≤ 2.0"), report).await?,
            "guessing" => self.guessing(row("no guesses", "p99 ≤ 1.5"), report).await?,
            _ => return Err("no such scenario".into()),
        }
        Ok(())
    }

    /// A question of the project's gateway against the bare POST.
    async fn asked(&self, row: Row, call: Call, answer: Answer) -> Result<Row> {
        let call = call.header("x-api-key", &self.person().await?.caller);
        self.posted(row, call, answer).await
    }

    async fn posted(&self, row: Row, call: Call, answer: Answer) -> Result<Row> {
        // The same bytes for both: their parsing is on both sides.
        let base = Target::new(self.ceiling().await?, call.at("/"), VALID);
        let variant = Target::new(&self.everything().await?.0, call, answer);
        Ok(row.compared(self.of.bench.compare(&base, &variant).await?))
    }

    async fn got(&self, row: Row, call: Call, answer: Answer) -> Result<Row> {
        let base = Target::new(self.ceiling().await?, call.at("/"), Answer::Holds(&["OK"]));
        let variant = Target::new(&self.everything().await?.0, call, answer);
        Ok(row.compared(self.of.bench.compare(&base, &variant).await?))
    }

    /// The same question to two services that differ in what they say of themselves. Where the second exports, it does so to a
    /// collector that takes everything.
    async fn told(&self, row: Row, base: &[(&str, &str)], variant: &[(&str, &str)]) -> Result<Row> {
        let directory = &self.of.bench.directory;
        let exports = variant.iter().any(|(name, _)| name.starts_with("KEYWARD_OTLP"));
        let collector = if exports { Some(Server::collector(directory).await?) } else { None };
        let mut asked = Vec::new();
        for (name, more) in [("base", base), ("variant", variant)] {
            let endpoint = collector.as_ref().filter(|_| name == "variant").map(|collector| &collector.url);
            let endpoint = endpoint.map(|url| ("KEYWARD_OTLP_ENDPOINT".to_owned(), url.clone()));
            let more = more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            let settings: Vec<_> = self.of.settings.iter().cloned().chain(more).chain(endpoint).collect();
            let home = directory.join(format!("told-{name}"));
            // Both are new: what was measured before left its log and its keys.
            drop(fs::remove_dir_all(&home));
            let server = Server::keyward(&self.of.binary, &home, &settings).await?;
            let person = Person::register(&server, "ada").await?;
            let key = person.key(self.of.limits(&["minute"])).await?;
            asked.push((server, question(&key).header("x-api-key", &person.caller)));
        }
        let target = |which: usize| Target::new(&asked[which].0, asked[which].1.clone(), VALID);
        let compared = self.of.bench.compare(&target(0), &target(1)).await?;
        for server in asked.into_iter().map(|(server, _)| server).chain(collector) {
            server.end().await;
        }
        Ok(row.compared(compared))
    }

    /// A key whose limit is used up for an hour.
    async fn used_up(&self) -> Result<String> {
        let (server, person) = self.everything().await?;
        let limits = json!([{ "name": "hour", "limit": 1, "window": "1h" }]);
        let key = person.key(self.of.own_limits.then_some(limits)).await?;
        let call = question(&key).header("x-api-key", &person.caller);
        Target::new(server, call, VALID).check().await?;
        Ok(key)
    }

    /// Refusals, each of which is noticed, against admissions.
    async fn refused(&self) -> Result<Compared> {
        let (server, person) = self.everything().await?;
        let ask = |key: &str| question(key).header("x-api-key", &person.caller);
        let admitted = Target::new(server, ask(&person.key(self.of.limits(&["hour"])).await?), VALID);
        let refused = Target::new(server, ask(&self.used_up().await?), LIMITED);
        self.of.bench.compare(&admitted, &refused).await
    }

    /// The same load with few keys and with many, and what a key takes of memory.
    async fn many_keys(&self, report: &mut Report) -> Result<()> {
        let (few, many) = (self.crowd(0).await?, self.crowd(1).await?);
        let targets = [few, many].map(|crowd| Target::new(&crowd.server, crowd.question(), VALID));
        let compared = self.of.bench.compare(&targets[0], &targets[1]).await?;
        let scenario = format!("verify: {} keys", grouped(f64::from(self.of.many)));
        report.row(Row { scenario, against: "1,000 keys", wanted: "≥ 0.95", ..Row::default() }.compared(compared));
        // What writing the last uses down took is given back within ten seconds.
        sleep(Duration::from_secs(15)).await;
        let [few, many] = [few.server.resident()?, many.server.resident()?];
        report.note(format!(
            "Memory: {} MB with {} keys, {} MB with {}: {} bytes a key (wanted: under 600).",
            many >> 20,
            grouped(f64::from(self.of.many)),
            few >> 20,
            grouped(f64::from(FEW)),
            many.saturating_sub(few) / u64::from(self.of.many - FEW),
        ));
        Ok(())
    }

    /// Others' questions while 32 connections hammer a key whose limit is used up.
    async fn flood(&self, others: usize, row: Row, report: &mut Report) -> Result<()> {
        let (server, person) = self.everything().await?;
        let key = person.key(self.of.limits(&["minute"])).await?;
        let ask = |key: &str| question(key).header("x-api-key", &person.caller);
        let alone = Target::new(server, ask(&key), VALID).connections(others);
        let used_up = self.used_up().await?;
        let answer = if self.of.own_limits { LIMITED } else { VALID };
        let flooded = alone.clone().beside(Target::new(server, ask(&used_up), answer).connections(32));
        let compared = self.of.bench.compare(&alone, &flooded).await?;
        report.note(format!(
            "{}: the flood was answered {} a second.",
            row.scenario,
            grouped(compared.variant.beside.0)
        ));
        report.row(row.compared(compared));
        Ok(())
    }

    /// Known keys' questions while somebody guesses, after many guesses.
    async fn guessing(&self, row: Row, report: &mut Report) -> Result<()> {
        let bench = &self.of.bench;
        let crowd = self.crowd(0).await?;
        let guess = |keys| {
            let asked = json!({ "key": PLACEHOLDER, "client": { "ip": "203.0.113.9" } });
            let call = Call::post("/v1/keys/verify", asked.to_string()).header("x-api-key", &crowd.person.caller);
            Target::new(&crowd.server, Call { keys: Some(keys), ..call }, Answer::Holds(&[r#""valid":false"#]))
        };
        let (memory, counters) = (crowd.server.resident()?, crowd.server.counters("keyward_key_cache").await?);
        let count = self.of.many;
        let guessed = bench.ask_all(&guess(strangers(&bench.directory, count)?), count, 60).await?;
        report.note(format!(
            "guessing: {} different unknown keys took the server from {} to {} MB.",
            grouped(guessed),
            memory >> 20,
            crowd.server.resident()? >> 20,
        ));
        for (name, now) in crowd.server.counters("keyward_key_cache").await? {
            let before = counters.iter().find(|(known, _)| *known == name).map_or(0.0, |(_, before)| *before);
            report.note(format!("guessing: {name} {} (before: {})", grouped(now), grouped(before)));
        }

        let known = Target::new(&crowd.server, crowd.question(), VALID);
        let guesser = guess(strangers(&bench.directory, count)?).connections(16);
        let compared = bench.compare(&known, &known.clone().beside(guesser)).await?;
        let (rate, refused) = compared.variant.beside;
        report.note(format!(
            "{}: {} guesses a second were answered, {:.0} % of them with a status of 400 or above.",
            row.scenario,
            grouped(rate),
            refused * 100.0
        ));
        report.row(row.compared(compared));
        Ok(())
    }

    async fn ceiling(&self) -> Result<&Server> {
        self.ceiling.get_or_try_init(|| Server::ceiling(&self.of.bench.directory)).await
    }

    async fn everything(&self) -> Result<&(Server, Person)> {
        let start = async || {
            let directory = self.of.bench.directory.join("everything");
            let server = Server::keyward(&self.of.binary, &directory, &self.of.settings).await?;
            let person = Person::register(&server, "ada").await?;
            Ok((server, person))
        };
        self.everything.get_or_try_init(start).await
    }

    async fn person(&self) -> Result<&Person> {
        Ok(&self.everything().await?.1)
    }

    /// The first has few keys, the second many.
    async fn crowd(&self, which: usize) -> Result<&Crowd> {
        let count = [FEW, self.of.many][which];
        let start = async || {
            eprintln!("  making {} keys ...", grouped(f64::from(count)));
            let directory = self.of.bench.directory.join(count.to_string());
            let keyward = || Server::keyward(&self.of.binary, &directory, &self.of.settings);
            let server = keyward().await?;
            let person = Person::register(&server, "ada").await?;
            server.end().await;
            let keys = person.own(&directory, count).await?;
            // The load generator reads as much for few keys as for many.
            fs::write(&keys, fs::read(&keys)?.repeat((self.of.many / count) as usize))?;
            let crowd = Crowd { server: keyward().await?, person, keys };
            self.of.bench.ask_all(&Target::new(&crowd.server, crowd.question(), VALID), count, 300).await?;
            Ok(crowd)
        };
        self.crowds[which].get_or_try_init(start).await
    }

    async fn end(&mut self) {
        let crowds = self.crowds.iter_mut().filter_map(OnceCell::take).map(|crowd| crowd.server);
        let everything = self.everything.take().map(|(server, _)| server);
        for server in crowds.chain(everything).chain(self.ceiling.take()) {
            server.end().await;
        }
    }
}

impl Crowd {
    /// About one key after the other, in random order.
    fn question(&self) -> Call {
        Call { keys: Some(self.keys.clone()), ..question(PLACEHOLDER).header("x-api-key", &self.person.caller) }
    }
}

/// A line of the table.
#[derive(Default)]
struct Row {
    scenario: String,
    against: &'static str,
    wanted: &'static str,
    /// What was measured by itself.
    run: Option<Run>,
    compared: Option<Compared>,
}

impl Row {
    fn compared(self, compared: Compared) -> Self {
        Self { compared: Some(compared), ..self }
    }

    fn line(&self) -> String {
        let mut line = format!("| {} | {} |", self.scenario, self.against);
        if let Some(compared) = &self.compared {
            let mark = if compared.unsteady { "~" } else { "" };
            let _ = write!(line, " {mark}{:.2} | {:.2} | {:.2} |", compared.rate, compared.p99, compared.work);
        } else {
            line += " | | |";
        }
        let _ = write!(line, " {} |", self.wanted);
        if let Some(run) = self.compared.as_ref().map(|compared| &compared.variant).or(self.run.as_ref()) {
            let busy = if self.compared.as_ref().is_some_and(|compared| compared.client_bound) { r"\*" } else { "" };
            let (p50, p99) = (run.p50 / 1000.0, run.p99 / 1000.0);
            let _ = write!(line, " {p50:.2} | {p99:.2} | {}{busy} | {:.1} |", grouped(run.rate), run.server_time);
        }
        line
    }
}

#[derive(Default)]
struct Report {
    rows: Vec<Row>,
    notes: Vec<String>,
    failures: Vec<String>,
}

impl Report {
    fn row(&mut self, row: Row) {
        eprintln!("  {}", row.line());
        self.rows.push(row);
    }

    fn note(&mut self, note: String) {
        eprintln!("  {note}");
        self.notes.push(note);
    }

    fn print(&self, bench: &Bench) {
        println!(
            "\n| scenario | against | throughput | p99 | work | wanted | p50, ms | p99, ms | requests/s | server, µs |"
        );
        println!("|---|---|--:|--:|--:|---|--:|--:|--:|--:|");
        for row in &self.rows {
            println!("{}", row.line());
        }
        println!(
            "\nEverything on one core, asked by 64 connections where nothing else is said. The ratios (throughput, p99, work)"
        );
        println!(
            "are medians of {} runs of {} s, each between two of what it is compared with;",
            bench.brackets, bench.seconds
        );
        println!(
            "work is the core's time for a request, which holds although others use the machine. The figures beside them"
        );
        println!("hold for this machine and this moment alone.\n");
        let compared = || self.rows.iter().filter_map(|row| row.compared.as_ref());
        if compared().any(|compared| compared.unsteady) {
            println!(
                "- ~ In too many of these runs the machine changed its speed, or others used it: only the work holds."
            );
        }
        if compared().any(|compared| compared.client_bound) {
            println!("- \\* The load generator was busier than the server, which may do more.");
        }
        for note in &self.notes {
            println!("- {note}");
        }
        for failure in &self.failures {
            println!("- Not measured: {failure}");
        }
    }
}

/// `1234567.8` as `1,234,568`.
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let first = digits.len() % 3;
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && n % 3 == first {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
