//! The directory over a store in memory, on a clock that stands still until a test moves it.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use proptest::prelude::*;
use psp_domain::ports::{AuthorizationRequest, Clock, GatewayDirectory, GatewayError, GatewayStore, StoreError};
use psp_domain::usecases::Sources;
use psp_domain::{
    AttemptReference, BreakerState, Country, Currency, GatewayHealth, GatewayName, GatewayProtocol, GatewayRecord,
    Money, Named, NewTransaction, PaymentMethod, Route, RoutingTable, Transaction, TransactionKind,
};
use psp_gateways::{BreakerOptions, Directory, MakeGateway, OpenError};
use psp_testkit::clock::FixedClock;
use psp_testkit::fakes::{Memory, ScriptedGateway};
use psp_testkit::fixtures;
use tokio_util::sync::CancellationToken;

const OPEN: Duration = Duration::from_secs(30);

/// The memory's table of gateways, unless a test says that it fails; counts the reports.
struct GatewayTable {
    memory: Memory,
    fails: AtomicBool,
    reports: AtomicUsize,
}

impl GatewayTable {
    fn check(&self) -> Result<(), StoreError> {
        if self.fails.load(Ordering::SeqCst) { Err(StoreError::Unavailable("asked to fail".into())) } else { Ok(()) }
    }
}

#[async_trait]
impl GatewayStore for GatewayTable {
    async fn routing(&self) -> Result<RoutingTable, StoreError> {
        self.check()?;
        self.memory.routing().await
    }

    async fn put_gateway(&self, gateway: &GatewayRecord) -> Result<bool, StoreError> {
        self.memory.put_gateway(gateway).await
    }

    async fn enable(&self, name: &GatewayName, enabled: bool, now: DateTime<Utc>) -> Result<bool, StoreError> {
        self.memory.enable(name, enabled, now).await
    }

    async fn put_route(&self, route: &Route) -> Result<(), StoreError> {
        self.memory.put_route(route).await
    }

    async fn remove_route(&self, route: &Route) -> Result<bool, StoreError> {
        self.memory.remove_route(route).await
    }

    async fn report(&self, health: &[GatewayHealth]) -> Result<(), StoreError> {
        self.check()?;
        self.reports.fetch_add(1, Ordering::SeqCst);
        self.memory.report(health).await
    }

    async fn health(&self, since: DateTime<Utc>) -> Result<Vec<GatewayHealth>, StoreError> {
        self.memory.health(since).await
    }
}

/// The gateways that were made, by name and address. Those whose address is `broken` cannot be.
type Made = Arc<Mutex<HashMap<(String, String), Vec<Arc<ScriptedGateway>>>>>;

struct World {
    clock: Arc<FixedClock>,
    table: Arc<GatewayTable>,
    made: Made,
    sources: Sources,
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(FixedClock::default());
        let memory = Memory::new(clock.clone());
        let table = Arc::new(GatewayTable { memory, fails: AtomicBool::new(false), reports: AtomicUsize::new(0) });
        let sources = Sources { clock: clock.clone(), ..Sources::default() };
        Self { clock, table, made: Made::default(), sources }
    }

    /// A world with those gateways, each at its own address.
    async fn with(names: &[&str]) -> Self {
        let world = Self::new();
        for name in names {
            world.put(name, &format!("https://{name}.example")).await;
        }
        world
    }

    fn record(&self, name: &str, url: &str) -> GatewayRecord {
        let now = self.clock.now();
        let (name, protocol, url) = (name.parse().unwrap(), GatewayProtocol::Json, url.to_owned());
        GatewayRecord { name, protocol, url, enabled: true, created_at: now, updated_at: now }
    }

    fn sandbox(&self, name: &str) -> GatewayRecord {
        GatewayRecord { protocol: GatewayProtocol::Sandbox, ..self.record(name, "") }
    }

    async fn put(&self, name: &str, url: &str) {
        self.table.put_gateway(&self.record(name, url)).await.unwrap();
    }

    async fn route(&self, gateway: &str, priority: u16, country: Option<&str>) {
        self.table.put_route(&route(gateway, priority, country)).await.unwrap();
    }

    async fn enable(&self, name: &str, enabled: bool) {
        assert!(self.table.enable(&name.parse().unwrap(), enabled, self.clock.now()).await.unwrap());
    }

    /// A directory whose breakers open after two failures.
    async fn open(&self) -> Directory {
        self.open_with(self.record("main", "https://main.example")).await.unwrap()
    }

    async fn open_with(&self, default: GatewayRecord) -> Result<Directory, OpenError> {
        let made = Arc::clone(&self.made);
        let factory: MakeGateway = Box::new(move |record| {
            if record.url.contains("broken") {
                return Err("it has no secret".into());
            }
            let gateway = Arc::new(ScriptedGateway::named(record.name.as_str()));
            let key = (record.name.to_string(), record.url.clone());
            made.lock().unwrap().entry(key).or_default().push(gateway.clone());
            Ok(gateway)
        });
        let options = BreakerOptions { failures: 2, open: OPEN };
        Directory::open(self.table.clone(), default, factory, options, self.sources.clone()).await
    }

    /// The gateway of that name, as it was made last.
    fn made(&self, name: &str) -> Arc<ScriptedGateway> {
        let made = self.made.lock().unwrap();
        let found = made.iter().find(|((known, _), _)| known == name);
        found.unwrap().1.last().unwrap().clone()
    }

    /// Lets the gateway of that name fail until its breaker opens.
    async fn break_down(&self, directory: &Directory, name: &str) {
        let gateway = directory.find(&name.parse().unwrap()).unwrap();
        for _ in 0..2 {
            self.made(name).answer(Duration::ZERO, Err(GatewayError::TimedOut));
            gateway.authorize(&request()).await.unwrap_err();
        }
    }

    async fn health(&self) -> Vec<GatewayHealth> {
        let mut health = self.table.health(DateTime::UNIX_EPOCH).await.unwrap();
        health.sort_by(|a, b| a.gateway.cmp(&b.gateway));
        health
    }
}

