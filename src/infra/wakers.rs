//! Who is told that there is something to do: whoever gives events their places, after each commit that wrote some; and
//! whoever reads events, after each publication.
//!
//! A wake that is missed costs a moment, nothing else: all of them look by themselves, too.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use crate::base::id::ProjectId;

/// Streams of one project at once, in this process.
pub const STREAMS_OF_A_PROJECT: usize = 64;
/// Streams of one caller at once, in this process.
pub const STREAMS_OF_A_CALLER: usize = 16;

/// See the module.
#[derive(Debug)]
pub struct Wakers {
    /// Events wait for their places.
    pub publisher: Arc<Notify>,
    /// There are new places: streams of the projects concerned must be told.
    pub spreader: Arc<Notify>,
    /// The streams of events that are open in this process.
    pub streams: Streams,
    newest: watch::Sender<i64>,
    ending: watch::Sender<bool>,
}

impl Wakers {
    /// With so many streams of events at once.
    #[must_use]
    pub fn new(streams: usize) -> Self {
        Self {
            publisher: Arc::default(),
            spreader: Arc::default(),
            streams: Streams { most: streams, open: Arc::default() },
            newest: watch::Sender::new(0),
            ending: watch::Sender::new(false),
        }
    }

    /// The newest place that this process knows of, and its changes; 0 until anything is known. Any number may watch.
    #[must_use]
    pub fn newest(&self) -> watch::Receiver<i64> {
        self.newest.subscribe()
    }

    /// Tells of the newest place; an older one is no news.
    pub fn published(&self, place: i64) {
        let is_news = self.newest.send_if_modified(|newest| {
            let is_newer = place > *newest;
            *newest = place.max(*newest);
            is_newer
        });
        if is_news {
            self.spreader.notify_one();
        }
    }

    /// Turns true when the process is about to end: nothing long may begin or go on.
    #[must_use]
    pub fn ending(&self) -> watch::Receiver<bool> {
        self.ending.subscribe()
    }

    /// The process is about to end.
    pub fn end(&self) {
        self.ending.send_replace(true);
    }
}

/// Why no further stream may be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The process has as many as it may.
    Process,
    /// The project has.
    Project,
    /// The caller has.
    Caller,
}

/// The streams of events that are open in this process: so many for all, for a project, and for a caller.
#[derive(Debug)]
pub struct Streams {
    most: usize,
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    projects: HashMap<ProjectId, (watch::Sender<u64>, usize)>,
    callers: HashMap<String, usize>,
}

fn lock(open: &Mutex<Open>) -> MutexGuard<'_, Open> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One open stream, until it is dropped.
#[derive(Debug)]
pub struct Listening {
    /// Changes whenever the project may have new events.
    pub news: watch::Receiver<u64>,
    project: ProjectId,
    caller: String,
    open: Arc<Mutex<Open>>,
}

impl Streams {
    /// Opens one. What is published from now on is news to it.
    ///
    /// # Errors
    /// There are as many as there may be.
    pub fn open(&self, project: ProjectId, caller: String) -> Result<Listening, Full> {
        let mut open = lock(&self.open);
        if open.all >= self.most {
            return Err(Full::Process);
        }
        if open.callers.get(&caller).is_some_and(|count| *count >= STREAMS_OF_A_CALLER) {
            return Err(Full::Caller);
        }
        if open.projects.get(&project).is_some_and(|(_, count)| *count >= STREAMS_OF_A_PROJECT) {
            return Err(Full::Project);
        }
        open.all += 1;
        *open.callers.entry(caller.clone()).or_default() += 1;
        let (news, count) = open.projects.entry(project).or_insert_with(|| (watch::Sender::new(0), 0));
        *count += 1;
        let news = news.subscribe();
        drop(open);
        Ok(Listening { news, project, caller, open: Arc::clone(&self.open) })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        lock(&self.open).all
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tells the streams of these projects, or of all, that there may be something new.
    pub fn tell(&self, projects: Option<&[ProjectId]>) {
        let open = lock(&self.open);
        let tell = |(news, _): &(watch::Sender<u64>, usize)| news.send_modify(|news| *news = news.wrapping_add(1));
        match projects {
            Some(projects) => projects.iter().filter_map(|project| open.projects.get(project)).for_each(tell),
            None => open.projects.values().for_each(tell),
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut open = lock(&self.open);
        open.all = open.all.saturating_sub(1);
        if let Some(count) = open.callers.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                open.callers.remove(&self.caller);
            }
        }
        if let Some((_, count)) = open.projects.get_mut(&self.project) {
            *count -= 1;
            if *count == 0 {
                open.projects.remove(&self.project);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_newer_places_are_news() {
        let wakers = Wakers::new(1);
        let mut newest = wakers.newest();
        wakers.published(3);
        assert!(newest.has_changed().unwrap());
        assert_eq!(*newest.borrow_and_update(), 3);
        wakers.published(2);
        wakers.published(3);
        assert!(!newest.has_changed().unwrap());
        assert_eq!(*wakers.newest().borrow(), 3);
    }

    #[test]
    fn streams_are_bounded_and_leave_nothing_behind() {
        let wakers = Wakers::new(STREAMS_OF_A_PROJECT + STREAMS_OF_A_CALLER + 2);
        let open =
            |project: u128, caller: usize| wakers.streams.open(ProjectId::from_bits(project), caller.to_string());
        let mut held: Vec<_> = (0..STREAMS_OF_A_CALLER).map(|_| open(1, 0).unwrap()).collect();
        assert_eq!(open(1, 0).unwrap_err(), Full::Caller);
        assert_eq!(open(2, 0).unwrap_err(), Full::Caller);
        held.extend((STREAMS_OF_A_CALLER..STREAMS_OF_A_PROJECT).map(|n| open(1, n).unwrap()));
        assert_eq!(open(1, 1000).unwrap_err(), Full::Project);
        held.extend((0..STREAMS_OF_A_CALLER + 2).map(|n| open(2, 2000 + n).unwrap()));
        assert_eq!(open(3, 3000).unwrap_err(), Full::Process);
        held.pop();
        let mut third = open(3, 3000).unwrap();
        wakers.streams.tell(Some(&[ProjectId::from_bits(1)]));
        assert!(held[0].news.has_changed().unwrap() && !third.news.has_changed().unwrap());
        wakers.streams.tell(None);
        assert!(third.news.has_changed().unwrap());
        third.news.mark_unchanged();
        drop((held, third));
        assert!(wakers.streams.is_empty());
        let open = lock(&wakers.streams.open);
        assert!(open.projects.is_empty() && open.callers.is_empty());
    }
}
