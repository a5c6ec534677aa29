//! Runs a command beside one Postgres and one SQS: `with-servers cargo nextest run`. Both end with it. With
//! `--schema DIRECTORY` first, there is also a database with those migrations, for the macros that check queries. With
//! `--durable` first, Postgres keeps what it committed through a crash of the machine, as in production.

use std::path::PathBuf;
use std::process::ExitCode;

use psp_testkit::servers::{DATABASE_URL, PostgresServer, SQS_ENDPOINT, SqsServer};

/// What is usual for a server with some memory, so that checkpoints do not disturb short measurements.
const DURABLE: [&str; 5] =
    ["max_connections=400", "shared_buffers=1GB", "min_wal_size=4GB", "max_wal_size=8GB", "checkpoint_timeout=15min"];

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let (mut first, mut schema) = (args.next(), None);
    let durable = first.as_deref() == Some("--durable".as_ref());
    if durable {
        first = args.next();
    }
    if first.as_deref() == Some("--schema".as_ref()) {
        (schema, first) = (args.next().map(PathBuf::from), args.next());
    }
    let Some(program) = first else {
        eprintln!("usage: with-servers [--durable | --schema DIRECTORY] COMMAND [ARGUMENT…]");
        return ExitCode::from(2);
    };
    let postgres = if durable { PostgresServer::start(&DURABLE).await } else { PostgresServer::find().await };
    let sqs = SqsServer::find().await;
    let mut command = std::process::Command::new(&program);
    command.args(args).env(DATABASE_URL, &postgres.url).env(SQS_ENDPOINT, &sqs.endpoint);
    let database = match schema {
        Some(schema) => Some(postgres.migrated(&schema).await),
        None => None,
    };
    command.envs(database.iter().map(|database| ("PSP_POSTGRES_CHECK_URL", &database.url)));
    match command.status() {
        Ok(status) => ExitCode::from(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1)),
        Err(error) => {
            eprintln!("with-servers: {}: {error}", program.display());
            ExitCode::FAILURE
        }
    }
}
