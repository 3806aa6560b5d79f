//! Load by `wrk`, and comparisons that hold although the machine's speed doesn't: a variant is measured between two runs
//! of its base, and the median of several such brackets counts.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use keyward::base::clock::{Clock as _, SystemClock};
use tokio::process::Child;
use tokio::time::sleep;

use super::Result;
use super::server::{ASKING, Server, pinned, processor_time};

/// Stands in a request for one of many keys; as long as a key.
pub(super) const PLACEHOLDER: &str = "sk_000000000000000000000000000000000000000000000000";

/// Bases that differ by more than this say that the machine has changed its speed in between.
const STEADY: f64 = 0.12;

/// The share of its core that whoever is the bottleneck has.
const SATURATED: f64 = 0.9;

/// What `wrk` sends.
#[derive(Clone, Default)]
pub(super) struct Call {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Option<String>,
    /// A file of keys to put into the body, one a request.
    pub(super) keys: Option<PathBuf>,
}

impl Call {
    pub(super) fn get(path: &'static str) -> Self {
        Self { method: "GET", path, ..Self::default() }
    }

    pub(super) fn post(path: &'static str, body: String) -> Self {
        let headers = vec![("content-type", "application/json".to_owned())];
        Self { method: "POST", path, headers, body: Some(body), keys: None }
    }

    #[must_use]
    pub(super) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// The same bytes for another path.
    pub(super) fn at(&self, path: &'static str) -> Self {
        Self { path, ..self.clone() }
    }

    fn script(&self) -> String {
        let mut lua = format!("wrk.method = [==[{}]==]\n", self.method);
        for (name, value) in &self.headers {
            let _ = writeln!(lua, "wrk.headers[ [==[{name}]==] ] = [==[{value}]==]");
        }
        if let Some(body) = &self.body {
            let _ = writeln!(lua, "wrk.body = [==[{body}]==]");
        }
        if let Some(keys) = &self.keys {
            let _ = writeln!(lua, "keys, placeholder = [==[{}]==], \"{PLACEHOLDER}\"", keys.display());
        }
        lua + include_str!("load.lua")
    }

    /// Sends it once, with the first of its keys.
    async fn once(&self, server: &Server) -> Result<(u16, Vec<u8>)> {
        let url = format!("{}{}", server.url, self.path);
        let mut request = reqwest::Client::new().request(self.method.parse()?, url);
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        let mut body = self.body.clone().unwrap_or_default();
        if let Some(keys) = &self.keys {
            let all = fs::read(keys)?;
            body = body.replace(PLACEHOLDER, std::str::from_utf8(&all[..PLACEHOLDER.len()])?);
        }
        let answer = request.body(body).send().await?;
        Ok((answer.status().as_u16(), answer.bytes().await?.to_vec()))
    }
}

/// What the body of a good answer is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answer {
    /// It holds these.
    Holds(&'static [&'static str]),
    /// It is as long as this.
    Bytes(usize),
}

/// Who is asked what, and what must come back.
#[derive(Clone)]
pub(super) struct Target<'a> {
    server: &'a Server,
    call: Call,
    answer: Answer,
    connections: usize,
    /// Asked by somebody else at the same time.
    beside: Option<Box<Self>>,
}

impl<'a> Target<'a> {
    pub(super) fn new(server: &'a Server, call: Call, answer: Answer) -> Self {
        Self { server, call, answer, connections: 64, beside: None }
    }

    #[must_use]
    pub(super) fn connections(self, connections: usize) -> Self {
        Self { connections, ..self }
    }

    #[must_use]
    pub(super) fn beside(self, other: Self) -> Self {
        Self { beside: Some(Box::new(other)), ..self }
    }

    /// Asks once.
    pub(super) async fn check(&self) -> Result<()> {
        let (status, body) = self.call.once(self.server).await?;
        let text = String::from_utf8_lossy(&body);
        let good = match self.answer {
            Answer::Holds(parts) => parts.iter().all(|part| text.contains(part)),
            Answer::Bytes(length) => body.len() == length,
        };
        if status == 200 && good {
            return Ok(());
        }
        let body: String = text.chars().take(120).collect();
        Err(format!("{} {} answered {status}, not {:?}: {body}", self.call.method, self.call.path, self.answer).into())
    }
}