fn route(gateway: &str, priority: u16, country: Option<&str>) -> Route {
    Route {
        gateway: gateway.parse().unwrap(),
        priority,
        country: country.map(|code| code.parse().unwrap()),
        kind: None,
        method: None,
        currency: None,
        retry_declines: Vec::new(),
    }
}

fn transaction(named: Named) -> Transaction {
    let new = NewTransaction { named, ..fixtures::new_transaction() };
    fixtures::create(&new, FixedClock::default().now()).0
}

fn of_country(code: &str) -> Transaction {
    transaction(Named { country: Some(code.parse().unwrap()), ..Named::default() })
}

fn naming(gateway: &str) -> Transaction {
    transaction(Named { gateway: Some(gateway.parse().unwrap()), ..Named::default() })
}

fn request() -> AuthorizationRequest {
    let transaction = transaction(Named::default());
    AuthorizationRequest {
        reference: AttemptReference(transaction.id.0),
        transaction_id: transaction.id,
        kind: transaction.kind,
        amount: transaction.amount,
        payment_method: PaymentMethod::Pix,
        installments: transaction.installments,
        country: None,
        card: None,
    }
}

fn names(directory: &Directory, transaction: &Transaction) -> Vec<String> {
    directory.candidates(transaction).iter().map(|candidate| candidate.gateway.name().to_string()).collect()
}

#[tokio::test]
async fn the_routes_of_a_country_are_taken_by_priority_and_others_go_to_the_default() {
    let world = World::with(&["north", "south"]).await;
    world.route("south", 20, Some("BR")).await;
    world.route("north", 10, Some("BR")).await;
    world.route("north", 5, Some("US")).await;
    let directory = world.open().await;
    assert_eq!(names(&directory, &of_country("BR")), ["north", "south"]);
    assert_eq!(names(&directory, &of_country("US")), ["north"]);
    assert_eq!(names(&directory, &of_country("DE")), ["main"]);
    assert_eq!(names(&directory, &transaction(Named::default())), ["main"]);
}

#[tokio::test]
async fn routes_may_lead_to_the_default_as_well() {
    let world = World::with(&["north"]).await;
    world.route("north", 1, None).await;
    world.route("main", 2, None).await;
    let directory = world.open().await;
    assert_eq!(names(&directory, &of_country("BR")), ["north", "main"]);
}

#[tokio::test]
async fn a_named_gateway_is_asked_alone_and_none_in_its_place() {
    let world = World::with(&["north", "south"]).await;
    world.route("north", 1, None).await;
    world.enable("south", false).await;
    let directory = world.open().await;
    assert_eq!(names(&directory, &naming("north")), ["north"]);
    assert_eq!(names(&directory, &naming("main")), ["main"]);
    for absent in ["south", "nowhere"] {
        assert!(names(&directory, &naming(absent)).is_empty(), "{absent}");
        assert!(!directory.is_enabled(&absent.parse().unwrap()), "{absent}");
    }
    assert!(directory.is_enabled(&"north".parse().unwrap()) && directory.is_enabled(&"main".parse().unwrap()));
}

