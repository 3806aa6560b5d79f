//! Counters that every request raises. Each thread has cells of its own, which are added up when somebody asks: what
//! all threads write to would pass from core to core with every request.

use std::array;
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use prometheus::Error;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

/// Cells of each counter: a power of two. Twice the cores, because threads that have ended keep their numbers.
fn shards() -> usize {
    static SHARDS: OnceLock<usize> = OnceLock::new();
    *SHARDS.get_or_init(|| (2 * thread::available_parallelism().map_or(1, Into::into)).next_power_of_two().min(16))
}

/// This thread's one of some shards.
fn own<T>(shards: &[T]) -> Option<&T> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static NUMBER: Cell<usize> = const { Cell::new(usize::MAX) });
    let mut number = NUMBER.get();
    if number == usize::MAX {
        number = NEXT.fetch_add(1, Ordering::Relaxed);
        NUMBER.set(number);
    }
    shards.get(number & shards.len().wrapping_sub(1))
}

fn make_shards<T: Default>() -> Arc<[T]> {
    (0..shards()).map(|_| T::default()).collect()
}

/// Two cache lines, which processors fetch together.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Alone(AtomicU64);

/// A counter for many threads; clones count together. It wraps at 2⁶⁴.
#[derive(Clone, Debug)]
pub struct ShardedCounter(Arc<[Alone]>);

impl ShardedCounter {
    /// Counts one.
    pub fn inc(&self) {
        self.inc_by(1);
    }

    /// Counts `n`.
    pub fn inc_by(&self, n: u64) {
        if let Some(Alone(cell)) = own(&self.0) {
            cell.fetch_add(n, Ordering::Relaxed);
        }
    }

    /// What all threads have counted.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.iter().fold(0, |sum, Alone(cell)| sum.wrapping_add(cell.load(Ordering::Relaxed)))
    }
}

impl Default for ShardedCounter {
    /// Starts at 0.
    fn default() -> Self {
        Self(make_shards())
    }
}

/// A family of counters, one for each of a few values of one label. All of them are shown from the start.
#[derive(Clone, Debug)]
pub struct ShardedCounters<const N: usize> {
    desc: Desc,
    values: [&'static str; N],
    counters: [ShardedCounter; N],
}

impl<const N: usize> ShardedCounters<N> {
    /// Starts each at 0.
    ///
    /// # Errors
    /// A name that isn't one for Prometheus, or an empty help text.
    pub fn new(name: &str, help: &str, label: &str, values: [&'static str; N]) -> Result<Self, Error> {
        Ok(Self { desc: desc(name, help, &[label])?, values, counters: array::from_fn(|_| ShardedCounter::default()) })
    }

    /// Counts one for the value at `index` of the list; nothing if there is none.
    pub fn inc(&self, index: usize) {
        if let Some(counter) = self.counters.get(index) {
            counter.inc();
        }
    }
}

impl<const N: usize> Collector for ShardedCounters<N> {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let all = self.values.iter().zip(&self.counters);
        let metrics = all.map(|(value, counter)| count(&self.desc, &[value], counter.get())).collect();
        vec![family(&self.desc, MetricType::COUNTER, metrics)]
    }
}

/// How many buckets there may be, beside the one for whatever is larger.
const MAX_BUCKETS: usize = 15;

/// Statuses that are counted without a lock, the most frequent first.
const STATUSES: [u16; 15] = [200, 401, 404, 429, 400, 403, 201, 204, 409, 413, 422, 304, 405, 499, 503];

/// One thread's share of a route's numbers.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    /// Not cumulative; the one after the last bound counts whatever is larger.
    buckets: [AtomicU64; MAX_BUCKETS + 1],
    /// In the order of [`STATUSES`].
    statuses: [AtomicU64; STATUSES.len()],
    nanos: AtomicU64,
}

/// `keyward_http_requests_total`, `keyward_http_request_duration_seconds` and `keyward_http_requests_in_flight`; clones
/// count together.
#[derive(Clone, Debug)]
pub struct HttpMetrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    requests: Desc,
    durations: Desc,
    in_flight: Desc,
    buckets: &'static [f64],
    /// The same in nanoseconds.
    bounds: Arc<[u64]>,
    /// Wraps: a request may end on another thread than it began.
    working: ShardedCounter,
    /// The methods of each route.
    routes: RwLock<HashMap<Box<str>, Vec<RouteMetrics>>>,
}

