//! The background reconcilers: each looks at the state and does what is missing.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::ctx::Ctx;
use crate::features::audit::chain;
use crate::features::changes::{self, follow};
use crate::features::events::publish;
use crate::features::{
    audit, idempotency, keys, leases, mail, projects, requests, sensitive, sessions, usage, webhooks,
};
use crate::infra::db::DbError;
use crate::infra::reconcile;

/// How often reading in the known keys is tried, until it is done.
const KNOWN: Duration = Duration::from_secs(1);
/// How long the feed of changes is kept: longer than any process may have been away and still trust what it knows.
const CHANGES: Duration = Duration::from_hours(1);
/// How often what has run out is removed.
const PRUNE: Duration = Duration::from_mins(10);
/// How often idle addresses are forgotten.
const FORGET: Duration = Duration::from_mins(1);

/// How often is looked whether the log's own setting holds again.
const LEVEL: Duration = Duration::from_secs(1);

/// The running reconcilers.
#[derive(Debug)]
pub struct Workers {
    ctx: Ctx,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts them, once what must be known before the first request is read.
    ///
    /// # Errors
    /// The storage.
    pub async fn start(ctx: &Ctx) -> Result<Self, DbError> {
        let position = follow::Position::default();
        follow::start(ctx, &position).await?;
        leases::read_in(ctx).await?;
        projects::origins::read_in(ctx).await?;
        chain::start(ctx).await?;
        sensitive::memory::read_in(ctx).await?;
        webhooks::settle::start(ctx).await?;
        Ok(Self::spawn(ctx, position))
    }

    fn spawn(ctx: &Ctx, position: follow::Position) -> Self {
        let (stop, stopping) = watch::channel(false);
        let never_woken = || Arc::new(Notify::new());
        let flush = {
            let ctx = ctx.clone();
            move || {
                let ctx = ctx.clone();
                async move { usage::flush(&ctx).await }
            }
        };
        let log = {
            let ctx = ctx.clone();
            move || {
                let ctx = ctx.clone();
                async move { requests::log::flush(&ctx).await }
            }
        };
        let refused = {
            let ctx = ctx.clone();
            move || {
                let ctx = ctx.clone();
                async move { audit::refusals::flush(&ctx).await }
            }
        };
        let followed = {
            let ctx = ctx.clone();
            let position = Arc::new(position);
            move || {
                let (ctx, position) = (ctx.clone(), Arc::clone(&position));
                async move { follow::follow(&ctx, &position).await }
            }
        };
        let read_in = {
            let ctx = ctx.clone();
            move || {
                let ctx = ctx.clone();
                async move { keys::secrets::known::read_in(&ctx).await }
            }
        };
        let at_once = || {
            let wake = Arc::new(Notify::new());
            wake.notify_one();
            wake
        };
        let remove = {
            let ctx = ctx.clone();
            move || {
                let ctx = ctx.clone();
                async move { prune(&ctx).await }
            }
        };
        let seal = {
            let ctx = ctx.clone();
            move || {
                let ctx = ctx.clone();
                async move { chain::seal::seal(&ctx).await }
            }
        };
        let forget = {
            let ctx = ctx.clone();
            move || {
                let limits = &ctx.limits;
                for limit in [&limits.register, &limits.login, &limits.password, &limits.all] {
                    limit.forget_idle();
                }
                let ctx = ctx.clone();
                // Looks at every state there is.
                let swept = tokio::task::spawn_blocking(move || ctx.gate.forget_idle(ctx.moment()));
                async move {
                    // A panic there has been told already.
                    drop(swept.await);
                    Ok::<(), DbError>(())
                }
            }
        };
        let level = {
            let ctx = ctx.clone();
            move || {
                ctx.log_level.settle(ctx.now());
                std::future::ready(Ok::<(), DbError>(()))
            }
        };
        let mut tasks = webhooks::spawn(ctx, &stopping);
        tasks.extend([
            reconcile::spawn("usage", usage::FLUSH, never_woken(), stopping.clone(), flush),
            reconcile::spawn("request log", requests::log::FLUSH, never_woken(), stopping.clone(), log),
            reconcile::spawn("refusals", audit::refusals::FLUSH, never_woken(), stopping.clone(), refused),
            reconcile::spawn("changes", follow::INTERVAL, never_woken(), stopping.clone(), followed),
            reconcile::spawn("audit trail", chain::seal::INTERVAL, never_woken(), stopping.clone(), seal),
            publishing(ctx, stopping.clone()),
            reconcile::spawn("known keys", KNOWN, at_once(), stopping.clone(), read_in),
            reconcile::spawn("pruning", PRUNE, never_woken(), stopping.clone(), remove),
            reconcile::spawn("forgetting", FORGET, never_woken(), stopping.clone(), forget),
            mailing(ctx, stopping.clone()),
            reconcile::spawn("log level", LEVEL, never_woken(), stopping, level),
        ]);
        Self { ctx: ctx.clone(), stop, tasks }
    }

