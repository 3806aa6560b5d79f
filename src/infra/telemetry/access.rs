//! The access log: a line a request, formatted where the request ends and written by a thread of its own, so that no
//! request waits for whoever reads the log. Lines that find no room are dropped and counted.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, Write};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use chrono::DateTime;
use prometheus::IntCounter;

use crate::base::clock::Timestamp;

/// Bytes that wait at most, beside as many that are being written.
const CAPACITY: usize = 2 * 1024 * 1024;

/// Bytes that are written before their time: few enough to stay in a core's cache.
const PLENTY: usize = 128 * 1024;

/// How long lines gather before they are written, unless nothing has been written for as long.
const TICK: Duration = Duration::from_millis(20);

/// How long the end waits for an output that takes nothing.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a line looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A JSON object.
    Json,
    /// For people.
    Pretty {
        /// With a terminal's escape sequences.
        colours: bool,
    },
}

/// A request that has ended.
#[derive(Clone, Copy, Debug)]
pub struct AccessRecord<'a> {
    /// When it ended, by the wall clock.
    pub at: Timestamp,
    /// One of the methods in use, or `OTHER`.
    pub method: &'static str,
    /// The route's template.
    pub route: &'a str,
    /// Three digits.
    pub status: u16,
    /// From the request's head to the answer's; written in whole microseconds.
    pub duration: Duration,
    /// The size of the answer's body, where it is known beforehand.
    pub bytes: Option<u64>,
    /// The request's id.
    pub request_id: &'a str,
    /// The trace that it belongs to.
    pub trace_id: Option<&'a str>,
    /// Who asked, if they proved it.
    pub caller: Option<&'a str>,
    /// The client's address.
    pub client: IpAddr,
}

/// The log; clones write to the same. The thread ends with [`close`](Self::close), or when the last clone goes.
#[derive(Clone)]
pub struct AccessLog(Option<Arc<Handle>>);

impl AccessLog {
    /// Records nothing.
    #[must_use]
    pub const fn off() -> Self {
        Self(None)
    }

    /// Starts the thread that writes to `output`: whole lines, each batch with one call and a flush. `dropped` counts the
    /// lines that found no room, came after the end, or were part of a batch that the output refused.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn to(format: Format, output: impl Write + Send + 'static, dropped: IntCounter) -> io::Result<Self> {
        let state = State { lines: Vec::with_capacity(CAPACITY), asleep: false, closed: false, ended: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), work: Condvar::new(), end: Condvar::new(), dropped });
        let writer = Writer(Arc::clone(&shared));
        thread::Builder::new().name("access-log".into()).spawn(move || writer.run(output))?;
        Ok(Self(Some(Arc::new(Handle { format, shared, is_on: AtomicBool::new(true) }))))
    }

    /// Whether records go anywhere.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.as_deref().is_some_and(|handle| handle.is_on.load(Ordering::Relaxed))
    }

    /// Says whether records are wanted; other lines are written in any case.
    pub fn switch(&self, on: bool) {
        if let Some(handle) = self.0.as_deref() {
            handle.is_on.store(on, Ordering::Relaxed);
        }
    }

    /// Writes a line, soon: within a tenth of a second, if the output takes it. Takes a short lock and nothing else that
    /// could block.
    pub fn record(&self, record: &AccessRecord<'_>) {
        let Some(Handle { format, shared, .. }) = self.0.as_deref() else { return };
        // Formatted outside of the lock, which is held for a copy only. There is no scratch in a thread that is ending.
        let written = SCRATCH.try_with(|scratch| {
            let scratch = &mut *scratch.borrow_mut();
            scratch.format(*format, record);
            shared.push(&scratch.line)
        });
        if written != Ok(true) {
            shared.dropped.inc();
        }
    }

    /// Writes any other line, whole; dropped and counted like the others where there is no room.
    pub fn line(&self, line: &[u8]) {
        if let Some(Handle { shared, .. }) = self.0.as_deref()
            && !shared.push(line)
        {
            shared.dropped.inc();
        }
    }

    /// Lines that were dropped.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.as_ref().map_or(0, |handle| handle.shared.dropped.get())
    }

    /// Writes what is left and ends the thread; waits for it, at most five seconds. Later records are dropped.
    pub fn close(&self) {
        if let Some(handle) = &self.0 {
            let shared = &handle.shared;
            shared.close();
            drop(shared.end.wait_timeout_while(shared.lock(), PATIENCE, |state| !state.ended));
        }
    }
}