impl HttpMetrics {
    /// `buckets` are the upper bounds of the histogram's, in seconds, ascending: at most 15, without the last, infinite
    /// one. They are rounded to nanoseconds.
    ///
    /// # Errors
    /// The buckets aren't like that.
    pub fn new(buckets: &'static [f64]) -> Result<Self, Error> {
        let bounds = buckets.iter().map(|bound| Duration::try_from_secs_f64(*bound).map(nanos));
        let bounds: Arc<[u64]> = bounds.collect::<Result<_, _>>().map_err(|error| Error::Msg(error.to_string()))?;
        if bounds.len() > MAX_BUCKETS || !bounds.is_sorted_by(|one, next| one < next) {
            return Err(Error::Msg(format!("at most {MAX_BUCKETS} ascending buckets: {buckets:?}")));
        }
        let (name, help) = ("keyward_http_request_duration_seconds", "Time from a request's head to its answer's");
        Ok(Self(Arc::new(Inner {
            requests: desc("keyward_http_requests_total", "Answered HTTP requests", &["method", "route", "status"])?,
            durations: desc(name, help, &["method", "route"])?,
            in_flight: desc("keyward_http_requests_in_flight", "HTTP requests being worked on", &[])?,
            buckets,
            bounds,
            working: ShardedCounter::default(),
            routes: RwLock::default(),
        })))
    }

    /// The numbers of a method and a route's template, both of bounded variety; shown once a request has ended. Looking
    /// them up takes a lock for reading: keep them where there are many requests.
    #[must_use]
    pub fn route(&self, method: &'static str, route: &str) -> RouteMetrics {
        let find = |routes: &HashMap<Box<str>, Vec<RouteMetrics>>| {
            routes.get(route)?.iter().find(|known| known.0.method == method).cloned()
        };
        if let Some(known) = find(&self.0.routes.read().unwrap_or_else(PoisonError::into_inner)) {
            return known;
        }
        let mut routes = self.0.routes.write().unwrap_or_else(PoisonError::into_inner);
        find(&routes).unwrap_or_else(|| {
            let (bounds, working) = (Arc::clone(&self.0.bounds), self.0.working.clone());
            let made = Route { method, bounds, working, shards: make_shards(), others: Mutex::default() };
            let made = RouteMetrics(Arc::new(made));
            routes.entry(route.into()).or_default().push(made.clone());
            made
        })
    }

    /// A request is being worked on from now until [`RouteMetrics::end`].
    pub fn begin(&self) {
        self.0.working.inc();
    }
}

impl Collector for HttpMetrics {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.0.requests, &self.0.durations, &self.0.in_flight]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let inner = &*self.0;
        let (mut requests, mut durations) = (Vec::new(), Vec::new());
        for (name, methods) in inner.routes.read().unwrap_or_else(PoisonError::into_inner).iter() {
            for RouteMetrics(route) in methods {
                let histogram = route.histogram(inner.buckets);
                if histogram.get_sample_count() > 0 {
                    let mut metric = Metric::from_label(labels(&inner.durations, &[route.method, name]));
                    metric.set_histogram(histogram);
                    durations.push(metric);
                }
                for (status, n) in route.statuses() {
                    requests.push(count(&inner.requests, &[route.method, name, &status.to_string()], n));
                }
            }
        }
        // The cells aren't read at one moment: an end may be seen whose beginning wasn't.
        let working = inner.working.get().cast_signed().max(0).cast_unsigned();
        let mut gauge = Gauge::default();
        gauge.set_value(float(working));
        vec![
            family(&inner.requests, MetricType::COUNTER, requests),
            family(&inner.durations, MetricType::HISTOGRAM, durations),
            family(&inner.in_flight, MetricType::GAUGE, vec![Metric::from_gauge(gauge)]),
        ]
    }
}

/// The numbers of one method and route; clones count together.
#[derive(Clone, Debug)]
pub struct RouteMetrics(Arc<Route>);

#[derive(Debug)]
struct Route {
    method: &'static str,
    bounds: Arc<[u64]>,
    working: ShardedCounter,
    shards: Arc<[Shard]>,
    /// Statuses that aren't in [`STATUSES`].
    others: Mutex<BTreeMap<u16, u64>>,
}

