//! Sending: one loop a process, which makes deliveries of new events, takes up what is due, and lets each attempt run by
//! itself; and one writer (`write`), which writes down together what has come back.
//!
//! What is due is chosen by endpoint, and each endpoint has few places, so the backlog of one never stands before another.
//!
//! # What the leases promise, and what not
//! Taking a delivery up moves `next_at` to the end of a lease, which is longer than an attempt may take; so no other process
//! takes it up meanwhile, and each attempt is made once, in the ordinary case. A process that is killed leaves its leases to
//! run out: what it was sending is sent again, and may have arrived before. The same happens where the storage can't be
//! reached for longer than a lease after an answer has come, or where a process stands still for so long in the middle of an
//! attempt. Receivers tell repetitions by `webhook-id`, which is the event's and never changes. The bound on attempts at once
//! holds for each process, not for all of them together.

mod flights;
pub(super) mod send;
pub mod store;
pub(super) mod write;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::base::clock::Timestamp;
use crate::base::id::{EventId, ProjectId, WebhookId};
use crate::ctx::Ctx;
use crate::infra::db::DbError;

use super::store::{self as webhooks, Endpoint};
use super::{dispatch, rules};
use flights::Flights;
use send::{Job, Ready};
use write::Done;

/// How often is looked for what has become due, and for what other processes have left.
const TICK: Duration = Duration::from_millis(250);
/// Endpoints whose deliveries are taken up in one transaction.
const CLAIMS: usize = 32;
/// Outcomes that wait to be written.
const OUTCOMES: usize = 1024;
/// How long the end of the process waits for attempts that are being made.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long an endpoint is left alone whose secret can't be read.
const UNREADABLE: Duration = Duration::from_mins(1);

/// Starts it, until `stop` turns true.
#[must_use]
pub fn spawn(ctx: &Ctx, stop: watch::Receiver<bool>) -> JoinHandle<()> {
    let ctx = ctx.clone();
    tokio::spawn(async move { Deliverer::new(ctx).run(stop).await })
}

/// How long an attempt is nobody else's: longer than any may take, and its outcome to be written.
pub(super) fn lease(ctx: &Ctx) -> Duration {
    ctx.config.webhooks.timeout + Duration::from_secs(10)
}

struct Deliverer {
    ctx: Ctx,
    flights: Arc<Flights>,
    attempts: JoinSet<()>,
    /// Endpoints whose secrets can't be read, and when that is tried again. Of all webhooks at the most.
    unreadable: HashMap<WebhookId, Timestamp>,
    failing: bool,
}

impl Deliverer {
    fn new(ctx: Ctx) -> Self {
        Self {
            ctx,
            flights: Arc::new(Flights::new(Arc::new(Notify::new()))),
            attempts: JoinSet::new(),
            unreadable: HashMap::new(),
            failing: false,
        }
    }

