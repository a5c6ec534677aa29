//! The real binary in a directory of its own, and a small HTTP client.

use std::fs::File;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use psp_testkit::servers;
use serde_json::Value;
use sqlx::{Connection, PgConnection};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// How long a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What the processes under test run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code, reason = "each of the test programs has one")]
pub(crate) enum Backend {
    Sqlite,
    Postgres,
    PostgresAndSqs,
}

/// A directory and a database; processes of `psp` run in it.
#[allow(dead_code, reason = "not every test program asks for everything")]
pub(crate) struct Place {
    dir: tempfile::TempDir,
    env: Vec<(&'static str, String)>,
    database: Option<servers::Database>,
}

/// The key that seals cards where the test gives none and SQLite makes none.
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// A running `psp`, killed on drop.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
    api: Api,
}

/// Where an API is.
pub(crate) struct Api {
    pub(crate) address: String,
}

impl Deref for Process {
    type Target = Api;

    fn deref(&self) -> &Api {
        &self.api
    }
}

impl Place {
    pub(crate) fn new(env: &[(&'static str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut place = Self { dir, env: Vec::new(), database: None };
        if crate::BACKEND != Backend::Sqlite {
            let database = wait_for(servers::database());
            place.set("DATABASE_URL", &database.url);
            place.set("PSP_CARD_KEYS", KEY);
            place.database = Some(database);
        }
        for (name, value) in env {
            place.set(name, value);
        }
        if crate::BACKEND == Backend::PostgresAndSqs {
            place.use_sqs();
        }
        place
    }

    fn use_sqs(&mut self) {
        let sqs = wait_for(servers::sqs());
        self.set("PSP_QUEUE", "sqs");
        self.set("PSP_SQS_PREFIX", &sqs.prefix);
        self.set("AWS_ENDPOINT_URL", &sqs.endpoint);
        self.set("AWS_REGION", "us-east-1");
        self.set("AWS_ACCESS_KEY_ID", "test");
        self.set("AWS_SECRET_ACCESS_KEY", "test");
        // SQS counts in seconds, and keeps what it gave to a killed process for that long.
        let short = ["500", "1000"].map(|text| ("PSP_VISIBILITY_TIMEOUT_MS", text.to_owned()));
        if short.iter().any(|pair| self.env.contains(pair)) || !self.env.iter().any(|(name, _)| *name == short[0].0) {
            self.set(short[0].0, "2000");
        }
        self.run(&["queues", "create"]);
    }

    pub(crate) fn set(&mut self, name: &'static str, value: &str) {
        self.unset(name);
        self.env.push((name, value.to_owned()));
    }

    #[allow(dead_code, reason = "not every test program asks for it")]
    pub(crate) fn unset(&mut self, name: &str) {
        self.env.retain(|(other, _)| *other != name);
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_psp"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PSP_")) {
            command.env_remove(name);
        }
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_")) {
            command.env_remove(name);
        }
        command.current_dir(self.path()).env_remove("DATABASE_URL").env("PSP_LISTEN", "127.0.0.1:0");
        command.envs(self.env.iter().map(|(name, value)| (name, value))).args(args);
        command
    }

    /// Runs a command to its end; its standard output.
    pub(crate) fn run(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Starts a role and waits until it says that it has.
    pub(crate) async fn start(&self, args: &[&str]) -> Process {
        self.start_with(args, &[]).await
    }

    /// Starts a role with some other settings.
    pub(crate) async fn start_with(&self, args: &[&str], env: &[(&str, &str)]) -> Process {
        let mut command = self.command(args);
        command.envs(env.iter().copied());
        self.spawn(command).await
    }

    /// Starts a role as the last arguments of another program, which becomes it.
    #[allow(dead_code, reason = "not every test program asks for it")]
    pub(crate) async fn start_through(&self, program: &[&str], args: &[&str]) -> Process {
        let psp = self.command(args);
        let mut command = Command::new(program[0]);
        command.args(&program[1..]).arg(psp.get_program()).args(psp.get_args()).current_dir(self.path());
        for (name, value) in psp.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        self.spawn(command).await
    }

    async fn spawn(&self, mut command: Command) -> Process {
        let number = std::fs::read_dir(self.path()).unwrap().count();
        let log = self.path().join(format!("log-{number}.txt"));
        let file = File::create(&log).unwrap();
        let child = command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        let mut process = Process { child, log, api: Api { address: String::new() } };
        process.await_log("started").await;
        if let Some(line) = process.log_lines().into_iter().find(|line| line["message"] == "listening") {
            line["address"].as_str().unwrap().clone_into(&mut process.api.address);
        }
        process
    }

    pub(crate) async fn serve(&self) -> Process {
        self.start(&["serve"]).await
    }

    /// Everything that was written to the directory: database, logs, key.
    pub(crate) fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let entries = std::fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().path());
        entries.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
    }

    /// How many rows a query gives on the database, beside the processes.
    pub(crate) async fn count(&self, sql: &'static str) -> usize {
        match &self.database {
            None => self.sqlite(sql).await.len(),
            Some(database) => {
                let mut connection = PgConnection::connect(&database.url).await.unwrap();
                sqlx::query(sql).fetch_all(&mut connection).await.unwrap().len()
            }
        }
    }

    /// Runs a statement on the database, beside the processes: the first on SQLite, the second on Postgres.
    #[allow(dead_code, reason = "not every test program asks for it")]
    pub(crate) async fn execute(&self, [sqlite, postgres]: &[&'static str; 2]) {
        match &self.database {
            None => drop(self.sqlite(sqlite).await),
            Some(database) => {
                let mut connection = PgConnection::connect(&database.url).await.unwrap();
                sqlx::query(*postgres).execute(&mut connection).await.unwrap();
            }
        }
    }

    /// Every row of every table of a server as text; of SQLite the file is among [`Self::files`].
    pub(crate) async fn dump(&self) -> Vec<String> {
        let Some(database) = &self.database else { return Vec::new() };
        let mut connection = PgConnection::connect(&database.url).await.unwrap();
        let tables = "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'";
        let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&mut connection).await.unwrap();
        let mut rows = Vec::new();
        for table in tables {
            let sql = sqlx::AssertSqlSafe(format!("SELECT t::text FROM {table} AS t"));
            rows.extend(sqlx::query_scalar::<_, String>(sql).fetch_all(&mut connection).await.unwrap());
        }
        rows
    }

    /// The rows of a query on SQLite.
    pub(crate) async fn sqlite(&self, sql: &'static str) -> Vec<sqlx::sqlite::SqliteRow> {
        let url = format!("sqlite://{}", self.path().join("psp.db").display());
        let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
        let rows = sqlx::query(sql).fetch_all(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        rows
    }
}