impl RouteMetrics {
    /// Counts a request that has [begun](HttpMetrics::begin) and now ends.
    pub fn end(&self, status: u16, took: Duration) {
        let route = &*self.0;
        let Some(shard) = own(&route.shards) else { return };
        let took = nanos(took);
        let bucket = route.bounds.iter().position(|bound| took <= *bound).unwrap_or(route.bounds.len());
        if let Some(bucket) = shard.buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        shard.nanos.fetch_add(took, Ordering::Relaxed);
        match STATUSES.iter().zip(&shard.statuses).find(|(known, _)| **known == status) {
            Some((_, count)) => _ = count.fetch_add(1, Ordering::Relaxed),
            None => *route.others.lock().unwrap_or_else(PoisonError::into_inner).entry(status).or_default() += 1,
        }
        route.working.inc_by(u64::MAX);
    }
}

impl Route {
    fn sum(&self, cell: impl Fn(&Shard) -> Option<&AtomicU64>) -> u64 {
        self.shards.iter().filter_map(cell).map(|cell| cell.load(Ordering::Relaxed)).fold(0, u64::wrapping_add)
    }

    fn histogram(&self, bounds: &[f64]) -> Histogram {
        let mut total = 0;
        let mut buckets = Vec::with_capacity(bounds.len());
        for (i, bound) in bounds.iter().enumerate() {
            total += self.sum(|shard| shard.buckets.get(i));
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(total);
            buckets.push(bucket);
        }
        total += self.sum(|shard| shard.buckets.get(bounds.len()));
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(total);
        histogram.set_sample_sum(Duration::from_nanos(self.sum(|shard| Some(&shard.nanos))).as_secs_f64());
        histogram
    }

    fn statuses(&self) -> BTreeMap<u16, u64> {
        let mut counts = self.others.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let known = STATUSES.iter().enumerate().map(|(i, status)| (*status, self.sum(|shard| shard.statuses.get(i))));
        counts.extend(known.filter(|(_, n)| *n > 0));
        counts
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn desc(name: &str, help: &str, labels: &[&str]) -> Result<Desc, Error> {
    let labels = labels.iter().map(|&label| label.to_owned()).collect();
    Desc::new(name.to_owned(), help.to_owned(), labels, HashMap::new())
}

fn labels(desc: &Desc, values: &[&str]) -> Vec<LabelPair> {
    let pair = |(name, value): (&String, &&str)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.clone());
        pair.set_value((*value).to_owned());
        pair
    };
    desc.variable_labels.iter().zip(values).map(pair).collect()
}

fn count(desc: &Desc, values: &[&str], n: u64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(float(n));
    let mut metric = Metric::from_label(labels(desc, values));
    metric.set_counter(counter);
    metric
}