impl fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessLog")
            .field("format", &self.0.as_ref().map(|handle| handle.format))
            .finish_non_exhaustive()
    }
}

/// What the log's clones share.
struct Handle {
    format: Format,
    shared: Arc<Shared>,
    /// Whether requests are logged.
    is_on: AtomicBool,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// What requests share with the thread that writes.
struct Shared {
    state: Mutex<State>,
    /// There is something to write.
    work: Condvar,
    /// The thread has ended.
    end: Condvar,
    dropped: IntCounter,
}

struct State {
    /// Whole lines.
    lines: Vec<u8>,
    /// Nobody looks for lines until somebody wakes the thread.
    asleep: bool,
    closed: bool,
    ended: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `false` if there is no room.
    fn push(&self, line: &[u8]) -> bool {
        let mut state = self.lock();
        let before = state.lines.len();
        let after = before + line.len();
        if state.closed || after > CAPACITY {
            return false;
        }
        state.lines.extend_from_slice(line);
        // Waking costs a system call: for the first line after a pause, and once when there is much.
        let wake = state.asleep || (before < PLENTY && after >= PLENTY);
        state.asleep = false;
        drop(state);
        if wake {
            self.work.notify_one();
        }
        true
    }

    fn close(&self) {
        self.lock().closed = true;
        self.work.notify_one();
    }
}

/// The writing end.
struct Writer(Arc<Shared>);

impl Writer {
    fn run(self, mut output: impl Write) {
        let mut batch = Vec::with_capacity(CAPACITY);
        while self.next(&mut batch) {
            if output.write_all(&batch).and_then(|()| output.flush()).is_err() {
                // How much of it was written isn't known.
                self.0.dropped.inc_by(batch.split_inclusive(|byte| *byte == b'\n').count() as u64);
            }
            batch.clear();
        }
    }

