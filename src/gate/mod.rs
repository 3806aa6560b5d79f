//! The gate: what decides in memory about keys, without HTTP and without SQL.
//!
//! `entry` is what is known of a key, `state` what is counted of it, `decide` the decision. [`Gate`] finds the entry of a
//! shown key: in its cache, or by asking the storage through a function that it is given, once for all who wait. Every
//! change of a key leaves a mark (`mark`), by which an entry that was read before it is recognised.

mod code;
mod decide;
mod entry;
mod known;
mod mark;
pub mod noted;
pub mod noticed;
pub mod people;
pub mod restrict;
mod rulebook;
mod sample;
mod seeded;
mod settings;
mod state;
mod states;
mod tally;
pub mod unwritten;
mod windows;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use quick_cache::sync::Cache;
use quick_cache::{OptionsBuilder, Weighter};

use crate::base::id::{KeyId, ProjectId};

pub use code::{CODES, Code, OUTCOMES};
pub use decide::{
    Checked, Client, Decision, Moment, Outcome, Question, decide, limited, refusal, retry_after, state, trace,
    trace_unknown,
};
pub use entry::{Entry, Facts, Rules};
pub use mark::{Epoch, Mark, Project};
pub use sample::Sample;
pub use settings::{
    Effective, KEPT_SECONDS, Limits, MAX_CONCURRENCY, QUOTA_SECONDS, ServerDefaults, Settings, Source, replace, whole,
};
pub use state::{KeyState, Lease, Noted, Pending, Use};
pub use tally::{
    Counts, Endpoint, GRAINS, Grain, Hit, Ledger, MAX_ENDPOINT, MAX_ENDPOINTS, OTHER, Row, Tallies, Verdict,
};
pub use windows::{Limit, Saved, Standing, Standings, standings};

use known::Known;
use rulebook::Rulebook;
use seeded::Seeded;
use states::States;

/// SHA-256 of a shown key.
pub type Digest = [u8; 32];

/// What the cache knows a key by: half of its digest. 128 bits of a SHA-256 can no more be met on purpose than all of it.
type Half = [u8; 16];

fn half(digest: &Digest) -> Half {
    digest.first_chunk().copied().unwrap_or_default()
}

/// How long an unknown key is remembered as unknown, in microseconds.
const MISSING_FOR: u64 = 10_000_000;
/// How many unknown keys are remembered.
const MISSING_ENTRIES: usize = 65_536;
/// How long the cache is trusted without word from the storage of what others changed, in microseconds.
pub const TRUST: u64 = 5_000_000;
/// How much the cache may hold.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Keys.
    pub entries: u64,
    /// Bytes.
    pub bytes: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Gate {
    entries: Cache<Half, Arc<Entry>, Weight, Seeded>,
    missing: Cache<Half, u64, quick_cache::UnitWeighter, Seeded>,
    /// Which keys can exist at all.
    pub known: Known,
    /// Grows with every secret that comes to exist, so that a look-up that began before isn't remembered as in vain.
    made: AtomicU64,
    states: States,
    projects: Mutex<std::collections::HashMap<ProjectId, Arc<Project>>>,
    rulebook: Rulebook,
    /// People who are logged in.
    pub people: people::People,
    epoch: Epoch,
    /// Tells when anything may have changed.
    all: Mark,
    /// What is counted and not written.
    pub unwritten: unwritten::Unwritten,
    /// What is shared by everybody who counts requests.
    pub ledger: Ledger,
    /// Steady microseconds of the last word from the storage.
    heard: AtomicU64,
    defaults: ServerDefaults,
    /// Requests that the log keeps, until they are written.
    pub noted: noted::Log,
    /// What traffic has shown, until it is written.
    pub noticed: noticed::Noticed,
    lookups: Lookups,
}

/// How look-ups went.
#[derive(Debug, Default)]
pub struct Lookups {
    /// Answered by the storage.
    pub loaded: AtomicU64,
    /// The storage knew nothing of it.
    pub absent: AtomicU64,
    /// Known to be unknown, without asking.
    pub spared: AtomicU64,
}

/// What a look-up comes to.
#[derive(Clone, Debug)]
pub enum Found {
    /// The key.
    Entry(Arc<Entry>),
    /// There is none.
    Unknown,
}

