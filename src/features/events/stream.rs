//! Events as they come: one long answer a listener (server-sent events, as the HTML standard has them).
//!
//! A stream goes by places: it remembers the last one that it has passed, and reads on from there whenever its project has
//! something new. So nothing is missed or told twice, whatever is published while it reads, and a listener that comes back with
//! the id of the last event that it saw goes on behind that one.
//!
//! One reader for all (`spread`) finds out which projects have something new; streams of others aren't woken, and none asks the
//! storage in vain. Whether the caller may still listen is asked every second, and before anything is sent.

use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use crate::base::id::{EventId, ProjectId};
use crate::ctx::Ctx;
use crate::features::auth::Lasting;
use crate::infra::db::DbError;
use crate::infra::telemetry::current;
use crate::infra::wakers::{Full, Listening};
use crate::web::long::{Going, LongAnswer};

use super::read::{EventView, Filter};
use super::{publish, store};

/// How often is looked whether streams must be told, where nobody was woken.
pub const INTERVAL: Duration = Duration::from_millis(250);
/// How often a silent stream says that it is there.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How often the caller's permission is asked for.
const ASK: Duration = Duration::from_secs(1);
/// How long a listener may take nothing of what waits for it.
const PATIENCE: Duration = Duration::from_secs(30);
/// After how long a listener shall come back.
const RETRY: &str = "retry: 2000\n\n";
/// Events that are read at once.
const PAGE: i64 = 100;
/// Behind this a stream ends.
const DELETED: &str = "project.deleted";
/// New places for which isn't asked any more whose they are.
const FAR_BEHIND: i64 = 10_000;

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The event to go on behind isn't there: it never was, or it is too old.
    #[error("there is no such event any more")]
    Gone,
    /// There are as many as there may be.
    #[error("too many streams: {0:?}")]
    Full(Full),
    /// The storage.
    #[error(transparent)]
    Storage(#[from] DbError),
}

/// Tells the streams of projects that have something new. `position` is what was spread before.
///
/// # Errors
/// The storage; the next call goes on.
pub async fn spread(ctx: &Ctx, position: &AtomicI64) -> Result<(), DbError> {
    let newest = *ctx.wakers.newest().borrow();
    let from = position.load(Ordering::Relaxed);
    if newest <= from {
        return Ok(());
    }
    // Whoever opens one now reads the newest place after this.
    if !ctx.wakers.streams.is_empty() {
        if newest - from > FAR_BEHIND {
            ctx.wakers.streams.tell(None);
        } else {
            let projects = store::projects_between(ctx.db.reader().await?.conn(), from, newest).await?;
            ctx.wakers.streams.tell(Some(&projects));
        }
    }
    position.store(newest, Ordering::Relaxed);
    Ok(())
}

/// Who listens, to what.
#[derive(Debug)]
pub struct Wanted {
    /// Whose events.
    pub project: ProjectId,
    /// The person who calls or answers for the key, or else the key's project: for how many streams they have.
    pub caller: String,
    /// The client's address, for how many streams it has.
    pub address: IpAddr,
    /// Which of them.
    pub filter: Filter,
    /// The last event that they have seen.
    pub after: Option<EventId>,
    /// Whether they may.
    pub lasting: Lasting,
}

/// What is sent, and what says that more will come.
#[derive(Debug)]
pub struct Opened {
    /// Its parts.
    pub parts: mpsc::Receiver<Bytes>,
    /// For the answer's extensions.
    pub long: LongAnswer,
}

/// Begins a stream.
///
/// # Errors
/// See [`StreamError`].
pub async fn open(ctx: &Ctx, wanted: Wanted) -> Result<Opened, StreamError> {
    let Wanted { project, caller, address, filter, after, lasting } = wanted;
    // First of all, so that whatever is published from here on is news.
    let listening = ctx.wakers.streams.open(project, caller, address).map_err(StreamError::Full)?;
    // What is committed already is no news, though its place may still be missing.
    publish::publish(ctx).await?;
    let mut reader = ctx.db.reader().await?;
    let place = match (after, filter.since()) {
        (Some(after), _) => store::place_of(reader.conn(), project, after).await?.flatten().ok_or(StreamError::Gone)?,
        (None, since) => {
            let (newest, _) = store::standing(reader.conn()).await?;
            match since {
                Some(since) => {
                    store::first_since(reader.conn(), project, since).await?.map_or(newest, |first| first - 1)
                }
                None => newest,
            }
        }
    };
    drop(reader);
    // One part waits, so that no more is on its way than was allowed a moment ago.
    let (sender, parts) = mpsc::channel(1);
    let (long, going) = LongAnswer::begin();
    let stream = Stream { ctx: ctx.clone(), project, filter, place, lasting, listening, sender, _going: going };
    tokio::spawn(current::carried(stream.run()));
    Ok(Opened { parts, long })
}

