//! Several relays on one etcd: one sends, all know what waits, and any goes on.

use tokio::time::timeout;

use super::*;
use crate::store::etcd::tests::fresh;
use crate::store::etcd::{EtcdSettings, EtcdStore};

/// Long enough for a lease to end and be taken, many times over.
const LIMIT: Duration = Duration::from_secs(60);

struct Relay {
    forwarder: Forwarder,
    metrics: Arc<Metrics>,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<()>,
}

fn relay(etcd: &EtcdSettings, heat: &FakeHeat, keystone: &FakeKeystone) -> Relay {
    let metrics = Arc::new(Metrics::new());
    let store = Arc::new(EtcdStore::new(etcd).unwrap());
    let clock = Arc::new(ManualClock::new(Timestamp::now()));
    let forwarder = Forwarder::new(
        &heat.settings(),
        keystone.client(),
        store,
        clock,
        account("AUTH_operator"),
        metrics.forwards.clone(),
    )
    .unwrap();
    let (stop, stopped) = oneshot::channel();
    let running = tokio::spawn(forwarder.clone().run(async move { drop(stopped.await) }));
    Relay { forwarder, metrics, stop: Some(stop), running }
}

impl Relay {
    async fn accept(&self, resource: &str) -> ForwardId {
        let id = self.forwarder.new_id();
        let new = NewForward {
            id,
            account: account("AUTH_q"),
            target: target(resource),
            route: Route::Heat { project: "q".to_owned(), token: secret("t").into() },
            body: Bytes::from_static(b"{}"),
        };
        self.forwarder.accept(new).await.unwrap();
        id
    }

    /// Waits until the signal is delivered, by whomever.
    async fn delivered(&self, id: ForwardId) {
        let seen = async {
            loop {
                let view = self.forwarder.view(&account("AUTH_q"), id).await.unwrap();
                if view.state == ForwardState::Delivered {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(LIMIT, seen).await.expect("a delivery");
    }

    /// Waits until so many signals wait, as far as this relay knows.
    async fn knows(&self, n_pending: i64) {
        let seen = async {
            while self.metrics.forwards.pending.get() != n_pending {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(LIMIT, seen).await.expect("the number of signals that wait");
    }

    async fn end(mut self) {
        drop(self.stop.take());
        self.running.await.unwrap();
    }
}

#[tokio::test]
async fn what_any_relay_takes_one_relay_sends_and_another_goes_on() {
    let (heat, keystone) = (FakeHeat::start().await, FakeKeystone::start().await);
    let etcd = fresh();
    let (one, other) = (relay(&etcd, &heat, &keystone), relay(&etcd, &heat, &keystone));
    for number in 0..4 {
        let (taker, asked) = if number % 2 == 0 { (&one, &other) } else { (&other, &one) };
        let id = taker.accept(&format!("r{number}")).await;
        asked.delivered(id).await;
    }
    one.knows(0).await;
    other.knows(0).await;
    assert_eq!(heat.received().len(), 4);
    // Whichever of the two it was, the other one sends now.
    one.end().await;
    let id = other.accept("r").await;
    other.delivered(id).await;
    assert_eq!(heat.received().len(), 5);
    other.end().await;
}