impl Gate {
    /// An empty one.
    #[must_use]
    pub fn new(bounds: Bounds, defaults: ServerDefaults) -> Self {
        let entries = bounds.entries.max(1);
        // Every entry weighs at least its share, so that both bounds hold.
        let weight = Weight { least: bounds.bytes.div_ceil(entries).max(1) };
        let options = |items: u64, weight: u64| {
            let items = usize::try_from(items).unwrap_or(usize::MAX);
            OptionsBuilder::new().estimated_items_capacity(items).weight_capacity(weight).build()
        };
        let cache = match options(entries, bounds.bytes.max(1)) {
            Ok(options) => {
                Cache::with_options(options, weight, Seeded::default(), quick_cache::sync::DefaultLifecycle::default())
            }
            // Both capacities are given.
            Err(_) => Cache::with(1, 1, weight, Seeded::default(), quick_cache::sync::DefaultLifecycle::default()),
        };
        Self {
            entries: cache,
            missing: Cache::with(
                MISSING_ENTRIES,
                MISSING_ENTRIES as u64,
                quick_cache::UnitWeighter,
                Seeded::default(),
                quick_cache::sync::DefaultLifecycle::default(),
            ),
            known: Known::default(),
            made: AtomicU64::new(0),
            states: States::default(),
            projects: Mutex::default(),
            rulebook: Rulebook::default(),
            people: people::People::default(),
            epoch: Epoch::default(),
            all: Mark::default(),
            unwritten: unwritten::Unwritten::default(),
            ledger: Ledger::default(),
            heard: AtomicU64::new(0),
            defaults,
            noted: noted::Log::default(),
            noticed: noticed::Noticed::default(),
            lookups: Lookups::default(),
        }
    }

    /// What the server sets where neither key nor project do.
    #[must_use]
    pub fn defaults(&self) -> &ServerDefaults {
        &self.defaults
    }

    /// How look-ups went.
    #[must_use]
    pub fn lookups(&self) -> &Lookups {
        &self.lookups
    }

    /// Keys in the cache.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the cache is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Notes that the storage has told of everything that others changed.
    pub fn heard(&self, steady: u64) {
        self.heard.fetch_max(steady, Ordering::Release);
    }

    /// Whether the storage has been heard of what others changed a short time ago.
    #[must_use]
    pub fn is_trusted(&self, steady: u64) -> bool {
        steady.saturating_sub(self.heard.load(Ordering::Acquire)) <= TRUST
    }

    fn is_current(&self, entry: &Entry) -> bool {
        entry.is_current(self.all.get())
    }

    /// What the cache says of a key, if it can be trusted and says anything.
    #[must_use]
    pub fn cached(&self, digest: &Digest, steady: u64) -> Option<Arc<Entry>> {
        if !self.is_trusted(steady) {
            return None;
        }
        self.entries.get(&half(digest)).filter(|entry| self.is_current(entry))
    }

    /// Finds a key: in the cache, or through `load`, which asks the storage. Of many who ask for one key at once, one loads.
    ///
    /// # Errors
    /// Those of `load`.
    pub async fn find<F, E>(&self, digest: &Digest, steady: u64, load: impl Fn() -> F) -> Result<Found, E>
    where
        F: Future<Output = Result<Option<Facts>, E>>,
    {
        if !self.is_trusted(steady) {
            let epoch = self.epoch.now();
            return Ok(load().await?.map_or(Found::Unknown, |facts| Found::Entry(self.compile(facts, epoch, steady))));
        }
        loop {
            if let Some(entry) = self.cached(digest, steady) {
                return Ok(Found::Entry(entry));
            }
            if !self.may_exist(digest, steady) {
                self.lookups.spared.fetch_add(1, Ordering::Relaxed);
                return Ok(Found::Unknown);
            }
            self.entries.remove_if(&half(digest), |entry| !self.is_current(entry));
            let guard = match self.entries.get_value_or_guard_async(&half(digest)).await {
                Ok(entry) if self.is_current(&entry) => return Ok(Found::Entry(entry)),
                Ok(_) => continue,
                Err(guard) => guard,
            };
            // Somebody else may have asked while this one waited.
            if self.is_missing(digest, steady) {
                return Ok(Found::Unknown);
            }
            let epoch = self.epoch.now();
            let made = self.made.load(Ordering::SeqCst);
            let Some(facts) = load().await? else {
                self.lookups.absent.fetch_add(1, Ordering::Relaxed);
                self.missing.insert(half(digest), steady + MISSING_FOR);
                // It may have been made meanwhile; whoever made it looks here after having counted it.
                if self.made.load(Ordering::SeqCst) != made {
                    self.missing.remove(&half(digest));
                }
                return Ok(Found::Unknown);
            };
            self.lookups.loaded.fetch_add(1, Ordering::Relaxed);
            let entry = self.compile(facts, epoch, steady);
            if self.is_current(&entry) {
                // Refused only where somebody removed the place meanwhile.
                drop(guard.insert(Arc::clone(&entry)));
                return Ok(Found::Entry(entry));
            }
        }
    }

    fn may_exist(&self, digest: &Digest, steady: u64) -> bool {
        !self.is_missing(digest, steady) && self.known.may_hold(digest, steady)
    }

