//! Attempts that are being made, and how many more may be: so that one endpoint, however slow, leaves room for others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::base::id::{DeliveryId, WebhookId};

/// Attempts at once of one endpoint.
const PER_ENDPOINT: usize = 8;
/// So many attempts in a row must have failed before an endpoint has one place alone.
const FAILING: i64 = 5;
/// Attempts at once of this process.
const ALL: usize = 512;
/// Of these, a quarter is kept for endpoints that have none under way: many slow ones don't fill all of them.
const SHARED: usize = ALL / 4 * 3;

/// See the module.
pub(super) struct Flights {
    under_way: Mutex<HashMap<DeliveryId, WebhookId>>,
    endpoints: Mutex<HashMap<WebhookId, usize>>,
    /// A place has become free.
    pub(super) wake: Arc<Notify>,
}

/// A place, until it is dropped.
pub(crate) struct Place {
    flights: Arc<Flights>,
    webhook: WebhookId,
    delivery: DeliveryId,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.flights.under_way().remove(&self.delivery);
        let mut endpoints = self.flights.endpoints();
        if let Some(count) = endpoints.get_mut(&self.webhook) {
            *count -= 1;
            if *count == 0 {
                endpoints.remove(&self.webhook);
            }
        }
        drop(endpoints);
        self.flights.wake.notify_one();
    }
}

impl Flights {
    pub(super) fn new(wake: Arc<Notify>) -> Self {
        Self { under_way: Mutex::default(), endpoints: Mutex::default(), wake }
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<DeliveryId, WebhookId>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn endpoints(&self) -> MutexGuard<'_, HashMap<WebhookId, usize>> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Attempts of an endpoint that are being made.
    pub(super) fn of(&self, webhook: WebhookId) -> usize {
        self.endpoints().get(&webhook).copied().unwrap_or(0)
    }

    /// Deliveries that are being made.
    pub(super) fn deliveries(&self) -> Vec<DeliveryId> {
        self.under_way().keys().copied().collect()
    }

    /// How many more may be made of an endpoint that has failed so often in a row.
    pub(super) fn free(&self, webhook: WebhookId, failures: i64) -> usize {
        let (all, own) = (self.under_way().len(), self.of(webhook));
        let cap = if failures >= FAILING { 1 } else { PER_ENDPOINT };
        let shared = SHARED.saturating_sub(all);
        let first = usize::from(own == 0 && all < ALL);
        cap.saturating_sub(own).min(shared.max(first))
    }

    /// Takes a place, which must be free.
    pub(super) fn take(self: &Arc<Self>, webhook: WebhookId, delivery: DeliveryId) -> Place {
        self.under_way().insert(delivery, webhook);
        *self.endpoints().entry(webhook).or_default() += 1;
        Place { flights: Arc::clone(self), webhook, delivery }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_slow_endpoints_leave_a_place_for_each_other_one() {
        let flights = Arc::new(Flights::new(Arc::default()));
        let webhook = |number: usize| WebhookId::from_bits(number as u128);
        let mut places = Vec::new();
        let mut fill = |number: usize, failures| {
            let free = flights.free(webhook(number), failures);
            for _ in 0..free {
                let delivery = DeliveryId::from_bits(places.len() as u128);
                places.push(flights.take(webhook(number), delivery));
            }
            free
        };
        assert_eq!((fill(0, 0), fill(0, 0), fill(1, 5), fill(1, 5)), (8, 0, 1, 0));
        let slow: usize = (2..100).map(|number| fill(number, 0)).sum();
        assert!(slow + 9 > SHARED && slow + 9 < ALL, "{slow}");
        assert_eq!((fill(200, 0), fill(200, 0)), (1, 0));
        assert!((300..2000).map(|number| fill(number, 0)).sum::<usize>() > 0);
        assert_eq!((flights.deliveries().len(), fill(3000, 0)), (ALL, 0));
        drop(places);
        assert_eq!((flights.of(webhook(0)), flights.free(webhook(0), 0)), (0, 8));
    }
}