impl Process {
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    fn log_lines(&self) -> Vec<Value> {
        self.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    pub(crate) async fn await_log(&mut self, message: &str) {
        let begun = Instant::now();
        while !self.log_lines().iter().any(|line| line["message"] == message) {
            assert!(begun.elapsed() < PATIENCE, "no {message:?} in: {}", self.log());
            assert!(self.child.try_wait().unwrap().is_none(), "ended early: {}", self.log());
            pause().await;
        }
    }

    #[allow(dead_code, reason = "not every test program asks for it")]
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Sends a signal, named as `kill` has it.
    pub(crate) fn signal(&self, signal: &str) {
        // The shell's own `kill`: not every machine has one as a program.
        let line = format!("kill {signal} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &line]).status().unwrap().success());
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < Duration::from_secs(40), "still running: {}", self.log());
            pause().await;
        }
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Api {
    pub(crate) async fn client(&self) -> Client {
        Client::connect(&self.address).await.unwrap()
    }

    /// Asks on a fresh connection.
    pub(crate) async fn get(&self, customer: &str, path: &str) -> Answer {
        self.client().await.get(customer, path).await.unwrap()
    }

    pub(crate) async fn post(&self, customer: &str, body: &Value) -> Answer {
        self.client().await.post(customer, body, None).await.unwrap()
    }

    /// Every row of a list, by its cursors.
    pub(crate) async fn all(&self, customer: &str, path: &str) -> Vec<Value> {
        let mut client = self.client().await;
        let (mut rows, mut next) = (Vec::new(), format!("{path}?limit=200"));
        loop {
            let answer = client.get(customer, &next).await.unwrap();
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
            rows.extend(answer.json().as_array().unwrap().iter().cloned());
            let Some(link) = answer.headers.get("link") else { return rows };
            let link = link.to_str().unwrap();
            link.trim_start_matches('<').split('>').next().unwrap().clone_into(&mut next);
        }
    }

    /// Asks until the answer is as wanted.
    pub(crate) async fn until(&self, customer: &str, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        let mut client = self.client().await;
        loop {
            let answer = client.get(customer, path).await.unwrap();
            let json = answer.json();
            if wanted(&json) {
                return json;
            }
            assert!(begun.elapsed() < PATIENCE, "{path} stays {json}");
            pause().await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a future beside whatever runtime the test has.
fn wait_for<T: Send>(future: impl Future<Output = T> + Send) -> T {
    let run = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future);
    std::thread::scope(|scope| scope.spawn(run).join().unwrap())
}

/// The pause between two looks; every loop around it has a deadline.
pub(crate) async fn pause() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}

/// A keep-alive connection.
pub(crate) struct Client(hyper::client::conn::http1::SendRequest<Full<Bytes>>);

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: hyper::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    /// The paths of a problem's faults, sorted.
    pub(crate) fn faults(&self) -> Vec<String> {
        let json = self.json();
        let errors = json["errors"].as_array().cloned().unwrap_or_default();
        let mut paths: Vec<_> = errors.iter().map(|e| e["path"].as_str().unwrap().to_owned()).collect();
        paths.sort();
        paths
    }
}

impl Client {
    pub(crate) async fn connect(address: &str) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, hyper::Error> {
        self.0.ready().await?;
        let response = self.0.send_request(request).await?;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await?.to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Ok(Answer { status: parts.status, headers: parts.headers, text })
    }

    pub(crate) async fn get(&mut self, customer: &str, path: &str) -> Result<Answer, hyper::Error> {
        let request = Request::get(path).header("host", "psp").header("x-customer-id", customer);
        self.send(request.body(Full::default()).unwrap()).await
    }

    pub(crate) async fn post(
        &mut self,
        customer: &str,
        body: &Value,
        key: Option<&str>,
    ) -> Result<Answer, hyper::Error> {
        let mut request = Request::post("/transactions").header("host", "psp").header("x-customer-id", customer);
        request = request.header("content-type", "application/json");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        self.send(request.body(Full::from(body.to_string())).unwrap()).await
    }
}

/// A whole `POST /transactions` as its bytes, to send in pieces.
pub(crate) fn wire(customer: &str, body: &Value, key: Option<&str>) -> Vec<u8> {
    let (body, key) = (body.to_string(), key.map_or_else(String::new, |key| format!("idempotency-key: {key}\r\n")));
    let length = body.len();
    format!(
        "POST /transactions HTTP/1.1\r\nhost: psp\r\nconnection: close\r\nx-customer-id: {customer}\r\n{key}\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Everything that the server still says on a connection.
pub(crate) async fn read_answer(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    read.expect("the connection is closed in time").unwrap();
    String::from_utf8(answer).unwrap()
}

/// The body of the documentation's example.
pub(crate) fn example() -> Value {
    serde_json::json!({
        "description": "Lightsaber", "amount": "2500", "payment_method": "credit_card",
        "card_number": "4111111111111111", "card_holder_name": "Luke Skywalker",
        "card_expiration_date": "10/25", "card_verification_code": "123"
    })
}

/// The example with some fields replaced; null takes one away.
pub(crate) fn example_with(fields: &Value) -> Value {
    let mut body = example();
    for (name, value) in fields.as_object().unwrap() {
        if value.is_null() {
            body.as_object_mut().unwrap().remove(name);
        } else {
            body[name] = value.clone();
        }
    }
    body
}