    /// Whether the storage said a short time ago that there is no such key.
    fn is_missing(&self, digest: &Digest, steady: u64) -> bool {
        self.missing.get(&half(digest)).is_some_and(|until| steady < until)
    }

    fn compile(&self, facts: Facts, epoch: u64, steady: u64) -> Arc<Entry> {
        let effective = Effective::of(&facts.settings, &facts.project_settings, &self.defaults);
        let (rules, state) = self.counted(facts.key, effective, epoch, &facts.saved, steady);
        let project = self.project(&facts);
        Arc::new(Entry::new(facts, rules, state, project, epoch))
    }

    /// The numbers of changes.
    #[must_use]
    pub fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    /// What a key's windows counted is forgotten, in the storage already.
    pub fn reset(&self, key: KeyId) {
        let state = self.states.get(key);
        if state.reset() {
            self.write_later(&state);
        }
    }

    /// A new secret exists.
    pub fn made(&self, digest: &Digest) {
        self.known.add(digest);
        self.made.fetch_add(1, Ordering::SeqCst);
        self.missing.remove(&half(digest));
    }

    /// Secrets that were issued elsewhere exist here now.
    pub fn imported(&self, digests: &[Digest]) {
        self.known.extend(digests.iter().map(Digest::as_slice));
        self.known.extend_imported(digests.iter().map(Digest::as_slice));
        self.made.fetch_add(1, Ordering::SeqCst);
        for digest in digests {
            self.missing.remove(&half(digest));
        }
    }

    /// A key has changed in the storage.
    pub fn changed(&self, key: KeyId) {
        self.epoch.advance(&self.states.get(key).mark);
    }

    /// Anything may have changed.
    pub fn forget_all(&self) {
        self.people.changed(&self.epoch);
        self.epoch.advance(&self.all);
    }

    /// Something has changed for every key of a project.
    pub fn project_changed(&self, project: ProjectId) {
        let known = {
            let mut projects = self.projects.lock().unwrap_or_else(PoisonError::into_inner);
            // What kind of project it is, nobody asks before an entry is read.
            Arc::clone(projects.entry(project).or_insert_with(|| Arc::new(Project::unknown(project))))
        };
        self.epoch.advance(&known.mark);
    }

    /// What the entries of a project's keys share.
    fn project(&self, facts: &Facts) -> Arc<Project> {
        let Facts { project: id, is_system, inactive_scopes: inactive, .. } = facts;
        let (id, is_system) = (*id, *is_system);
        let sample = facts.request_log_sample.map_or(self.defaults.sample, Sample::of);
        let mut projects = self.projects.lock().unwrap_or_else(PoisonError::into_inner);
        let known = projects.entry(id).or_insert_with(|| Arc::new(Project::unknown(id)));
        let is_same = known.is_system == is_system
            && known.sample == sample
            && known.inactive.len() == inactive.len()
            && inactive.iter().all(|scope| known.inactive.contains(scope));
        if !is_same {
            let inactive = inactive.iter().cloned().collect();
            *known = Arc::new(Project { id, is_system, inactive, sample, mark: Arc::clone(&known.mark) });
        }
        Arc::clone(known)
    }

    /// The compiled form of what holds for a key, as it was read after `epoch` was taken, and its counts, restored from what
    /// was saved if nothing was counted yet.
    #[must_use]
    pub fn counted(
        &self,
        key: KeyId,
        effective: Effective,
        epoch: u64,
        saved: &[Saved],
        steady: u64,
    ) -> (Arc<Rules>, Arc<KeyState>) {
        let rules = self.rulebook.rules(effective);
        let state = self.states.get(key);
        state.restore(&rules, epoch, saved, steady);
        (rules, state)
    }

    /// The keys of a project that are in the cache.
    #[must_use]
    pub fn cached_keys_of(&self, project: ProjectId) -> Vec<KeyId> {
        let mut keys: Vec<KeyId> =
            self.entries.iter().filter(|(_, entry)| entry.project() == project).map(|(_, entry)| entry.key()).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// The state of a key, made if there is none.
    #[must_use]
    pub fn state(&self, key: KeyId) -> Arc<KeyState> {
        self.states.get(key)
    }

    /// Remembers a state that has something unwritten for the first time.
    pub fn write_later(&self, state: &Arc<KeyState>) {
        self.unwritten.add(Arc::clone(state));
    }

    /// Forgets states without which nothing is lost. To be called at intervals longer than any look-up takes.
    pub fn forget_idle(&self, now: Moment) {
        self.states.sweep(now);
    }
}

/// The weight of an entry in bytes, of the digest that leads to it included.
#[derive(Clone, Debug)]
struct Weight {
    least: u64,
}

impl Weighter<Half, Arc<Entry>> for Weight {
    fn weight(&self, _: &Half, entry: &Arc<Entry>) -> u64 {
        (entry.bytes() as u64).max(self.least)
    }
}
