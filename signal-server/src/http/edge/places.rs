//! How many requests there may be at once: of those that are being answered, of those that wait for a signal, and
//! of those whose bodies are on their way.
//!
//! A request holds no place among those that are being answered while its body arrives. Else whoever may send one
//! could take all places, with a connection and a byte for each, and everybody else were refused, Heat's polls
//! first of all. What a body on its way costs is its connection, of which there are only so many, and what has
//! arrived of it, which counts against [`MAX_ARRIVING_BYTES`] if it is more than most signals are.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use crate::error::ApiError;

/// When to come again after the relay refused a request because it was busy.
pub(crate) const BUSY_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Most bytes of bodies that are on their way: 256 of the largest signals at once.
pub(crate) const MAX_ARRIVING_BYTES: usize = 256 << 20;

/// Up to here a body on its way does not count, in bytes: its connection has read as much into its buffer. So
/// nearly every signal still comes through when somebody has used up what the large ones may hold.
pub(crate) const MAX_SMALL_BODY_BYTES: usize = 8 << 10;

/// The places of one kind of request.
#[derive(Debug)]
pub(crate) struct Places {
    limit: usize,
    n_taken: AtomicUsize,
    gauge: Gauge,
    shed: Counter,
}

/// One of them; free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<Places>);

/// What bodies on their way hold.
#[derive(Debug)]
pub(crate) struct Arrivals {
    n_bytes: AtomicUsize,
    gauge: Gauge,
    shed: Counter,
}

/// The place of a request that has a body.
#[derive(Debug)]
pub(crate) struct ReceivingPlace {
    places: Arc<Places>,
    arrivals: Arc<Arrivals>,
    place: Mutex<Option<Place>>,
}

/// A body on its way.
#[derive(Debug)]
pub(crate) struct Arrival {
    arrivals: Arc<Arrivals>,
    n_counted: usize,
}

impl Places {
    pub(crate) fn new(limit: usize, gauge: Gauge, shed: Counter) -> Arc<Places> {
        Arc::new(Places { limit, n_taken: AtomicUsize::new(0), gauge, shed })
    }

    /// A place, or the refusal: at once instead of late.
    pub(crate) fn take(self: &Arc<Places>) -> Result<Place, ApiError> {
        self.gauge.inc();
        let n_before = self.n_taken.fetch_add(1, Ordering::Relaxed);
        let place = Place(self.clone());
        if n_before < self.limit {
            return Ok(place);
        }
        self.shed.inc();
        Err(overloaded())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.n_taken.fetch_sub(1, Ordering::Relaxed);
        self.0.gauge.dec();
    }
}

impl Arrivals {
    pub(crate) fn new(gauge: Gauge, shed: Counter) -> Arc<Arrivals> {
        Arc::new(Arrivals { n_bytes: AtomicUsize::new(0), gauge, shed })
    }
}

impl ReceivingPlace {
    pub(crate) fn new(place: Place, arrivals: Arc<Arrivals>) -> Arc<ReceivingPlace> {
        let places = place.0.clone();
        Arc::new(ReceivingPlace { places, arrivals, place: Mutex::new(Some(place)) })
    }

    /// Gives the place back for as long as the body is on its way.
    pub(crate) fn give_back(&self) -> Arrival {
        self.set(None);
        self.arrivals.gauge.inc();
        Arrival { arrivals: self.arrivals.clone(), n_counted: 0 }
    }

    /// Takes a place for the rest of the request.
    pub(crate) fn take_again(&self) -> Result<(), ApiError> {
        self.set(Some(self.places.take()?));
        Ok(())
    }

    fn set(&self, place: Option<Place>) {
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = place;
    }
}

impl Arrival {
    /// Notes how much of the body is in memory, and refuses what is too much for all together.
    pub(crate) fn hold(&mut self, n_bytes: usize) -> Result<(), ApiError> {
        let n_counted = if n_bytes > MAX_SMALL_BODY_BYTES { n_bytes } else { 0 };
        let all = &self.arrivals.n_bytes;
        let n_before = all.fetch_add(n_counted, Ordering::Relaxed);
        all.fetch_sub(self.n_counted, Ordering::Relaxed);
        let n_others = n_before.saturating_sub(self.n_counted);
        self.n_counted = n_counted;
        if n_counted == 0 || n_others + n_counted <= MAX_ARRIVING_BYTES {
            return Ok(());
        }
        self.arrivals.shed.inc();
        Err(overloaded())
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        self.arrivals.n_bytes.fetch_sub(self.n_counted, Ordering::Relaxed);
        self.arrivals.gauge.dec();
    }
}

fn overloaded() -> ApiError {
    ApiError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "overloaded",
        "the relay is answering as many requests as it can",
    )
    .retry_after(BUSY_RETRY_AFTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_was_given_back_has_to_be_free_to_be_taken_again() {
        let places = Places::new(1, Gauge::default(), Counter::default());
        let arrivals = Arrivals::new(Gauge::default(), Counter::default());
        let receiving = ReceivingPlace::new(places.take().expect("a place"), arrivals);
        assert!(places.take().is_err());
        let arrival = receiving.give_back();
        let other = places.take().expect("a place");
        drop(arrival);
        assert!(receiving.take_again().is_err());
        drop(other);
        assert!(receiving.take_again().is_ok());
        assert!(places.take().is_err());
        drop(receiving);
        assert_eq!((places.n_taken.load(Ordering::Relaxed), places.gauge.get()), (0, 0));
        assert_eq!(places.shed.get(), 3);
    }

    #[test]
    fn large_bodies_on_their_way_have_a_limit_that_small_ones_do_not_have() {
        let places = Places::new(1, Gauge::default(), Counter::default());
        let arrivals = Arrivals::new(Gauge::default(), Counter::default());
        let receiving = ReceivingPlace::new(places.take().expect("a place"), arrivals.clone());
        let (mut large, mut small) = (receiving.give_back(), receiving.give_back());
        assert_eq!(arrivals.gauge.get(), 2);
        for (n_bytes, expect) in [(1, true), (MAX_ARRIVING_BYTES, true), (0, true)] {
            assert_eq!(large.hold(n_bytes).is_ok(), expect, "{n_bytes}");
        }
        assert!(large.hold(MAX_ARRIVING_BYTES).is_ok());
        assert!(small.hold(MAX_SMALL_BODY_BYTES).is_ok());
        assert!(small.hold(MAX_SMALL_BODY_BYTES + 1).is_err());
        drop(large);
        assert!(small.hold(MAX_SMALL_BODY_BYTES + 1).is_ok());
        drop(small);
        assert_eq!((arrivals.n_bytes.load(Ordering::Relaxed), arrivals.gauge.get()), (0, 0));
    }
}