    /// Waits for lines and takes them; `false` if none will come.
    fn next(&self, batch: &mut Vec<u8>) -> bool {
        let gathering = |state: &mut State| state.lines.len() < PLENTY && !state.closed;
        let waited = self.0.work.wait_timeout_while(self.0.lock(), TICK, gathering);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if state.lines.is_empty() && !state.closed {
            state.asleep = true;
            let woken = self.0.work.wait_while(state, |state| state.asleep && !state.closed);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(&mut state.lines, batch);
        !batch.is_empty()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        (state.closed, state.ended) = (true, true);
        drop(state);
        self.0.end.notify_all();
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> =
        const { RefCell::new(Scratch { line: Vec::new(), second: i64::MIN, date: Vec::new() }) };
}

/// Where a thread formats its lines.
struct Scratch {
    line: Vec<u8>,
    /// The latest line's second since 1970, and how it is written: requests end many times in a second.
    second: i64,
    date: Vec<u8>,
}

impl Scratch {
    fn format(&mut self, format: Format, record: &AccessRecord<'_>) {
        self.line.clear();
        match format {
            Format::Json => self.json(record),
            Format::Pretty { colours } => self.pretty(record, colours),
        }
    }

    /// In the form that `tracing_subscriber` gives to the other lines of the log.
    fn json(&mut self, record: &AccessRecord<'_>) {
        self.literal(b"{\"timestamp\":\"");
        self.timestamp(record.at);
        self.literal(b"\",\"level\":\"INFO\",\"message\":\"request\",\"method\":");
        self.json_string(record.method);
        self.literal(b",\"route\":");
        self.json_string(record.route);
        self.literal(b",\"status\":");
        self.number(record.status.into());
        self.literal(b",\"duration_us\":");
        self.number(micros(record.duration));
        if let Some(bytes) = record.bytes {
            self.literal(b",\"bytes\":");
            self.number(bytes);
        }
        self.literal(b",\"request_id\":");
        self.json_string(record.request_id);
        if let Some(trace_id) = record.trace_id {
            self.literal(b",\"trace_id\":");
            self.json_string(trace_id);
        }
        if let Some(caller) = record.caller {
            self.literal(b",\"caller\":");
            self.json_string(caller);
        }
        self.literal(b",\"client\":\"");
        self.address(record.client);
        self.literal(b"\",\"target\":\"keyward::access\"}\n");
    }

    /// As above.
    fn pretty(&mut self, record: &AccessRecord<'_>, colours: bool) {
        self.text(if colours { b"\x1b[2m" } else { b"" });
        self.timestamp(record.at);
        self.text(if colours { b"\x1b[0m \x1b[32m INFO\x1b[0m request" } else { b"  INFO request" });
        self.field("method", colours);
        self.debug_string(record.method);
        self.field("route", colours);
        self.debug_string(record.route);
        self.field("status", colours);
        self.number(record.status.into());
        self.field("duration_us", colours);
        self.number(micros(record.duration));
        if let Some(bytes) = record.bytes {
            self.field("bytes", colours);
            self.number(bytes);
        }
        self.field("request_id", colours);
        self.debug_string(record.request_id);
        if let Some(trace_id) = record.trace_id {
            self.field("trace_id", colours);
            self.debug_string(trace_id);
        }
        if let Some(caller) = record.caller {
            self.field("caller", colours);
            self.debug_string(caller);
        }
        self.field("client", colours);
        self.address(record.client);
        self.text(b"\n");
    }

    fn text(&mut self, text: &[u8]) {
        self.line.extend_from_slice(text);
    }

    /// Text of a length that the compiler knows, which spares a call.
    fn literal<const N: usize>(&mut self, text: &[u8; N]) {
        self.line.extend_from_slice(text);
    }

    fn field(&mut self, name: &str, colours: bool) {
        self.text(if colours { b" \x1b[3m" } else { b" " });
        self.text(name.as_bytes());
        self.text(if colours { b"\x1b[0m\x1b[2m=\x1b[0m" } else { b"=" });
    }

    /// RFC 3339 in UTC with microseconds.
    fn timestamp(&mut self, at: Timestamp) {
        let second = at.as_micros().div_euclid(1_000_000);
        if second != self.second {
            self.second = second;
            self.date.clear();
            let date = DateTime::from_timestamp(second, 0).unwrap_or_default().naive_utc();
            // A vector takes everything.
            drop(write!(self.date, "{date:?}"));
        }
        self.line.extend_from_slice(&self.date);
        let mut digits = *b".000000Z";
        let mut rest = at.as_micros().rem_euclid(1_000_000).cast_unsigned();
        for digit in digits[1..7].iter_mut().rev() {
            *digit += (rest % 10) as u8;
            rest /= 10;
        }
        self.literal(&digits);
    }

    fn number(&mut self, number: u64) {
        let (mut digits, mut first, mut rest) = ([b'0'; 20], 20, number);
        loop {
            first -= 1;
            digits[first] += (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                return self.text(&digits[first..]);
            }
        }
    }

    fn address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => {
                let [a, b, c, d] = address.octets();
                self.number(a.into());
                for octet in [b, c, d] {
                    self.literal(b".");
                    self.number(octet.into());
                }
            }
            IpAddr::V6(address) => drop(write!(self.line, "{address}")),
        }
    }

    /// As `serde_json` writes it.
    fn json_string(&mut self, text: &str) {
        self.literal(b"\"");
        if is_plain(text) {
            self.text(text.as_bytes());
        } else {
            for byte in text.bytes() {
                match byte {
                    b'"' => self.literal(b"\\\""),
                    b'\\' => self.literal(b"\\\\"),
                    0x08 => self.literal(b"\\b"),
                    0x0c => self.literal(b"\\f"),
                    b'\n' => self.literal(b"\\n"),
                    b'\r' => self.literal(b"\\r"),
                    b'\t' => self.literal(b"\\t"),
                    0..0x20 => drop(write!(self.line, "\\u{byte:04x}")),
                    _ => self.line.push(byte),
                }
            }
        }
        self.literal(b"\"");
    }

