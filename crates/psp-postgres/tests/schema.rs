//! The schema as several releases and several logins meet it.

use psp_postgres::{OpenError, PgOptions, PgStore};
use psp_testkit::servers::{self, PostgresServer};
use sqlx::{Connection, Executor, PgConnection};

#[tokio::test]
async fn a_release_that_is_rolled_back_opens_the_newer_schema_but_no_changed_one() {
    let database = servers::database().await;
    let options = PgOptions::new(&*database.url);
    PgStore::migrate(&options).await.unwrap();
    let mut connection = PgConnection::connect(&database.url).await.unwrap();
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                 VALUES (9999, 'of a later release', true, 'x', 0)";
    connection.execute(newer).await.unwrap();
    assert!(PgStore::migrate(&options).await.unwrap().is_empty());
    connection.execute("UPDATE _sqlx_migrations SET checksum = 'x' WHERE version = 1").await.unwrap();
    assert!(matches!(PgStore::migrate(&options).await, Err(OpenError::Migrate(_))));
}

#[tokio::test]
async fn a_service_login_may_use_the_tables_and_not_change_the_schema() {
    // Logins belong to the whole server.
    let server = PostgresServer::start(&["fsync=off"]).await;
    let options = PgOptions::new(&*server.url);
    PgStore::migrate(&options).await.unwrap();
    let mut owner = PgConnection::connect(&server.url).await.unwrap();
    // As on RDS, where members of this role log in with IAM tokens.
    owner.execute("CREATE ROLE rds_iam").await.unwrap();
    let name = r#"o'clock"psp"#;
    for _ in 0..2 {
        PgStore::grant(&options, name).await.unwrap();
    }
    let member: bool = sqlx::query_scalar("SELECT pg_has_role($1, 'rds_iam', 'member')")
        .bind(name)
        .fetch_one(&mut owner)
        .await
        .unwrap();
    assert!(member);

    let url = server.url.replace("postgres@", "o%27clock%22psp@");
    PgStore::migrate(&PgOptions::new(&*url)).await.unwrap();
    let mut service = PgConnection::connect(&url).await.unwrap();
    for allowed in ["DELETE FROM transactions", "SELECT * FROM _sqlx_migrations"] {
        service.execute(allowed).await.unwrap();
    }
    for denied in ["CREATE TABLE t ()", "DROP TABLE payables", "TRUNCATE payables", "DELETE FROM _sqlx_migrations"] {
        let error = service.execute(denied).await.unwrap_err();
        let code = error.as_database_error().and_then(|error| error.code().map(String::from));
        assert_eq!(code.as_deref(), Some("42501"), "{denied}: {error}");
    }
}
