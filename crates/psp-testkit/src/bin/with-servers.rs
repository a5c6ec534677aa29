//! Runs a command beside one Postgres and one SQS: `with-servers cargo nextest run`. Both end with it.

use std::process::ExitCode;

use psp_testkit::servers::{DATABASE_URL, PostgresServer, SQS_ENDPOINT, SqsServer};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let Some(program) = args.next() else {
        eprintln!("usage: with-servers COMMAND [ARGUMENT…]");
        return ExitCode::from(2);
    };
    let (postgres, sqs) = (PostgresServer::find().await, SqsServer::find().await);
    let mut command = std::process::Command::new(&program);
    command.args(args).env(DATABASE_URL, &postgres.url).env(SQS_ENDPOINT, &sqs.endpoint);
    match command.status() {
        Ok(status) => ExitCode::from(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1)),
        Err(error) => {
            eprintln!("with-servers: {}: {error}", program.display());
            ExitCode::FAILURE
        }
    }
}