    /// As `{:?}` writes it.
    fn debug_string(&mut self, text: &str) {
        if is_plain(text) {
            self.literal(b"\"");
            self.text(text.as_bytes());
            self.literal(b"\"");
        } else {
            drop(write!(self.line, "{text:?}"));
        }
    }
}

/// Whether it is written as it is: printable ASCII without quotes and backslashes.
fn is_plain(text: &str) -> bool {
    // Without a way out, so that the compiler looks at many bytes at once.
    let odd = |byte: u8| u8::from(!(b' '..=b'~').contains(&byte)) | u8::from(byte == b'"') | u8::from(byte == b'\\');
    text.bytes().fold(0, |found, byte| found | odd(byte)) == 0
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::sync::mpsc;

    use chrono::SecondsFormat;
    use tracing_subscriber::Layer as _;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::base::clock::{Clock as _, SystemClock};

    const COLOURS: Format = Format::Pretty { colours: true };
    const PLAIN: Format = Format::Pretty { colours: false };

    fn record(request_id: &str) -> AccessRecord<'_> {
        AccessRecord {
            at: Timestamp::EPOCH,
            method: "GET",
            route: "/key/{length}",
            status: 200,
            duration: Duration::from_nanos(73_999),
            bytes: Some(32),
            request_id,
            trace_id: None,
            caller: None,
            client: Ipv4Addr::LOCALHOST.into(),
        }
    }

    fn dropped() -> IntCounter {
        IntCounter::new("dropped", "Lines").unwrap()
    }

