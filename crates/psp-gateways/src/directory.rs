//! Which gateways are asked: the built-in one and those of the store, with their routes and breakers, answered from memory.
//! The rules are in `docs/adr/0011-routing-and-breakers.md`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use psp_domain::ports::{Candidate, Gateway, GatewayDirectory, GatewayStore, StoreError};
use psp_domain::usecases::Sources;
use psp_domain::{GatewayHealth, GatewayName, GatewayProtocol, GatewayRecord, Route, RoutingTable, Transaction};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::breaker::{BreakerGateway, BreakerOptions};

/// How often the store is read and health reported.
const REFRESH: Duration = Duration::from_secs(5);
/// The shortest time between two reports: a breaker that opens and closes all the time must not keep the store busy.
const REPORT_GAP: Duration = Duration::from_millis(250);

/// The ways of a transaction that are found without growing.
const USUAL_WAYS: usize = 16;

/// Makes the adapter of a gateway, or tells why it cannot. Its calls must end in time by themselves.
pub type MakeGateway = Box<dyn Fn(&GatewayRecord) -> Result<Arc<dyn Gateway>, String> + Send + Sync>;

/// The gateways there are.
///
/// A snapshot of the store's table answers; it is replaced as a whole, and kept when the store fails. An adapter lives as
/// long as its record keeps protocol and address, so connections and breakers outlast a refresh.
///
/// Once there is any gateway that is no sandbox, also a disabled one, sandboxes are asked for nothing new: whoever may name a
/// gateway could pay there for free. They are still found, for what they were asked before.
pub struct Directory {
    store: Arc<dyn GatewayStore>,
    default: GatewayRecord,
    make: MakeGateway,
    breaker: BreakerOptions,
    sources: Sources,
    /// Names this process in reports.
    instance: String,
    known: Mutex<HashMap<GatewayName, Known>>,
    snapshot: RwLock<Arc<Snapshot>>,
    /// Told when a breaker changes its state.
    changed: Arc<Notify>,
}

/// Why a directory cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The built-in gateway cannot be made.
    #[error("the gateway {0}: {1}")]
    Default(GatewayName, String),
}

/// A gateway of the store, and its adapter or what was told of why there is none.
struct Known {
    protocol: GatewayProtocol,
    url: String,
    made: Result<Arc<BreakerGateway>, String>,
}

struct Snapshot {
    default: Arc<BreakerGateway>,
    /// Every gateway that has an adapter, the built-in one among them.
    gateways: HashMap<GatewayName, Entry>,
    /// Every route, in the order of attempts.
    ways: Vec<Way>,
    no_declines: Arc<[String]>,
}

struct Entry {
    gateway: Arc<BreakerGateway>,
    /// Whether it is asked for anything new.
    enabled: bool,
}

/// A route, ready to be taken.
struct Way {
    route: Route,
    /// The same number for the same gateway: quicker to compare than names.
    number: usize,
    /// `None` where the gateway is disabled or has no adapter.
    gateway: Option<Arc<BreakerGateway>>,
    retry_declines: Arc<[String]>,
}

impl Directory {
    /// The directory over a store, which is read once. `default` is the built-in gateway; a gateway of that name in the
    /// store is ignored.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(
        store: Arc<dyn GatewayStore>,
        default: GatewayRecord,
        make: MakeGateway,
        breaker: BreakerOptions,
        sources: Sources,
    ) -> Result<Self, OpenError> {
        let changed = Arc::new(Notify::new());
        let gateway = make(&default).map_err(|fault| OpenError::Default(default.name.clone(), fault))?;
        let gateway = Arc::new(BreakerGateway::new(gateway, options_of(&default, breaker), Arc::clone(&changed)));
        let snapshot = Snapshot::of(&RoutingTable::default(), &HashMap::new(), &default, gateway);
        let directory = Self {
            store,
            default,
            make,
            breaker,
            instance: sources.ids.next_id().to_string(),
            sources,
            known: Mutex::default(),
            snapshot: RwLock::new(Arc::new(snapshot)),
            changed,
        };
        directory.refresh().await?;
        directory.warn_of_sandbox();
        Ok(directory)
    }

    /// Beside real gateways a sandbox is no default: what no route fits must not wait and fail unnoticed.
    fn warn_of_sandbox(&self) {
        let gateway = &self.default.name;
        if !self.is_enabled(gateway) {
            let gateway = gateway.as_str();
            tracing::warn!(gateway, "transactions that no route fits will fail: the default is a sandbox");
        }
    }

    /// Reads the store's table, and answers by it from now on.
    ///
    /// # Errors
    /// When the store cannot be read; the old snapshot stays then.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        let table = self.store.routing().await?;
        let mut known = self.known();
        let of_store = || table.gateways().iter().filter(|record| record.name != self.default.name);
        known.retain(|name, _| of_store().any(|record| record.name == *name));
        for record in of_store() {
            let before = known.remove(&record.name);
            known.insert(record.name.clone(), self.keep_or_make(record, before));
        }
        let default = Arc::clone(&self.snapshot().default);
        let next = Arc::new(Snapshot::of(&table, &known, &self.default, default));
        *self.snapshot.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    /// Keeps an adapter while its record is unchanged. One that cannot be made is tried again each time, and told once.
    fn keep_or_make(&self, record: &GatewayRecord, before: Option<Known>) -> Known {
        let before = before.filter(|known| known.protocol == record.protocol && known.url == record.url);
        if let Some(known) = before.as_ref().filter(|known| known.made.is_ok()) {
            return Known { made: known.made.clone(), ..Known::of(record) };
        }
        let made = (self.make)(record).map(|gateway| {
            let options = options_of(record, self.breaker);
            Arc::new(BreakerGateway::new(gateway, options, Arc::clone(&self.changed)))
        });
        if let Err(fault) = &made
            && before.is_none_or(|known| known.made.err().as_ref() != Some(fault))
        {
            tracing::warn!(gateway = record.name.as_str(), fault, "the gateway is left out");
        }
        Known { made, ..Known::of(record) }
    }

    /// Tells the store how this process finds every gateway.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn report(&self) -> Result<(), StoreError> {
        let (snapshot, reported_at) = (self.snapshot(), self.sources.clock.now());
        let health = snapshot.gateways.iter().map(|(name, entry)| GatewayHealth {
            gateway: name.clone(),
            instance: self.instance.clone(),
            breaker: entry.gateway.measure(),
            failures: entry.gateway.failures(),
            reported_at,
        });
        let health: Vec<_> = health.collect();
        self.store.report(&health).await
    }

    /// Refreshes every few seconds, and reports then and whenever a breaker changes its state, until it is stopped.
    pub async fn run(&self, stop: CancellationToken) {
        stop.run_until_cancelled(self.keep_fresh()).await;
    }

    async fn keep_fresh(&self) {
        let mut ticks = tokio::time::interval(REFRESH);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    if let Err(error) = self.refresh().await {
                        tracing::warn!(error = &error as &dyn std::error::Error, "the old routes stay in use");
                    }
                }
                () = self.changed.notified() => {}
            }
            if let Err(error) = self.report().await {
                tracing::warn!(error = &error as &dyn std::error::Error, "the health of gateways was not reported");
            }
            tokio::time::sleep(REPORT_GAP).await;
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<GatewayName, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn is_sandbox(record: &GatewayRecord) -> bool {
    record.protocol == GatewayProtocol::Sandbox
}