    /// Lets each run once more, and waits for it.
    pub async fn stop(self) {
        // Fails only where every task has ended already.
        let _ = self.stop.send(true);
        for task in self.tasks {
            // A reconciler catches its own panics.
            drop(task.await);
        }
        drop(publish::publish(&self.ctx).await);
        // What the others have just written, too. What can't be sealed now is after the next start, and told already.
        drop(chain::seal::seal(&self.ctx).await);
        let unwritten = &self.ctx.gate.unwritten;
        let lost = unwritten.len() + unwritten.desk.lock().await.taken.len();
        if lost > 0 {
            tracing::error!(keys = lost, "the storage can't be reached: what these keys used lately is forgotten");
        }
        let lost = requests::log::give_up(&self.ctx);
        if lost > 0 {
            tracing::error!(requests = lost, "the storage can't be reached: the request log lacks these");
        }
    }
}

/// Gives committed events their places: at once after this process's commits, and a moment later after others'.
fn publishing(ctx: &Ctx, stopping: watch::Receiver<bool>) -> JoinHandle<()> {
    let wake = Arc::clone(&ctx.wakers.publisher);
    let ctx = ctx.clone();
    reconcile::spawn("events", publish::INTERVAL, wake, stopping, move || {
        let ctx = ctx.clone();
        async move {
            if publish::publish(&ctx).await? > 0 {
                tokio::time::sleep(publish::PAUSE).await;
            }
            Ok::<(), DbError>(())
        }
    })
}

/// Sends e-mail that waits.
fn mailing(ctx: &Ctx, stopping: watch::Receiver<bool>) -> JoinHandle<()> {
    let ctx = ctx.clone();
    let send = move || {
        let ctx = ctx.clone();
        async move { mail::send::send(&ctx).await }
    };
    reconcile::spawn("mail", mail::send::INTERVAL, Arc::new(Notify::new()), stopping, send)
}

/// Removes what has run out. A transaction a step: one that held rows of several tables could wait for a request that waits
/// for it.
///
/// # Errors
/// The storage.
pub async fn prune(ctx: &Ctx) -> Result<(), DbError> {
    let now = ctx.now();
    let mut tx = ctx.db.begin().await?;
    sessions::store::prune(&mut tx, now).await?;
    tx.commit().await?;
    for accounts in [true, false] {
        let mut tx = ctx.db.begin().await?;
        sessions::store::prune_failures(&mut tx, now, accounts).await?;
        tx.commit().await?;
    }
    let mut tx = ctx.db.begin().await?;
    idempotency::store::prune(&mut tx, now.saturating_sub(idempotency::KEPT)).await?;
    tx.commit().await?;
    let mut tx = ctx.db.begin().await?;
    leases::store::prune(&mut tx, now).await?;
    tx.commit().await?;
    let mut tx = ctx.db.begin().await?;
    changes::store::prune(&mut tx, now.saturating_sub(CHANGES)).await?;
    tx.commit().await?;
    let mut tx = ctx.db.begin().await?;
    // A window longer than the limit's, so that what still counts is never removed.
    keys::quota::store::prune_creations(&mut tx, now.saturating_sub(keys::create::DAY * 2)).await?;
    tx.commit().await?;
    requests::log::prune(ctx).await?;
    usage::flush::prune(ctx).await?;
    keys::moving::import::prune(ctx).await?;
    keys::departure::settle_left(ctx).await?;
    keys::secrets::prune::prune(ctx).await?;
    webhooks::settle::prune(ctx).await?;
    projects::end::purge(ctx).await?;
    mail::send::prune(ctx).await?;
    chain::prune::prune(ctx).await
}