    /// Keeps what is written.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Kept {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The line that the rest of the log would get.
    fn traced(format: Format, r: &AccessRecord<'_>) -> String {
        let kept = Kept::default();
        let output = kept.clone();
        let layer = tracing_subscriber::fmt::layer().with_writer(move || output.clone());
        let layer = match format {
            Format::Json => layer.json().flatten_event(true).with_span_list(false).boxed(),
            Format::Pretty { colours } => layer.with_ansi(colours).with_target(false).boxed(),
        };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::info!(
                target: "keyward::access",
                method = r.method,
                route = r.route,
                status = r.status,
                duration_us = u64::try_from(r.duration.as_micros()).unwrap(),
                bytes = r.bytes,
                request_id = r.request_id,
                trace_id = r.trace_id,
                caller = r.caller,
                client = %r.client,
                "request"
            );
        });
        kept.text()
    }

    fn written(format: Format, records: &[AccessRecord<'_>]) -> String {
        let (kept, dropped) = (Kept::default(), dropped());
        let log = AccessLog::to(format, kept.clone(), dropped.clone()).unwrap();
        for record in records {
            log.record(record);
        }
        log.close();
        assert_eq!(dropped.get(), 0);
        kept.text()
    }

    #[test]
    fn lines_are_those_of_the_rest_of_the_log() {
        let control: String = (0..=0x9f).map(char::from).collect();
        for id in [
            "01M7W6GEQWVE5658H2KK3TCX22",
            "a\"b\\c<>&~{'",
            "tab\t, line\n, \u{1b}[31m, bell\u{7}",
            "größer 🦀",
            &control,
            "",
        ] {
            for (bytes, client) in [(None, Ipv6Addr::LOCALHOST.into()), (Some(u64::MAX), Ipv4Addr::BROADCAST.into())] {
                let bare = AccessRecord { bytes, client, ..record(id) };
                let full = AccessRecord { trace_id: Some(id), caller: Some(id), route: id, status: 499, ..bare };
                for record in [bare, full] {
                    for (format, start) in [(Format::Json, "{\"timestamp\":\""), (PLAIN, ""), (COLOURS, "\u{1b}[2m")] {
                        let (ours, theirs) = (written(format, &[record]), traced(format, &record));
                        let after = start.len() + "1970-01-01T00:00:00.000000Z".len();
                        assert_eq!(ours[..after], format!("{start}1970-01-01T00:00:00.000000Z"));
                        assert_eq!(ours[after..], theirs[after..]);
                    }
                }
            }
        }
    }

    #[test]
    fn times_and_numbers_are_written_as_others_write_them() {
        let mut scratch = Scratch { line: Vec::new(), second: i64::MIN, date: Vec::new() };
        let mut show = |write: &dyn Fn(&mut Scratch)| {
            scratch.line.clear();
            write(&mut scratch);
            String::from_utf8(scratch.line.clone()).unwrap()
        };
        let years = [-62_200_000_000_000_000, 253_402_300_799_999_999, 253_402_300_800_000_000];
        let ends = [0, 1, 999_999, 1_000_000, -1, 951_782_399_999_999, 951_782_400_000_000].into_iter().chain(years);
        // Two thousand years around 1970, two at a time in the same second.
        let many = (0_i64..20_000).map(|i| (i - 10_000) * 3_155_695_200_123 + i % 2);
        for micros in ends.chain(many.flat_map(|micros| [micros, micros - micros.rem_euclid(1_000_000)])) {
            let at = Timestamp::from_micros(micros).unwrap();
            let expected = at.as_datetime().to_rfc3339_opts(SecondsFormat::Micros, true);
            assert_eq!(show(&|scratch| scratch.timestamp(at)), expected);
        }
        for number in (0..64).map(|bit| 1 << bit).chain([0, 9, 10, 99, 100, 101, u64::MAX]) {
            assert_eq!(show(&|scratch| scratch.number(number)), number.to_string());
        }
        for address in ["0.0.0.0", "10.20.130.255", "::", "::1", "2001:db8::ff", "::ffff:1.2.3.4"] {
            assert_eq!(show(&|scratch| scratch.address(address.parse().unwrap())), address);
        }
    }

    #[test]
    fn a_line_appears_soon() {
        let (kept, clock) = (Kept::default(), SystemClock::new());
        let log = AccessLog::to(Format::Json, kept.clone(), dropped()).unwrap();
        for (n, pause) in (1..).zip([0, 10, 30, 50, 0]) {
            let started = clock.monotonic();
            log.record(&record("soon"));
            while kept.text().lines().count() < n {
                assert!(clock.monotonic() < started + Duration::from_millis(500));
                thread::sleep(Duration::from_millis(1));
            }
            thread::sleep(Duration::from_millis(pause));
        }
    }

    #[test]
    fn lines_of_many_threads_stay_whole_and_in_order() {
        let (kept, dropped) = (Kept::default(), dropped());
        let log = AccessLog::to(Format::Json, kept.clone(), dropped.clone()).unwrap();
        thread::scope(|scope| {
            for caller in ["0", "1", "2", "3"] {
                let log = log.clone();
                scope.spawn(move || {
                    for status in 0..2000 {
                        log.record(&AccessRecord { status, caller: Some(caller), ..record("x") });
                    }
                });
            }
        });
        log.close();
        log.close();
        let mut last = [-1; 4];
        for line in kept.text().lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let last = &mut last[line["caller"].as_str().unwrap().parse::<usize>().unwrap()];
            assert!(line["status"].as_i64().unwrap() > *last);
            *last = line["status"].as_i64().unwrap();
        }
        assert_eq!(kept.text().lines().count() as u64 + dropped.get(), 8000);
        log.record(&record("late"));
        assert_eq!(kept.text().lines().count() as u64 + dropped.get(), 8001);
    }

    /// Answers each call as the test says, and waits until it does.
    struct Told(mpsc::Receiver<bool>, Kept);

    impl Write for Told {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0.recv().unwrap_or(true) { self.1.write(bytes) } else { Err(io::ErrorKind::StorageFull.into()) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_output_that_stalls_or_fails_costs_lines_and_nothing_else() {
        let ((tell, told), kept, dropped) = (mpsc::channel(), Kept::default(), dropped());
        let log = AccessLog::to(Format::Json, Told(told, kept.clone()), dropped.clone()).unwrap();
        log.record(&record("refused"));
        tell.send(false).unwrap();
        while dropped.get() < 1 {
            thread::sleep(Duration::from_millis(1));
        }
        let mut recorded = 0;
        while dropped.get() < 10 {
            log.record(&record("stalled"));
            recorded += 1;
        }
        // What waits, and perhaps a batch that is being written.
        assert!(recorded * 200 < 3 * CAPACITY, "{recorded}");
        drop(tell);
        log.close();
        assert_eq!(kept.text().lines().count() + 9, recorded);
        assert!(kept.text().lines().all(|line| line.contains("stalled")));
    }

    #[test]
    fn the_thread_ends_with_the_last_clone() {
        let (kept, clock) = (Kept::default(), SystemClock::new());
        let log = AccessLog::to(PLAIN, kept.clone(), dropped()).unwrap();
        log.clone().record(&record("last"));
        drop(log);
        while Arc::strong_count(&kept.0) > 1 {
            assert!(clock.monotonic() < Duration::from_secs(5));
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(kept.text().lines().count(), 1);
    }

    #[test]
    fn off_is_off() {
        let log = AccessLog::off();
        log.record(&record("x"));
        log.switch(true);
        log.close();
        let other = AccessLog::to(PLAIN, io::sink(), dropped()).unwrap();
        assert!(!log.is_on() && other.is_on());
        other.clone().switch(false);
        assert!(!other.is_on());
    }
}
