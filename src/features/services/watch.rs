//! The reconciler: holds services by a lease in the database, asks their checks, and carries out what `rules` decides.
//!
//! What is seen is first put into the standing in memory, then written with its events in one transaction, and only then does
//! anything happen: a restart that isn't in the database is never begun. Where the storage fails, what is to be written waits.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::base::clock::Timestamp;
use crate::base::id::ServiceOperationId;
use crate::ctx::Ctx;
use crate::infra::config::{ServiceConfig, ServiceKind, ServiceName};
use crate::infra::db::DbError;

use super::kinds::process::Process;
use super::kinds::{self, Handle};
use super::rules::{Act, Cause, Change, Recorded, Seen, Standing};
use super::{checks, store, write};

/// How often is looked what there is to do.
pub const TICK: Duration = Duration::from_millis(250);
/// How long a service is ours without another word. Replicas' clocks may differ by a few seconds.
pub const LEASE: Duration = Duration::from_secs(15);
/// How often a lease is renewed, and what checks have seen is written where nothing else is.
pub const RENEW: Duration = Duration::from_secs(5);

/// What this process watches.
#[derive(Default)]
pub struct Watcher(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    slots: BTreeMap<ServiceName, Slot>,
    /// When leases were renewed last, by the monotonic clock.
    renewed: Option<Duration>,
    /// Processes of services that are another's now, on their way to their end.
    leaving: Vec<JoinHandle<()>>,
    has_ended: bool,
}

/// A service that is ours at present.
pub(super) struct Slot {
    pub(super) standing: Standing,
    /// What is to be written.
    pub(super) pending: Vec<Change>,
    /// When the standing was written, by the monotonic clock.
    pub(super) written: Option<Duration>,
    /// The newest moment of its history: two changes never share one, so that they have an order.
    pub(super) newest: Timestamp,
    checks: BTreeMap<String, Asked>,
    process: Option<Process>,
    left: Option<Recorded>,
    job: Option<Job>,
    wants: bool,
}

/// One check: when it is due, by the monotonic clock, and the question that is under way.
#[derive(Default)]
struct Asked {
    due: Duration,
    task: Option<JoinHandle<Seen>>,
}

/// A start or a restart that is under way.
struct Job {
    operation: Option<ServiceOperationId>,
    task: JoinHandle<Result<Option<Process>, String>>,
}

impl std::fmt::Debug for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watcher").finish_non_exhaustive()
    }
}

/// Looks at everything once, and does what is to be done.
///
/// # Errors
/// The storage; what was seen is kept and written by a later call.
pub async fn tick(ctx: &Ctx, watcher: &Watcher) -> Result<(), DbError> {
    let mut inner = watcher.0.lock().await;
    if inner.has_ended {
        return Ok(());
    }
    inner.leaving.retain(|task| !task.is_finished());
    for service in &ctx.config.services {
        if let Some(slot) = inner.slots.get_mut(&service.name) {
            slot.look(ctx, service).await;
        }
    }
    lease(ctx, &mut inner).await?;
    let requested: BTreeMap<_, _> = store::requested(ctx.db.reader().await?.conn()).await?.into_iter().collect();
    for service in &ctx.config.services {
        let Some(slot) = inner.slots.get_mut(&service.name) else { continue };
        let is_ours = slot.act(ctx, service, requested.get(service.name.as_str()).copied()).await?;
        if !is_ours {
            leave(ctx, &mut inner, service);
        }
    }
    Ok(())
}

/// Gives everything back: processes are ended, each with its grace, and what was seen is written. Nothing is watched after.
pub async fn stop(ctx: &Ctx, watcher: &Watcher) {
    let mut inner = watcher.0.lock().await;
    inner.has_ended = true;
    let mut slots = std::mem::take(&mut inner.slots);
    let ends = ctx.config.services.iter().filter_map(|service| {
        let slot = slots.remove(&service.name)?;
        Some(async move {
            let slot = slot.end(ctx, service).await;
            if let Err(error) = write::release(ctx, service, slot).await {
                tracing::warn!(service = %service.name, cause = %error, "a service wasn't given back: its lease runs out");
            }
        })
    });
    futures_util::future::join_all(ends).await;
    futures_util::future::join_all(std::mem::take(&mut inner.leaving)).await;
}