    async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let (outcomes, inbox) = mpsc::channel(OUTCOMES);
        let writer = tokio::spawn(write::run(self.ctx.clone(), inbox));
        let mut newest = self.ctx.wakers.newest();
        loop {
            tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                // Its sender lives as long as the context.
                _ = newest.changed() => {}
                () = self.ctx.wakers.webhooks.notified() => {}
                () = self.flights.wake.notified() => {}
                // A dropped sender means that the process is ending, too.
                _ = stop.wait_for(|stop| *stop) => break,
            }
            match AssertUnwindSafe(self.round(&outcomes)).catch_unwind().await {
                Ok(Ok(())) => self.failing = false,
                // Said once, not four times a second of an outage.
                Ok(Err(error)) if !self.failing => {
                    self.failing = true;
                    tracing::warn!(worker = "webhooks", error = %error, "background work failed; it will be tried again");
                }
                Ok(Err(_)) => {}
                Err(_) => tracing::error!(worker = "webhooks", "background work panicked; it will be tried again"),
            }
            while self.attempts.try_join_next().is_some() {}
        }
        self.end(outcomes, writer).await;
    }

    /// Lets the attempts end that are being made, and gives back what won't be.
    async fn end(mut self, outcomes: mpsc::Sender<Done>, writer: JoinHandle<()>) {
        let ended = async { while self.attempts.join_next().await.is_some() {} };
        if tokio::time::timeout(PATIENCE, ended).await.is_err() {
            self.attempts.abort_all();
            while self.attempts.join_next().await.is_some() {}
        }
        drop(outcomes);
        // A panic there has been told already.
        drop(writer.await);
        let left = self.flights.deliveries();
        if left.is_empty() {
            return;
        }
        let released = async {
            let mut tx = self.ctx.db.begin().await?;
            store::release(&mut tx, &left, &self.ctx.origin, self.ctx.now()).await?;
            tx.commit().await
        };
        if let Err(error) = released.await {
            // They are taken up again when their leases end.
            tracing::warn!(cause = %error, deliveries = left.len(), "deliveries couldn't be given back");
        }
    }

    async fn round(&mut self, outcomes: &mpsc::Sender<Done>) -> Result<(), DbError> {
        // What is due is sent, whatever becomes of new events.
        let dispatched = dispatch::dispatch(&self.ctx).await;
        self.claim(outcomes).await?;
        dispatched.map(drop)
    }

    async fn claim(&mut self, outcomes: &mpsc::Sender<Done>) -> Result<(), DbError> {
        let now = self.ctx.now();
        self.unreadable.retain(|_, until| *until > now);
        let mut due = webhooks::due(self.ctx.db.reader().await?.conn(), now).await?;
        due.retain(|endpoint| !self.unreadable.contains_key(&endpoint.id));
        // Those with the fewest attempts under way first, the project's and then its own: they are the first to get what few
        // places are left. Ties fall by chance, so that nobody is always the last.
        due.sort_by_cached_key(|endpoint| {
            let mut chance = [0; 4];
            self.ctx.rng.fill(&mut chance);
            (self.flights.of_project(endpoint.project), self.flights.of(endpoint.id), chance)
        });
        for endpoints in due.chunks(CLAIMS) {
            self.claim_some(endpoints, outcomes, now).await?;
        }
        Ok(())
    }

    async fn claim_some(
        &mut self,
        endpoints: &[Endpoint],
        outcomes: &mpsc::Sender<Done>,
        now: Timestamp,
    ) -> Result<(), DbError> {
        let mut wanted = Vec::new();
        let (mut planned, mut of_projects) = (0, HashMap::<ProjectId, usize>::new());
        for endpoint in endpoints {
            let of_project = of_projects.entry(endpoint.project).or_default();
            let names = (endpoint.id, endpoint.project);
            let free = self.flights.free(names, endpoint.failures, (*of_project, planned));
            if free == 0 {
                continue;
            }
            planned += free;
            *of_project += free;
            match Ready::open(&self.ctx, endpoint, now) {
                Ok(ready) => wanted.push((Arc::new(ready), endpoint.project, free)),
                Err(error) => {
                    tracing::error!(webhook = %endpoint.id, cause = %error, "a webhook's deliveries wait: its secret can't be read");
                    self.unreadable.insert(endpoint.id, now.saturating_add(UNREADABLE));
                    // One of them says why.
                    wanted.push((Arc::new(Ready::unreadable(endpoint, error)), endpoint.project, 1));
                }
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let lease = (self.ctx.origin.as_str(), now.saturating_add(lease(&self.ctx)));
        let mut tx = self.ctx.db.begin().await?;
        let mut claimed = Vec::new();
        for (ready, project, free) in wanted {
            let free = i64::try_from(free).unwrap_or(1);
            for delivery in store::claim(&mut tx, ready.id, lease, free, now).await? {
                claimed.push((Arc::clone(&ready), project, delivery));
            }
        }
        tx.commit().await?;
        let mut bodies = self.bodies(claimed.iter().map(|(_, _, delivery)| delivery)).await?;
        for (ready, project, delivery) in claimed {
            let body = delivery.body.clone().or_else(|| bodies.get(&delivery.event_id).cloned());
            let place = self.flights.take((ready.id, project), delivery.id);
            let job = Job { ready, delivery, body };
            let (ctx, outcomes) = (self.ctx.clone(), outcomes.clone());
            self.attempts.spawn(async move {
                let outcome = send::send(&ctx, job).await;
                // The writer outlives the attempts.
                drop(outcomes.send(Done { outcome, place }).await);
            });
        }
        bodies.clear();
        Ok(())
    }

    /// What is sent of events, by their ids.
    async fn bodies(
        &self,
        claimed: impl Iterator<Item = &store::Claimed>,
    ) -> Result<HashMap<EventId, String>, DbError> {
        let ids: std::collections::HashSet<EventId> =
            claimed.filter(|delivery| delivery.body.is_none()).map(|delivery| delivery.event_id).collect();
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let events = store::events(self.ctx.db.reader().await?.conn(), ids.into_iter()).await?;
        Ok(events.into_iter().map(|(id, at, kind, data)| (id, rules::body(&kind, at, &data))).collect())
    }
}