/// The sandbox fails where a test card asks for it: no reason to leave it alone.
fn options_of(record: &GatewayRecord, options: BreakerOptions) -> BreakerOptions {
    if is_sandbox(record) { options.never() } else { options }
}

impl Known {
    fn of(record: &GatewayRecord) -> Self {
        Self { protocol: record.protocol, url: record.url.clone(), made: Err(String::new()) }
    }
}

impl Snapshot {
    fn of(
        table: &RoutingTable,
        known: &HashMap<GatewayName, Known>,
        built_in: &GatewayRecord,
        default: Arc<BreakerGateway>,
    ) -> Self {
        let is_for_real = table.gateways().iter().chain([built_in]).any(|record| !is_sandbox(record));
        let entry = |record: &GatewayRecord, gateway: &Arc<BreakerGateway>| {
            let enabled = record.enabled && !(is_for_real && is_sandbox(record));
            (record.name.clone(), Entry { gateway: Arc::clone(gateway), enabled })
        };
        let mut gateways = HashMap::from([entry(built_in, &default)]);
        gateways.extend(table.gateways().iter().filter_map(|record| {
            let Known { made: Ok(gateway), .. } = known.get(&record.name)? else { return None };
            Some(entry(record, gateway))
        }));
        let mut numbers: HashMap<GatewayName, usize> = HashMap::new();
        let ways = table.routes().iter().map(|route| {
            let next = numbers.len();
            Way {
                number: *numbers.entry(route.gateway.clone()).or_insert(next),
                gateway: enabled(&gateways, &route.gateway).cloned(),
                retry_declines: route.retry_declines.iter().cloned().collect(),
                route: route.clone(),
            }
        });
        Self { ways: ways.collect(), default, gateways, no_declines: Arc::default() }
    }

    /// The ways of a transaction, as [`RoutingTable::routes_of`] has them.
    fn ways_of<'s>(&'s self, transaction: &Transaction) -> Vec<&'s Way> {
        let mut found: Vec<&Way> = Vec::with_capacity(USUAL_WAYS);
        for way in self.ways.iter().filter(|way| way.route.fits(transaction)) {
            if found.iter().all(|other| other.number != way.number) {
                found.push(way);
            }
        }
        found
    }

    fn alone(&self, name: &GatewayName) -> Vec<Candidate> {
        let ready = enabled(&self.gateways, name).filter(|gateway| gateway.is_ready(Instant::now()));
        let candidate = ready.map(|gateway| Candidate {
            gateway: Arc::clone(gateway) as _,
            retry_declines: Arc::clone(&self.no_declines),
        });
        candidate.into_iter().collect()
    }
}

fn enabled<'g>(gateways: &'g HashMap<GatewayName, Entry>, name: &GatewayName) -> Option<&'g Arc<BreakerGateway>> {
    gateways.get(name).filter(|entry| entry.enabled).map(|entry| &entry.gateway)
}

impl GatewayDirectory for Directory {
    fn candidates(&self, transaction: &Transaction) -> Vec<Candidate> {
        let snapshot = self.snapshot();
        if let Some(name) = &transaction.named.gateway {
            return snapshot.alone(name);
        }
        let ways = snapshot.ways_of(transaction);
        if ways.is_empty() {
            return snapshot.alone(&self.default.name);
        }
        let (now, mut candidates) = (Instant::now(), Vec::with_capacity(ways.len()));
        candidates.extend(ways.into_iter().filter_map(|way| {
            let gateway = way.gateway.as_ref().filter(|gateway| gateway.is_ready(now))?;
            Some(Candidate { gateway: Arc::clone(gateway) as _, retry_declines: Arc::clone(&way.retry_declines) })
        }));
        candidates
    }

    fn find(&self, name: &GatewayName) -> Option<Arc<dyn Gateway>> {
        self.snapshot().gateways.get(name).map(|entry| Arc::clone(&entry.gateway) as _)
    }

    fn is_enabled(&self, name: &GatewayName) -> bool {
        enabled(&self.snapshot().gateways, name).is_some()
    }
}