fn family(desc: &Desc, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(desc.fq_name.clone());
    family.set_help(desc.help.clone());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has no integers; they are exact up to 2⁵³")]
fn float(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use prometheus::{Encoder as _, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

    use super::*;

    const BUCKETS: [f64; 14] =
        [0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

    fn text(collectors: Vec<Box<dyn Collector>>) -> String {
        let registry = Registry::new();
        for collector in collectors {
            registry.register(collector).unwrap();
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&registry.gather(), &mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn the_text_is_that_of_ordinary_metrics() {
        let ours = HttpMetrics::new(&BUCKETS).unwrap();
        let opts = Opts::new("keyward_http_requests_total", "Answered HTTP requests");
        let requests = IntCounterVec::new(opts, &["method", "route", "status"]).unwrap();
        let (name, help) = ("keyward_http_request_duration_seconds", "Time from a request's head to its answer's");
        let opts = HistogramOpts::new(name, help).buckets(BUCKETS.to_vec());
        let durations = HistogramVec::new(opts, &["method", "route"]).unwrap();
        let in_flight = IntGauge::new("keyward_http_requests_in_flight", "HTTP requests being worked on").unwrap();
        let _ = ours.route("GET", "/never/called");
        let nano = Duration::from_nanos(1);
        let near = |bound: Duration| [bound, bound + nano, bound.saturating_sub(nano)];
        let bounds = BUCKETS.map(Duration::from_secs_f64).into_iter().chain([Duration::ZERO, Duration::from_hours(1)]);
        let took: Vec<Duration> = bounds.flat_map(near).collect();
        let statuses = STATUSES.into_iter().chain([202, 408, 500, 502]);
        for (i, status) in statuses.cycle().take(1000).enumerate() {
            let (method, route) = (["GET", "POST", "OTHER"][i % 3], ["/key/{length}", "unmatched", "/\"\\"][i / 3 % 3]);
            let took = took[i % took.len()];
            ours.begin();
            in_flight.inc();
            if i % 100 < 98 {
                ours.route(method, route).end(status, took);
                in_flight.dec();
                requests.with_label_values(&[method, route, &status.to_string()]).inc();
                durations.with_label_values(&[method, route]).observe(took.as_secs_f64());
            }
        }
        let ours = text(vec![Box::new(ours)]);
        let theirs = text(vec![Box::new(requests), Box::new(durations), Box::new(in_flight)]);
        assert_eq!(ours.lines().count(), theirs.lines().count(), "{ours}");
        for (ours, theirs) in ours.lines().zip(theirs.lines()) {
            let (name, number) = ours.rsplit_once(' ').unwrap();
            if name.contains("_seconds_sum{") {
                // Theirs adds binary fractions.
                let (theirs, expected) = theirs.rsplit_once(' ').unwrap();
                let (number, expected): (f64, f64) = (number.parse().unwrap(), expected.parse().unwrap());
                assert!(name == theirs && (number - expected).abs() < 1e-6, "{ours} instead of {expected}");
            } else {
                assert_eq!(ours, theirs);
            }
        }
    }

    #[test]
    fn nothing_is_lost_between_threads() {
        let (http, counter) = (HttpMetrics::new(&BUCKETS).unwrap(), ShardedCounter::default());
        for _ in 0..5 {
            http.begin();
        }
        thread::scope(|scope| {
            for _ in 0..8 {
                let (http, counter) = (http.clone(), counter.clone());
                scope.spawn(move || {
                    for status in [200, 404, 500].into_iter().cycle().take(30_000) {
                        http.begin();
                        http.route("GET", "/").end(status, Duration::from_millis(1));
                        counter.inc_by(2);
                    }
                });
            }
        });
        // Begun on one thread, ended on another.
        thread::scope(|scope| _ = scope.spawn(|| (0..3).for_each(|_| http.route("GET", "/").end(200, Duration::ZERO))));
        assert_eq!(counter.get(), 480_000);
        let text = text(vec![Box::new(http)]);
        for line in [
            "keyward_http_requests_total{method=\"GET\",route=\"/\",status=\"200\"} 80003",
            "keyward_http_requests_total{method=\"GET\",route=\"/\",status=\"500\"} 80000",
            "keyward_http_request_duration_seconds_bucket{method=\"GET\",route=\"/\",le=\"0.0005\"} 3",
            "keyward_http_request_duration_seconds_bucket{method=\"GET\",route=\"/\",le=\"+Inf\"} 240003",
            "keyward_http_request_duration_seconds_sum{method=\"GET\",route=\"/\"} 240",
            "keyward_http_requests_in_flight 2",
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line}: {text}");
        }
    }

    #[test]
    fn fewer_than_no_requests_are_none() {
        let http = HttpMetrics::new(&[]).unwrap();
        http.route("GET", "/").end(200, Duration::MAX);
        assert!(text(vec![Box::new(http)]).contains("keyward_http_requests_in_flight 0\n"));
    }

    #[test]
    fn buckets_are_few_and_ascend() {
        const MANY: [f64; 16] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0];
        assert!(HttpMetrics::new(&MANY[1..]).is_ok());
        for bad in [&MANY[..], &[2.0, 1.0], &[1.0, 1.0], &[-1.0], &[f64::NAN], &[1.0, f64::INFINITY]] {
            assert!(HttpMetrics::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_family_has_all_its_values() {
        let ours = ShardedCounters::new("codes_total", "Codes", "code", ["VALID", "NOT_FOUND", "REVOKED"]).unwrap();
        let theirs = IntCounterVec::new(Opts::new("codes_total", "Codes"), &["code"]).unwrap();
        for (index, code, times) in [(0, "VALID", 7), (1, "NOT_FOUND", 0), (2, "REVOKED", 2)] {
            theirs.with_label_values(&[code]).inc_by(times);
            (0..times).for_each(|_| ours.inc(index));
        }
        ours.inc(3);
        assert_eq!(text(vec![Box::new(ours.clone())]), text(vec![Box::new(theirs)]));
        assert!(ShardedCounters::new("no name", "Codes", "code", ["VALID"]).is_err());
    }
}