/// One run of `wrk`.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// Requests a second.
    pub(super) rate: f64,
    pub(super) requests: f64,
    /// Microseconds.
    pub(super) p50: f64,
    pub(super) p99: f64,
    /// Answers of 400 and above.
    pub(super) refused: f64,
    /// Shares of their cores that the load generator and the server had.
    client_busy: f64,
    server_busy: f64,
    /// Microseconds of the server's core for a request.
    pub(super) server_time: f64,
    /// What somebody else was answered at the same time: requests a second, and the share of them refused.
    pub(super) beside: (f64, f64),
}

/// A variant between runs of its base, in medians.
pub(super) struct Compared {
    pub(super) base: Run,
    pub(super) variant: Run,
    /// Variant by base.
    pub(super) rate: f64,
    pub(super) p99: f64,
    /// Of the server's time for a request.
    pub(super) work: f64,
    /// The machine's speed changed, or somebody else used it, in too many of the brackets.
    pub(super) unsteady: bool,
    /// The load generator had no time left, and the server had: the row measures it instead of the server.
    pub(super) client_bound: bool,
}

/// How to measure.
pub(super) struct Bench {
    /// Of one measured run.
    pub(super) seconds: u64,
    /// Brackets that count.
    pub(super) brackets: usize,
    pub(super) directory: PathBuf,
    pub(super) clock: SystemClock,
}

impl Bench {
    /// Measures `variant` against `base`.
    pub(super) async fn compare(&self, base: &Target<'_>, variant: &Target<'_>) -> Result<Compared> {
        let mut kept: Vec<[Run; 3]> = Vec::new();
        let mut dropped = Vec::new();
        let mut before = self.measure(base).await?;
        while kept.len() < self.brackets && dropped.len() < self.brackets {
            let middle = self.measure(variant).await?;
            let after = self.measure(base).await?;
            let bracket = [before, middle, after.clone()];
            if steady(&bracket) {
                kept.push(bracket);
            } else {
                dropped.push(bracket);
            }
            before = after;
        }
        let unsteady = kept.len() < self.brackets;
        if kept.is_empty() {
            kept = dropped;
        }
        let ratio = |of: fn(&Run) -> f64| {
            median(kept.iter().map(|[before, middle, after]| of(middle) * 2.0 / (of(before) + of(after))))
        };
        let base: Vec<_> = kept.iter().flat_map(|[before, _, after]| [before, after]).collect();
        let base = medians(&base);
        let variant = medians(&kept.iter().map(|[_, middle, _]| middle).collect::<Vec<_>>());
        Ok(Compared {
            client_bound: [&base, &variant].iter().any(|run| run.client_busy > 0.97 && run.server_busy < 0.95),
            base,
            variant,
            rate: ratio(|run| run.rate),
            p99: ratio(|run| run.p99),
            work: ratio(|run| run.server_time),
            unsteady,
        })
    }

    /// One target by itself.
    pub(super) async fn alone(&self, target: &Target<'_>) -> Result<Run> {
        let mut runs = Vec::new();
        for _ in 0..self.brackets {
            runs.push(self.measure(target).await?);
        }
        Ok(medians(&runs.iter().collect::<Vec<_>>()))
    }

    /// A second to get warm, and the run.
    async fn measure(&self, target: &Target<'_>) -> Result<Run> {
        target.check().await?;
        target.server.forget_log()?;
        let beside = match &target.beside {
            Some(other) => {
                other.check().await?;
                let wrk = self.start(other, "beside", self.seconds + 2, 0)?;
                sleep(Duration::from_millis(300)).await;
                Some(wrk)
            }
            None => None,
        };
        self.watch(self.start(target, "warm", 1, 0)?).await?;
        let before = target.server.processor_time()?;
        let mut run = self.watch(self.start(target, "run", self.seconds, 0)?).await?;
        let used = target.server.processor_time()? - before;
        if run.refused > 0.0 {
            return Err(format!("{} of {} requests were refused", run.refused, run.requests).into());
        }
        if let Some(wrk) = beside {
            let other = self.watch(wrk).await?;
            run.beside = (other.rate, other.refused / other.requests);
        }
        let share = run.rate / (run.rate + run.beside.0);
        run.server_time = used * share * 1e6 / run.requests;
        run.server_busy = used * run.rate / run.requests;
        target.check().await?;
        Ok(run)
    }