/// How a stream ends.
#[derive(Debug)]
enum End {
    /// The listener is gone, or doesn't take what is sent.
    Listener,
    /// The process ends.
    Process,
    /// The caller may not listen any more, or that can't be found out.
    Access,
    /// The project was deleted: whoever may look at it all the same comes back.
    Project,
    /// Events can't be read.
    Storage,
}

struct Stream {
    ctx: Ctx,
    project: ProjectId,
    filter: Filter,
    /// What has been passed.
    place: i64,
    lasting: Lasting,
    listening: Listening,
    sender: mpsc::Sender<Bytes>,
    _going: Going,
}

impl Stream {
    async fn run(mut self) {
        let mut ending = self.ctx.wakers.ending();
        let stopped = async move {
            // The sender lives as long as the context.
            drop(ending.wait_for(|ending| *ending).await);
        };
        let sender = self.sender.clone();
        let end = tokio::select! {
            end = self.tell() => end,
            () = stopped => End::Process,
            () = sender.closed() => End::Listener,
        };
        let why = match end {
            End::Listener => return,
            End::Process => ": the server stops\n\n",
            End::Access => ": the caller may not listen any more\n\n",
            End::Project => ": the project was deleted\n\n",
            End::Storage => ": the storage can't be used\n\n",
        };
        // For people who look; whoever doesn't take it sees the end all the same.
        drop(sender.try_send(Bytes::from_static(why.as_bytes())));
    }

    async fn tell(&mut self) -> End {
        let mut asks = tokio::time::interval(ASK);
        asks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        if let Err(end) = self.send(Bytes::from_static(RETRY.as_bytes()), &mut asks).await {
            return end;
        }
        loop {
            if let Err(end) = self.catch_up(&mut asks).await {
                return end;
            }
            if let Err(end) = self.wait(&mut asks).await {
                return end;
            }
        }
    }

    /// Sends what is there.
    async fn catch_up(&mut self, asks: &mut tokio::time::Interval) -> Result<(), End> {
        loop {
            // Before it is read: what is published meanwhile is looked at once more.
            self.listening.news.mark_unchanged();
            let rows = self.read().await.map_err(|_| End::Storage)?;
            let is_last = i64::try_from(rows.len()).is_ok_and(|rows| rows < PAGE);
            let place = rows.last().and_then(|row| row.place).unwrap_or(self.place);
            let is_over = rows.iter().any(|row| row.kind == DELETED);
            let mut part = String::new();
            for row in rows.into_iter().filter(|row| self.filter.matches(row)) {
                write_event(&mut part, row);
            }
            if !part.is_empty() {
                self.ask().await?;
                self.send(part.into(), asks).await?;
            }
            self.place = place;
            if is_over {
                return Err(End::Project);
            }
            if is_last {
                return Ok(());
            }
        }
    }

    async fn read(&self) -> Result<Vec<store::Stored>, DbError> {
        let mut reader = self.ctx.db.reader().await?;
        store::of_project_after(reader.conn(), self.project, (self.place, i64::MAX), PAGE).await
    }

    /// Waits until there is something new.
    async fn wait(&mut self, asks: &mut tokio::time::Interval) -> Result<(), End> {
        let mut silent = tokio::time::interval(HEARTBEAT);
        silent.tick().await;
        loop {
            tokio::select! {
                news = self.listening.news.changed() => return news.map_err(|_| End::Process),
                _ = asks.tick() => self.lasting.ask(&self.ctx).await.map_err(|_| End::Access)?,
                _ = silent.tick() => {
                    self.send(Bytes::from_static(b": still here\n\n"), asks).await?;
                }
            }
        }
    }

    async fn ask(&mut self) -> Result<(), End> {
        self.lasting.ask(&self.ctx).await.map_err(|_| End::Access)
    }

    /// Sends a part, as long as the listener takes something now and then, and may have it.
    async fn send(&mut self, part: Bytes, asks: &mut tokio::time::Interval) -> Result<(), End> {
        let (sender, lasting, ctx) = (&self.sender, &mut self.lasting, &self.ctx);
        let room = async {
            loop {
                tokio::select! {
                    biased;
                    room = sender.reserve() => return room.map_err(|_| End::Listener),
                    _ = asks.tick() => lasting.ask(ctx).await.map_err(|_| End::Access)?,
                }
            }
        };
        match tokio::time::timeout(PATIENCE, room).await {
            Ok(Ok(room)) => {
                room.send(part);
                Ok(())
            }
            Ok(Err(end)) => Err(end),
            Err(_) => Err(End::Listener),
        }
    }
}

/// One event, as the HTML standard has it: JSON has no line ends of its own.
fn write_event(part: &mut String, stored: store::Stored) {
    let event = EventView::from(stored);
    // A document that was read as JSON can be written as JSON.
    let Ok(data) = serde_json::to_string(&event) else { return };
    for (name, value) in [("id", event.id.to_string().as_str()), ("event", &event.kind), ("data", &data)] {
        part.push_str(name);
        part.push_str(": ");
        part.push_str(value);
        part.push('\n');
    }
    part.push('\n');
}
