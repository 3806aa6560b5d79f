//! Attempts that are being made, and how many more may be: so that one endpoint, however slow, leaves room for others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::base::id::{DeliveryId, ProjectId, WebhookId};

/// Attempts at once of one endpoint.
const PER_ENDPOINT: usize = 8;
/// So many attempts in a row must have failed before an endpoint has one place alone.
const FAILING: i64 = 5;
/// Attempts at once of this process.
const ALL: usize = 512;
/// Of these, a quarter is kept for projects that have none under way: many slow endpoints don't fill all of them.
const SHARED: usize = ALL / 4 * 3;
/// Attempts at once of one project: whoever has many endpoints has no more than whoever has a few.
const PER_PROJECT: usize = 64;

/// See the module.
pub(super) struct Flights {
    under_way: Mutex<HashMap<DeliveryId, WebhookId>>,
    endpoints: Mutex<HashMap<WebhookId, usize>>,
    projects: Mutex<HashMap<ProjectId, usize>>,
    /// A place has become free.
    pub(super) wake: Arc<Notify>,
}

/// A place, until it is dropped.
pub(crate) struct Place {
    flights: Arc<Flights>,
    webhook: WebhookId,
    project: ProjectId,
    delivery: DeliveryId,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.flights.under_way().remove(&self.delivery);
        less(&mut self.flights.endpoints(), &self.webhook);
        less(&mut self.flights.projects(), &self.project);
        self.flights.wake.notify_one();
    }
}

fn less<K: Eq + std::hash::Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

impl Flights {
    pub(super) fn new(wake: Arc<Notify>) -> Self {
        Self { under_way: Mutex::default(), endpoints: Mutex::default(), projects: Mutex::default(), wake }
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<DeliveryId, WebhookId>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn endpoints(&self) -> MutexGuard<'_, HashMap<WebhookId, usize>> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn projects(&self) -> MutexGuard<'_, HashMap<ProjectId, usize>> {
        self.projects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Attempts of a project that are being made.
    pub(super) fn of_project(&self, project: ProjectId) -> usize {
        self.projects().get(&project).copied().unwrap_or(0)
    }

    /// Attempts of an endpoint that are being made.
    pub(super) fn of(&self, webhook: WebhookId) -> usize {
        self.endpoints().get(&webhook).copied().unwrap_or(0)
    }

    /// Deliveries that are being made.
    pub(super) fn deliveries(&self) -> Vec<DeliveryId> {
        self.under_way().keys().copied().collect()
    }

    /// How many more may be made of an endpoint that has failed so often in a row. `planned` are those that are about to be
    /// made: of its project, and of all.
    pub(super) fn free(
        &self,
        (webhook, project): (WebhookId, ProjectId),
        failures: i64,
        planned: (usize, usize),
    ) -> usize {
        let all = self.under_way().len().saturating_add(planned.1);
        let of_project = self.of_project(project).saturating_add(planned.0);
        let cap = if failures >= FAILING { 1 } else { PER_ENDPOINT };
        let shared = SHARED.saturating_sub(all);
        let first = usize::from(of_project == 0 && all < ALL);
        cap.saturating_sub(self.of(webhook)).min(PER_PROJECT.saturating_sub(of_project)).min(shared.max(first))
    }

    /// Takes a place, which must be free.
    pub(super) fn take(self: &Arc<Self>, (webhook, project): (WebhookId, ProjectId), delivery: DeliveryId) -> Place {
        self.under_way().insert(delivery, webhook);
        *self.endpoints().entry(webhook).or_default() += 1;
        *self.projects().entry(project).or_default() += 1;
        Place { flights: Arc::clone(self), webhook, project, delivery }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_slow_endpoints_leave_a_place_for_other_projects() {
        let flights = Arc::new(Flights::new(Arc::default()));
        let names = |webhook: usize, project: usize| {
            (WebhookId::from_bits(webhook as u128), ProjectId::from_bits(project as u128))
        };
        let mut places = Vec::new();
        let mut fill = |webhook: usize, project: usize, failures| {
            let names = names(webhook, project);
            let free = flights.free(names, failures, (0, 0));
            for _ in 0..free {
                let delivery = DeliveryId::from_bits(places.len() as u128);
                places.push(flights.take(names, delivery));
            }
            free
        };
        assert_eq!((fill(0, 0, 0), fill(0, 0, 0), fill(1, 0, 5), fill(1, 0, 5)), (8, 0, 1, 0));
        // However many endpoints a project has, it has no more places.
        let of_one: usize = (2..400).map(|webhook| fill(webhook, 0, 5)).sum();
        assert_eq!(of_one + 9, PER_PROJECT);
        // Five more fill what is shared; then each project gets one, and at last nobody.
        let shared: usize = (1000..1400).map(|webhook| fill(webhook, webhook % 5 + 1, 0)).sum();
        assert_eq!(shared + PER_PROJECT, SHARED);
        assert_eq!((fill(2000, 200, 0), fill(2001, 200, 0), fill(2002, 1, 0)), (1, 0, 0));
        assert_eq!((300..2000).map(|project| fill(3000 + project, project, 0)).sum::<usize>(), ALL - SHARED - 1);
        assert_eq!((flights.deliveries().len(), fill(9000, 9000, 0)), (ALL, 0));
        drop(places);
        assert_eq!((flights.of(names(0, 0).0), flights.of_project(names(0, 0).1)), (0, 0));
        // What is about to be made counts already.
        assert_eq!(flights.free(names(0, 0), 0, (PER_PROJECT - 2, 100)), 2);
        assert_eq!((flights.free(names(0, 0), 0, (0, SHARED)), flights.free(names(0, 0), 0, (1, SHARED))), (1, 0));
    }
}