    /// Asks about `count` keys one after the other, and says how many that were: fewer where it takes longer than
    /// `seconds`.
    pub(super) async fn ask_all(&self, target: &Target<'_>, count: u32, seconds: u64) -> Result<f64> {
        target.server.forget_log()?;
        // The last ones are asked while the first thousand come again: when `wrk` leaves, every key has its answer.
        let wrk = self.start(target, "all", seconds, count + 1000)?;
        let asked = self.watch(wrk).await?.requests;
        target.check().await?;
        Ok(asked.min(f64::from(count)))
    }

    fn start(&self, target: &Target<'_>, name: &str, seconds: u64, last: u32) -> Result<Child> {
        let script = self.directory.join(format!("{name}.lua"));
        fs::write(&script, target.call.script())?;
        // Each run begins with another of the keys.
        let first = self.clock.monotonic().as_millis();
        let first = if last > 0 { 0 } else { first * 7919 };
        let mut wrk = pinned(ASKING, Path::new("wrk"));
        wrk.arg("-t1").arg(format!("-c{}", target.connections)).arg(format!("-d{seconds}s")).arg("-s").arg(script);
        wrk.arg(format!("{}{}", target.server.url, target.call.path));
        wrk.arg("--").arg(first.to_string()).arg(last.to_string());
        Ok(wrk.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
    }

    /// Waits for a run's end, and reads what it has measured.
    async fn watch(&self, wrk: Child) -> Result<Run> {
        let pid = wrk.id().ok_or("wrk has ended")?;
        let busy = async {
            let sample = || processor_time(pid).map(|used| (self.clock.monotonic().as_secs_f64(), used));
            // Not the start, in which it reads its keys.
            sleep(Duration::from_millis(400)).await;
            let Ok(first) = sample() else { return 0.0 };
            let mut last = first;
            while let Ok(next) = sample() {
                last = if next.1 > last.1 { next } else { last };
                sleep(Duration::from_millis(100)).await;
            }
            (last.1 - first.1) / (last.0 - first.0).max(0.1)
        };
        let output = wrk.wait_with_output();
        let (output, client_busy) = tokio::join!(output, busy);
        let output = output?;
        let text = String::from_utf8_lossy(&output.stdout);
        let numbers = text.lines().find_map(|line| line.strip_prefix("measured "));
        let numbers: Vec<f64> = numbers.unwrap_or_default().split(' ').filter_map(|n| n.parse().ok()).collect();
        let [requests, micros, p50, p99, failed, refused] = numbers[..] else {
            return Err(format!("wrk: {text}{}", String::from_utf8_lossy(&output.stderr)).into());
        };
        if failed > 0.0 || requests == 0.0 {
            return Err(format!("{failed} of {requests} requests failed").into());
        }
        Ok(Run {
            rate: requests * 1e6 / micros,
            requests,
            p50,
            p99,
            refused,
            client_busy,
            server_busy: 0.0,
            server_time: 0.0,
            beside: (0.0, 0.0),
        })
    }
}

/// Whether nothing but what it measures has made a bracket what it is.
fn steady(bracket: &[Run; 3]) -> bool {
    // One of the two always has work: if neither had its core for itself, somebody else did.
    let disturbed = bracket.iter().any(|run| run.client_busy.max(run.server_busy) < SATURATED);
    let [before, _, after] = bracket;
    !disturbed && (before.rate - after.rate).abs() / before.rate.max(after.rate) <= STEADY
}

fn medians(runs: &[&Run]) -> Run {
    let of = |part: fn(&Run) -> f64| median(runs.iter().map(|run| part(run)));
    Run {
        rate: of(|run| run.rate),
        requests: of(|run| run.requests),
        p50: of(|run| run.p50),
        p99: of(|run| run.p99),
        refused: of(|run| run.refused),
        client_busy: of(|run| run.client_busy),
        server_busy: of(|run| run.server_busy),
        server_time: of(|run| run.server_time),
        beside: (of(|run| run.beside.0), of(|run| run.beside.1)),
    }
}

fn median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = numbers.collect();
    sorted.sort_by(f64::total_cmp);
    let upper = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[upper] } else { f64::midpoint(sorted[upper - 1], sorted[upper]) }
}