/// Takes and keeps what nobody else has.
async fn lease(ctx: &Ctx, inner: &mut Inner) -> Result<(), DbError> {
    let monotonic = ctx.clock.monotonic();
    if inner.renewed.is_some_and(|at| monotonic.saturating_sub(at) < RENEW) {
        return Ok(());
    }
    let now = ctx.now();
    let mut tx = ctx.db.begin().await?;
    let (mut taken, mut lost) = (Vec::new(), Vec::new());
    for service in &ctx.config.services {
        let name = service.name.as_str();
        if inner.renewed.is_none() {
            store::ensure(&mut tx, name).await?;
        }
        let is_ours = store::claim(&mut tx, name, &ctx.origin, now, now.saturating_add(LEASE)).await?;
        let was_ours = inner.slots.contains_key(&service.name);
        if is_ours && !was_ours {
            taken.push((service, store::standing(&mut tx, name).await?));
            store::abandon(&mut tx, name, now).await?;
        } else if was_ours && !is_ours {
            lost.push(service);
        }
    }
    tx.commit().await?;
    inner.renewed = Some(monotonic);
    for (service, standing) in taken {
        tracing::info!(service = %service.name, "watching a service");
        inner.slots.insert(service.name.clone(), Slot::take(ctx, service, standing, now));
    }
    for service in lost {
        leave(ctx, inner, service);
    }
    Ok(())
}

/// Another watches it now: what runs here is ended.
fn leave(ctx: &Ctx, inner: &mut Inner, service: &ServiceConfig) {
    let Some(slot) = inner.slots.remove(&service.name) else { return };
    tracing::warn!(service = %service.name, "another replica watches this service now");
    ctx.metrics.services.forget(service.name.as_str());
    let (ctx, service) = (ctx.clone(), service.clone());
    inner.leaving.push(tokio::spawn(async move { drop(slot.end(&ctx, &service).await) }));
}

impl Slot {
    /// Goes on from where another stopped.
    fn take(ctx: &Ctx, service: &ServiceConfig, standing: Option<Standing>, now: Timestamp) -> Self {
        let mut standing = standing.unwrap_or_else(|| Standing::new(now));
        let newest = standing.since;
        let left = standing.process.clone();
        let pending = standing.resume(service, now);
        let mut slot = Self {
            standing,
            pending,
            written: None,
            newest,
            checks: BTreeMap::new(),
            process: None,
            left,
            job: None,
            wants: false,
        };
        if matches!(service.kind, ServiceKind::Process(_)) {
            slot.begin(ctx, service, None);
        }
        slot
    }

    /// Takes in what has come, and asks what is due. Without the storage.
    async fn look(&mut self, ctx: &Ctx, service: &ServiceConfig) {
        let now = ctx.now();
        if let Some(job) = self.job.take_if(|job| job.task.is_finished()) {
            let result = job.task.await.unwrap_or_else(|_| Err("it broke off".to_owned()));
            self.came(service, job.operation, result, now);
        }
        if let Some(how) = self.process.as_ref().and_then(Process::exit) {
            self.process = None;
            self.standing.process = None;
            tracing::warn!(service = %service.name, "a service's process {how}");
            self.pending.extend(self.standing.exited(service, how, now));
        }
        for (name, asked) in &mut self.checks {
            if let Some(task) = asked.task.take_if(|task| task.is_finished())
                && let Ok(seen) = task.await
            {
                ctx.metrics.services.checked(service.name.as_str(), seen.duration_ms);
                self.pending.extend(self.standing.observe(service, name, seen));
            }
        }
        if self.job.is_some() {
            return;
        }
        let (act, changes) = self.standing.tick(service, now);
        self.pending.extend(changes);
        self.wants = act == Act::Restart;
        self.ask(ctx, service);
    }

