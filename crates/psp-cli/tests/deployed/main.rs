//! The infrastructure, applied to an emulator of AWS, and the real binary in exactly the environment that its task
//! definitions give: only the database is another, because an emulator has none. `make test-infra` runs it.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

#[path = "../e2e/support.rs"]
#[expect(dead_code, reason = "this program asks for a part of it")]
mod support;
mod terraform;

use std::path::Path;

use psp_testkit::servers::PostgresServer;
use serde_json::{Value, json};
use support::{Backend, Place, Process, example};
use terraform::{Aws, CREDENTIALS, REGION, Stack};

/// What the processes under test run on, of which this program chooses everything itself.
const BACKEND: Backend = Backend::Sqlite;

/// A key of 32 bytes.
const CARD_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// One container as ECS would start it.
struct Task {
    command: Vec<String>,
    env: Vec<(String, String)>,
    health_check: Vec<String>,
}

impl Task {
    /// Reads a task definition and its secrets out of the emulator.
    async fn read(aws: &Aws, definition: &Value) -> Self {
        let target = "AmazonEC2ContainerServiceV20141113.DescribeTaskDefinition";
        let described = aws.ask("ecs", target, &json!({ "taskDefinition": definition })).await;
        let container = &described["taskDefinition"]["containerDefinitions"][0];
        let texts = |list: &Value| {
            let list = list.as_array().cloned().unwrap_or_default();
            list.iter().map(|text| text.as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let pairs = |list: &Value, value: &str| {
            let pair = |entry: &Value| [&entry["name"], &entry[value]].map(|text| text.as_str().unwrap().to_owned());
            list.as_array().unwrap().iter().map(pair).map(|[name, value]| (name, value)).collect::<Vec<_>>()
        };
        let mut env = pairs(&container["environment"], "value");
        for (name, value_from) in pairs(&container["secrets"], "valueFrom") {
            env.push((name, secret(aws, &value_from).await));
        }
        Self { command: texts(&container["command"]), env, health_check: texts(&container["healthCheck"]["command"]) }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.env.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The environment on this machine: with another database, and its own ports, and the emulator as AWS.
    fn env(&self, aws: &Aws, database: &str) -> Vec<(String, String)> {
        let replaced = ["DATABASE_URL", "PSP_DATABASE_AUTH", "PSP_DATABASE_PASSWORD", "PSP_LISTEN", "PSP_ADMIN_LISTEN"];
        let mut env: Vec<_> = self.env.iter().filter(|(name, _)| !replaced.contains(&name.as_str())).cloned().collect();
        env.push(("DATABASE_URL".into(), database.into()));
        let listens = ["PSP_LISTEN", "PSP_ADMIN_LISTEN"].into_iter().filter(|name| self.get(name).is_some());
        env.extend(listens.map(|name| (name.into(), "127.0.0.1:0".into())));
        // The role of the task gives the credentials on AWS.
        env.extend(CREDENTIALS.map(|(name, value)| (name.into(), value.into())));
        env.push(("AWS_ENDPOINT_URL".into(), aws.endpoint().into()));
        env
    }

    fn args(&self) -> Vec<&str> {
        self.command.iter().map(String::as_str).collect()
    }

    /// Starts it, and asks for its health as ECS does.
    async fn start(&self, place: &Place, aws: &Aws, database: &str) -> Process {
        let env = self.env(aws, database);
        let env: Vec<_> = env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let process = place.start_with(&self.args(), &env).await;
        let listen = if self.get("PSP_ADMIN_LISTEN").is_some() { "PSP_ADMIN_LISTEN" } else { "PSP_LISTEN" };
        assert_eq!(self.health_check[..2], ["CMD", "/usr/local/bin/psp"]);
        let args: Vec<_> = self.health_check[2..].iter().map(String::as_str).collect();
        let mut check = place.command(&args);
        assert!(check.envs(env).env(listen, &process.address).status().unwrap().success());
        process
    }

    /// Runs it to its end; its standard output.
    fn run(&self, place: &Place, aws: &Aws, database: &str, more: &[&str]) -> String {
        let output = place.command(&self.args()).args(more).envs(self.env(aws, database)).output().unwrap();
        assert!(output.status.success(), "{:?}: {}", self.command, String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

/// The value that ECS injects for an ARN, which may name a key of a JSON secret: `arn:…:secret:name:key::`.
async fn secret(aws: &Aws, value_from: &str) -> String {
    let parts: Vec<_> = value_from.split(':').collect();
    let answer =
        aws.ask("secretsmanager", "secretsmanager.GetSecretValue", &json!({ "SecretId": parts[..7].join(":") })).await;
    let value = answer["SecretString"].as_str().unwrap();
    match parts.get(7).filter(|key| !key.is_empty()) {
        None => value.to_owned(),
        Some(key) => serde_json::from_str::<Value>(value).unwrap()[key].as_str().unwrap().to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_terraform_makes_runs_the_main_job_and_goes_away_again() {
    let aws = Aws::start().await;
    let dir = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../infrastructure");
    terraform::copy(&source, dir.path());

    let bootstrap =
        Stack::new(&aws, dir.path(), "bootstrap", &[("region", REGION), ("repository", "example/psp")], None);
    bootstrap.apply();
    let image = format!("{}:1.2.3", bootstrap.output("registry_url").as_str().unwrap());
    let vars = [("emulator", "true"), ("image", &*image), ("zone_id", "Z0"), ("card_keys", CARD_KEY)];
    let stack = Stack::new(&aws, dir.path(), "", &vars, Some("environments/dev.tfvars"));
    stack.apply();
    assert!(stack.count() > 100, "{} resources", stack.count());
    assert_eq!(stack.drift(), EMULATOR_DRIFT);

    main_job(&aws, &stack.output("task_definitions"), &stack.output("queue_urls")).await;

    stack.destroy();
    assert_eq!(stack.count(), 0);
}

/// Resources that the emulator tells otherwise than it was told.
const EMULATOR_DRIFT: [&str; 0] = [];

/// As in the first deployment: the migration, the services, a payment, the jobs.
async fn main_job(aws: &Aws, definitions: &Value, queues: &Value) {
    // Only the roles of the API and the worker, with nothing but what their definitions say.
    let place = Place::new(&[]);
    let server = PostgresServer::start(&["fsync=off"]).await;
    let (owner, service) = (server.url.clone(), server.url.replace("postgres@", "psp@"));

    let migrate = Task::read(aws, &definitions["migrate"]).await;
    assert!(migrate.get("DATABASE_URL").unwrap().starts_with("postgres://psp_admin@"));
    assert!(migrate.get("PSP_DATABASE_PASSWORD").is_some_and(|password| password.len() >= 16));
    assert!(migrate.run(&place, aws, &owner, &[]).contains("applied 0001_main"));

    let api = Task::read(aws, &definitions["api"]).await;
    let worker = Task::read(aws, &definitions["worker"]).await;
    for task in [&api, &worker] {
        assert!(task.get("DATABASE_URL").unwrap().starts_with("postgres://psp@"));
        assert!(task.get("DATABASE_URL").unwrap().contains("sslmode=verify-full"));
        assert_eq!((task.get("PSP_DATABASE_AUTH"), task.get("PSP_DATABASE_PASSWORD")), (Some("rds_iam"), None));
        assert_eq!((task.get("PSP_CARD_KEYS"), task.get("PSP_QUEUE")), (Some(CARD_KEY), Some("sqs")));
    }
    let api = api.start(&place, aws, &service).await;
    api.post("123", &example()).await;
    // It waits for a worker: on the queue that Terraform made, once there is one.
    assert_eq!(api.get("123", "/transactions").await.json()[0]["status"], "processing");
    let mut worker = worker.start(&place, aws, &service).await;
    api.until("123", "/transactions", |list| list[0]["status"] == "pending_payment").await;

    let settle = Task::read(aws, &definitions["settle-payables"]).await;
    assert!(settle.run(&place, aws, &service, &[]).contains("payables      0"), "nothing is due");
    assert!(settle.run(&place, aws, &service, &["--date", "2200-01-01"]).contains("payables      1"));
    assert_eq!(api.get("123", "/payables").await.json()[0]["status"], "paid");
    let purge = Task::read(aws, &definitions["purge-idempotency-keys"]).await;
    assert!(purge.run(&place, aws, &service, &[]).contains("0 expired"));

    worker.terminate();
    assert!(worker.ended().await.success(), "{}", worker.log());
    let sent = queues.as_object().unwrap().keys().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(sent, ["payables-settlement", "payables-settlement-dlq", "transactions", "transactions-dlq"]);
    for (name, url) in queues.as_object().unwrap() {
        let asked = json!({ "QueueUrl": url, "AttributeNames": ["All"] });
        let attributes = aws.ask("sqs", "AmazonSQS.GetQueueAttributes", &asked).await["Attributes"].clone();
        assert_eq!(attributes["ApproximateNumberOfMessages"], "0", "{name}: {attributes}");
    }
}