#[tokio::test]
async fn disabled_gateways_are_left_out_and_still_found() {
    let world = World::with(&["north", "south"]).await;
    world.route("north", 1, Some("BR")).await;
    world.route("south", 2, Some("BR")).await;
    let directory = world.open().await;
    for (disabled, expected) in [("north", &["south"][..]), ("south", &[])] {
        world.enable(disabled, false).await;
        directory.refresh().await.unwrap();
        assert_eq!(names(&directory, &of_country("BR")), expected, "{disabled}");
        assert!(directory.find(&disabled.parse().unwrap()).is_some(), "{disabled}");
    }
    world.enable("north", true).await;
    directory.refresh().await.unwrap();
    assert_eq!(names(&directory, &of_country("BR")), ["north"]);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_whose_breaker_is_open_is_left_out_until_it_is_time_to_try() {
    let world = World::with(&["north", "south"]).await;
    world.route("north", 1, Some("BR")).await;
    world.route("south", 2, Some("BR")).await;
    let directory = world.open().await;
    world.break_down(&directory, "north").await;
    assert_eq!(names(&directory, &of_country("BR")), ["south"]);
    assert!(names(&directory, &naming("north")).is_empty());
    assert!(directory.is_enabled(&"north".parse().unwrap()));
    tokio::time::advance(OPEN).await;
    assert_eq!(names(&directory, &of_country("BR")), ["north", "south"]);

    world.made("north").answer(Duration::from_secs(1), Err(GatewayError::TimedOut));
    let probe = directory.find(&"north".parse().unwrap()).unwrap();
    let probe = tokio::spawn(async move { probe.authorize(&request()).await });
    tokio::task::yield_now().await;
    assert_eq!(names(&directory, &of_country("BR")), ["south"], "while the probe is under way");
    probe.await.unwrap().unwrap_err();
    assert_eq!(names(&directory, &of_country("BR")), ["south"]);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_in_place_of_routes_that_are_all_closed() {
    let world = World::with(&["north"]).await;
    world.route("north", 1, Some("BR")).await;
    let directory = world.open().await;
    world.break_down(&directory, "north").await;
    assert!(names(&directory, &of_country("BR")).is_empty());
    world.break_down(&directory, "main").await;
    assert!(names(&directory, &of_country("DE")).is_empty());
}

#[tokio::test(start_paused = true)]
async fn adapters_and_breakers_outlast_a_refresh_until_the_address_changes() {
    let world = World::with(&["north"]).await;
    world.route("north", 1, None).await;
    let directory = world.open().await;
    world.break_down(&directory, "north").await;
    world.enable("north", false).await;
    world.enable("north", true).await;
    directory.refresh().await.unwrap();
    assert!(names(&directory, &of_country("BR")).is_empty(), "the breaker is still open");
    assert_eq!(world.made.lock().unwrap().values().map(Vec::len).sum::<usize>(), 2);
    world.put("north", "https://elsewhere.example").await;
    directory.refresh().await.unwrap();
    assert_eq!(names(&directory, &of_country("BR")), ["north"]);
    assert_eq!(world.made.lock().unwrap().values().map(Vec::len).sum::<usize>(), 3);
}

#[tokio::test]
async fn a_gateway_that_cannot_be_made_is_left_out_and_the_others_work() {
    let world = World::with(&["south"]).await;
    world.put("north", "https://broken.example").await;
    world.route("north", 1, None).await;
    world.route("south", 2, None).await;
    let directory = world.open().await;
    assert_eq!(names(&directory, &of_country("BR")), ["south"]);
    assert!(directory.find(&"north".parse().unwrap()).is_none() && !directory.is_enabled(&"north".parse().unwrap()));
    world.put("north", "https://north.example").await;
    directory.refresh().await.unwrap();
    assert_eq!(names(&directory, &of_country("BR")), ["north", "south"]);
    let default = world.record("main", "https://broken.example");
    assert!(matches!(world.open_with(default).await, Err(OpenError::Default(..))));
}

#[tokio::test]
async fn the_built_in_gateway_is_not_replaced_by_one_of_its_name() {
    let world = World::with(&["main"]).await;
    world.enable("main", false).await;
    world.put("main", "https://another.example").await;
    let directory = world.open().await;
    assert_eq!(names(&directory, &of_country("BR")), ["main"]);
    assert_eq!(world.made.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn the_reasons_to_go_on_come_with_the_route() {
    let world = World::with(&["north"]).await;
    let retry_declines = vec!["do_not_honor".to_owned()];
    let lenient = Route { retry_declines: retry_declines.clone(), ..route("north", 1, Some("BR")) };
    world.table.put_route(&lenient).await.unwrap();
    let directory = world.open().await;
    let declines = |transaction: &Transaction| directory.candidates(transaction)[0].retry_declines.to_vec();
    assert_eq!(declines(&of_country("BR")), retry_declines);
    assert!(declines(&of_country("DE")).is_empty() && declines(&naming("north")).is_empty());
}

#[tokio::test]
async fn a_store_that_fails_leaves_the_old_routes_in_use() {
    let world = World::with(&["north"]).await;
    world.route("north", 1, None).await;
    let directory = world.open().await;
    world.table.fails.store(true, Ordering::SeqCst);
    directory.refresh().await.unwrap_err();
    assert_eq!(names(&directory, &of_country("BR")), ["north"]);
    let default = world.record("main", "https://main.example");
    assert!(matches!(world.open_with(default).await, Err(OpenError::Store(_))));
}

#[tokio::test(start_paused = true)]
async fn every_process_reports_every_breaker_under_a_name_of_its_own() {
    let world = World::with(&["north"]).await;
    let (one, other) = (world.open().await, world.open().await);
    world.break_down(&other, "north").await;
    one.report().await.unwrap();
    other.report().await.unwrap();
    let health = world.health().await;
    let reported: Vec<_> = health.iter().map(|h| (h.gateway.as_str(), h.breaker, h.failures)).collect();
    assert_eq!(
        reported,
        [
            ("main", BreakerState::Closed, 0),
            ("main", BreakerState::Closed, 0),
            ("north", BreakerState::Closed, 0),
            ("north", BreakerState::Open, 2),
        ]
    );
    assert!(health.iter().all(|h| h.reported_at == world.clock.now()));
    assert_ne!(health[2].instance, health[3].instance);
}

#[tokio::test(start_paused = true)]
async fn the_loop_refreshes_reports_and_reports_at_once_when_a_breaker_changes() {
    let world = World::new();
    let directory = Arc::new(world.open().await);
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let (directory, stop) = (Arc::clone(&directory), stop.clone());
        async move { directory.run(stop).await }
    });
    // The clock moves by itself while nobody has anything else to do.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.table.reports.load(Ordering::SeqCst), 1);
    world.break_down(&directory, "main").await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(world.table.reports.load(Ordering::SeqCst), 2);
    assert_eq!(world.health().await[0].breaker, BreakerState::Open);

    world.put("north", "https://north.example").await;
    world.table.fails.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!directory.is_enabled(&"north".parse().unwrap()));
    world.table.fails.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(directory.is_enabled(&"north".parse().unwrap()));
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn errors_that_test_cards_ask_for_open_no_breaker_of_a_sandbox() {
    let world = World::new();
    let directory = world.open_with(world.sandbox("sandbox")).await.unwrap();
    for _ in 0..10 {
        world.break_down(&directory, "sandbox").await;
    }
    assert_eq!(names(&directory, &of_country("BR")), ["sandbox"]);
}

/// Everything that asks for a sandbox where nobody must pay for free.
fn assert_closed(directory: &Directory, sandbox: &str) {
    assert!(names(directory, &naming(sandbox)).is_empty(), "{sandbox}");
    assert!(!directory.is_enabled(&sandbox.parse().unwrap()), "{sandbox}");
    assert!(directory.find(&sandbox.parse().unwrap()).is_some(), "what it was asked before ends there: {sandbox}");
}

#[tokio::test]
async fn among_sandboxes_alone_all_are_asked() {
    let world = World::new();
    world.table.put_gateway(&world.sandbox("playground")).await.unwrap();
    world.route("playground", 1, Some("BR")).await;
    let directory = world.open_with(world.sandbox("sandbox")).await.unwrap();
    assert_eq!(names(&directory, &of_country("BR")), ["playground"]);
    assert_eq!(names(&directory, &of_country("DE")), ["sandbox"]);
    for name in ["sandbox", "playground"] {
        assert_eq!(names(&directory, &naming(name)), [name]);
        assert!(directory.is_enabled(&name.parse().unwrap()));
    }
}

#[tokio::test]
async fn nobody_pays_at_a_sandbox_once_there_is_a_real_gateway_also_a_disabled_one() {
    for (protocol, enabled) in
        [(GatewayProtocol::Json, true), (GatewayProtocol::Xml, true), (GatewayProtocol::Json, false)]
    {
        let world = World::new();
        world.table.put_gateway(&world.sandbox("playground")).await.unwrap();
        for (name, priority) in [("playground", 1), ("sandbox", 2), ("north", 3)] {
            world.route(name, priority, Some("BR")).await;
        }
        let directory = world.open_with(world.sandbox("sandbox")).await.unwrap();
        assert_eq!(names(&directory, &of_country("BR")), ["playground", "sandbox"]);
        let real = GatewayRecord { protocol, enabled, ..world.record("north", "https://north.example") };
        world.table.put_gateway(&real).await.unwrap();
        directory.refresh().await.unwrap();
        let expected = if enabled { &["north"][..] } else { &[] };
        assert_eq!(names(&directory, &of_country("BR")), expected, "{protocol:?}");
        assert!(names(&directory, &of_country("DE")).is_empty(), "nor is one the default");
        assert_closed(&directory, "playground");
        assert_closed(&directory, "sandbox");
        assert_eq!(directory.is_enabled(&"north".parse().unwrap()), enabled);
    }
}

#[tokio::test]
async fn a_real_gateway_that_cannot_be_made_closes_the_sandboxes_as_well() {
    let world = World::with(&["broken"]).await;
    let directory = world.open_with(world.sandbox("sandbox")).await.unwrap();
    assert!(names(&directory, &of_country("BR")).is_empty());
    assert_closed(&directory, "sandbox");
}

#[tokio::test]
async fn a_built_in_gateway_that_is_real_closes_the_sandboxes_of_the_store() {
    let world = World::new();
    world.table.put_gateway(&world.sandbox("playground")).await.unwrap();
    world.route("playground", 1, Some("BR")).await;
    let directory = world.open().await;
    assert!(names(&directory, &of_country("BR")).is_empty());
    assert_eq!(names(&directory, &of_country("DE")), ["main"]);
    assert_closed(&directory, "playground");
}

fn any_route() -> impl Strategy<Value = Route> {
    let country = prop::option::of(prop::sample::select(vec!["BR", "US", "DE"]));
    let kind = prop::option::of(prop::sample::select(TransactionKind::ALL.to_vec()));
    let method = prop::option::of(prop::sample::select(PaymentMethod::ALL.to_vec()));
    let currency = prop::option::of(prop::sample::select(vec![Currency::BRL, "USD".parse().unwrap()]));
    (0..6_u8, 0..4_u16, country, kind, method, currency).prop_map(
        |(number, priority, country, kind, method, currency)| Route {
            kind,
            method,
            currency,
            ..route(&format!("gateway-{number}"), priority, country)
        },
    )
}

fn any_transaction() -> impl Strategy<Value = Transaction> {
    let country = prop::option::of(prop::sample::select(vec!["BR", "US", "FR"]));
    let kind = prop::sample::select(TransactionKind::ALL.to_vec());
    let method = prop::sample::select(PaymentMethod::ALL.to_vec());
    (country, kind, method).prop_map(|(country, kind, method)| {
        let country = country.map(|code| code.parse::<Country>().unwrap());
        let amount = Money::new(2500, Currency::BRL);
        let named = Named { country, ..Named::default() };
        Transaction { kind, payment_method: method, amount, ..transaction(named) }
    })
}

proptest! {
    #[test]
    fn routes_are_ordered_and_fit_and_the_directory_follows_them(
        routes in prop::collection::vec(any_route(), 0..40),
        transaction in any_transaction(),
    ) {
        let table = RoutingTable::new(Vec::new(), routes.clone());
        let found = table.routes_of(&transaction);
        let order = |route: &Route| (route.priority, usize::MAX - route.criteria());
        prop_assert!(found.is_sorted_by_key(|route| order(route)));
        for route in &found {
            prop_assert!(route.fits(&transaction));
            let best = routes.iter().filter(|r| r.gateway == route.gateway && r.fits(&transaction)).map(order).min();
            prop_assert_eq!(best, Some(order(route)));
        }
        let mut gateways: Vec<_> = found.iter().map(|route| route.gateway.to_string()).collect();
        let fitting = routes.iter().filter(|route| route.fits(&transaction));
        let fitting: std::collections::BTreeSet<_> = fitting.map(|route| route.gateway.to_string()).collect();
        prop_assert_eq!(fitting, gateways.iter().cloned().collect());

        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let asked = runtime.block_on(async {
            let world = World::with(&["gateway-0", "gateway-1", "gateway-2", "gateway-3", "gateway-4", "gateway-5"]).await;
            // The store keeps one route for each gateway and criteria: the last.
            for route in table.routes().iter().rev() {
                world.table.put_route(route).await.unwrap();
            }
            names(&world.open().await, &transaction)
        });
        if gateways.is_empty() {
            gateways.push("main".to_owned());
        }
        prop_assert_eq!(asked, gateways);
    }
}