    /// Asks what is due.
    fn ask(&mut self, ctx: &Ctx, service: &ServiceConfig) {
        let monotonic = ctx.clock.monotonic();
        for config in &service.checks {
            let asked = self.checks.entry(config.name.clone()).or_default();
            if asked.task.is_none() && asked.due <= monotonic {
                asked.due = monotonic.saturating_add(config.interval);
                let (ctx, config) = (ctx.clone(), config.clone());
                asked.task = Some(tokio::spawn(async move { checks::run(&ctx, &config).await }));
            }
        }
    }

    /// Writes what there is to write, and begins the restart that somebody or the policy wants; `false` where the service is
    /// another's by now.
    async fn act(
        &mut self,
        ctx: &Ctx,
        service: &ServiceConfig,
        requested: Option<ServiceOperationId>,
    ) -> Result<bool, DbError> {
        let now = ctx.now();
        let next = match requested {
            _ if self.job.is_some() => None,
            Some(operation) => Some((operation, Cause::Manual)),
            None if self.wants => Some((ServiceOperationId::generate(now, &*ctx.rng), Cause::Policy)),
            None => None,
        };
        match write::write(ctx, service, self, next).await? {
            write::Written::Lost => return Ok(false),
            write::Written::Done => {}
            write::Written::Begun => {
                self.wants = false;
                self.begin(ctx, service, next);
            }
        }
        ctx.metrics.services.stands(service.name.as_str(), self.standing.state.word());
        Ok(true)
    }

    /// Begins a restart, or the first start of a process.
    fn begin(&mut self, ctx: &Ctx, service: &ServiceConfig, operation: Option<(ServiceOperationId, Cause)>) {
        // What was asked before says nothing of what comes.
        self.forget();
        let handle = Handle { process: self.process.take(), left: self.left.take() };
        let (ctx, service) = (ctx.clone(), service.clone());
        let task = tokio::spawn(async move {
            match operation {
                Some((operation, cause)) => kinds::restart(&ctx, &service, handle, operation, cause).await,
                None => kinds::start(&ctx, &service, handle).await,
            }
        });
        self.job = Some(Job { operation: operation.map(|(operation, _)| operation), task });
    }

    /// A start or a restart has ended.
    fn came(
        &mut self,
        service: &ServiceConfig,
        operation: Option<ServiceOperationId>,
        result: Result<Option<Process>, String>,
        now: Timestamp,
    ) {
        let how = result.map(|process| {
            self.standing.process = process.as_ref().and_then(Process::recorded);
            self.process = process;
        });
        if let Err(error) = &how {
            tracing::warn!(service = %service.name, cause = error, "a service wasn't started");
        }
        let changes = match operation {
            Some(_) => self.standing.ended(service, how, now),
            None => self.standing.started(service, how, now),
        };
        // Whatever it changes, who runs is to be known at once.
        self.written = None;
        self.pending.extend(changes);
    }

    fn forget(&mut self) {
        for asked in self.checks.values_mut() {
            if let Some(task) = asked.task.take() {
                task.abort();
            }
            asked.due = Duration::ZERO;
        }
    }

    /// Ends what runs here.
    async fn end(mut self, ctx: &Ctx, service: &ServiceConfig) -> Self {
        self.forget();
        if let Some(job) = self.job.take() {
            let result = job.task.await.unwrap_or_else(|_| Err("it broke off".to_owned()));
            self.came(service, job.operation, result, ctx.now());
        }
        if let (Some(process), ServiceKind::Process(config)) = (self.process.take(), &service.kind) {
            process.stop(ctx, config.stop_grace).await;
            self.standing.process = None;
        }
        self
    }
}
