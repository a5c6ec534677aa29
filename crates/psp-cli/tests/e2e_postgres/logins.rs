//! Services that use the schema without owning it, as they are deployed.

use psp_testkit::servers;

use crate::support::{Place, example};

#[tokio::test]
async fn a_login_that_may_only_use_the_tables_serves_the_main_job() {
    let mut place = Place::new(&[]);
    // Logins belong to the whole server, so it has one of its own.
    let server = servers::PostgresServer::start(&["fsync=off"]).await;
    place.set("DATABASE_URL", &server.url);
    let too_early = place.command(&["migrate"]).env("DATABASE_URL", server.url.replace("postgres@", "psp@")).output();
    assert!(!too_early.unwrap().status.success(), "the login is not there yet");
    for applied in ["applied 0001_main", "the database is up to date"] {
        let told = place.run(&["migrate", "--service-login", "psp"]);
        assert!(told.contains(applied) && told.contains("psp may use the tables"), "{told}");
    }

    place.set("DATABASE_URL", &server.url.replace("postgres@", "psp@"));
    let psp = place.serve().await;
    psp.post("123", &example()).await;
    psp.until("123", "/transactions", |list| list[0]["status"] == "pending_payment").await;
    // What neither seals nor opens cards needs no keys.
    let args = ["job", "settle-payables", "--date", "2200-01-01", "--json"];
    let settled = place.command(&args).env_remove("PSP_CARD_KEYS").output().unwrap();
    let settled = String::from_utf8_lossy(&settled.stdout).into_owned();
    assert!(settled.contains("\"payables\":1"), "{settled}");
    assert_eq!(place.run(&["dlq", "list", "--json"]).trim(), "[]");
    place.run(&["job", "purge-idempotency-keys"]);
}
