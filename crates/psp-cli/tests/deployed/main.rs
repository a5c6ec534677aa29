//! The infrastructure, applied to an emulator of AWS, and the real binary in exactly the environment that its task
//! definitions give: only the database and the gateway are others, because an emulator has none. `make test-infra` runs it.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

mod compose;
mod main_job;
#[path = "../e2e/support.rs"]
#[expect(dead_code, reason = "this program asks for a part of it")]
mod support;
mod terraform;

use std::collections::BTreeSet;
use std::path::Path;

use main_job::approve_and_settle;
use psp_testkit::servers::PostgresServer;
use serde_json::{Value, json};
use support::{Backend, Place, Process};
use terraform::{Aws, CREDENTIALS, REGION, Stack};

/// What the processes under test run on, of which this program chooses everything itself.
const BACKEND: Backend = Backend::Sqlite;

/// What requests to the gateway are signed with.
const GATEWAY_SECRET: &str = "0123456789abcdef0123456789abcdef";
/// The gateway that Terraform is told; a simulator takes its place.
const GATEWAY: &str = r#"{"url":"https://acquirer.example.com/v1"}"#;

/// What requests to a gateway of the database are signed with.
const GATEWAY_SECRETS: &str = "lagos=abcdef0123456789abcdef0123456789";
/// Where gateways call back. Nobody is there: the load balancer of an emulator balances nothing.
const CALLBACKS: &str = r#"{"host_name":"callbacks.psp.dev.example.com","cidrs":["198.51.100.0/24"]}"#;

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

    /// The environment on this machine: with another database and another gateway, its own ports, and the emulator as AWS.
    fn env(&self, aws: &Aws, database: &str, gateway: &str) -> Vec<(String, String)> {
        let here = [
            ("DATABASE_URL", database),
            ("PSP_DATABASE_AUTH", "password"),
            ("PSP_DATABASE_PASSWORD", ""),
            ("PSP_LISTEN", "127.0.0.1:0"),
            ("PSP_ADMIN_LISTEN", "127.0.0.1:0"),
            ("PSP_GATEWAY_URL", gateway),
        ];
        let here = here.into_iter().filter(|(name, value)| self.get(name).is_some() && !value.is_empty());
        let kept = self.env.iter().filter(|(name, _)| name != "PSP_DATABASE_PASSWORD").cloned();
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        // The role of the task gives the credentials on AWS.
        let more = here.chain(CREDENTIALS).chain([("AWS_ENDPOINT_URL", aws.endpoint())]).map(owned);
        kept.chain(more).collect()
    }

    fn args(&self) -> Vec<&str> {
        self.command.iter().map(String::as_str).collect()
    }

    /// Starts it, and asks for its health as ECS does.
    async fn start(&self, place: &Place, aws: &Aws, database: &str, gateway: &str) -> Process {
        let env = self.env(aws, database, gateway);
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
        let output = place.command(&self.args()).args(more).envs(self.env(aws, database, "")).output().unwrap();
        assert!(output.status.success(), "{:?}: {}", self.command, String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

/// The value that ECS injects for `arn:…:secret:NAME`, behind which may follow a key of a JSON secret, a stage and a version.
async fn secret(aws: &Aws, value_from: &str) -> String {
    let parts: Vec<_> = value_from.split(':').collect();
    let part = |index: usize| parts.get(index).filter(|part| !part.is_empty());
    let mut asked = json!({ "SecretId": parts[..7].join(":") });
    if let Some(version) = part(9) {
        asked["VersionId"] = json!(version);
    }
    let answer = aws.ask("secretsmanager", "secretsmanager.GetSecretValue", &asked).await;
    let value = answer["SecretString"].as_str().unwrap();
    match part(7) {
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
    let bootstrap = [("region", REGION), ("repository", "example/psp")];
    let bootstrap = Stack::new(&aws, dir.path().join("bootstrap"), &bootstrap, None);
    let zone = aws.create_zone("dev.example.com").await;
    let image = format!("123456789012.dkr.ecr.{REGION}.amazonaws.com/psp:1.2.3");
    let vars = [
        ("emulator", "true"),
        ("image", &*image),
        ("zone_id", &*zone),
        ("card_keys", CARD_KEY),
        ("gateway", GATEWAY),
        ("gateway_cidrs", r#"["192.0.2.0/24"]"#),
        ("gateway_secret", GATEWAY_SECRET),
        ("gateway_secrets", GATEWAY_SECRETS),
        ("gateway_secrets_version", "1"),
        ("callbacks", CALLBACKS),
    ];
    let stack = Stack::new(&aws, dir.path().to_owned(), &vars, Some("environments/dev.tfvars"));

    // Side by side: both mostly wait for fixed times.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            bootstrap.apply();
            assert_eq!(bootstrap.drift(), BTreeSet::new());
            assert_eq!(bootstrap.output("registry_url"), image.split(':').next().unwrap());
            bootstrap.destroy();
        });
        stack.apply();
    });
    let resources = stack.resources();
    assert!(resources.len() > 150, "{} resources", resources.len());
    assert_eq!(stack.drift(), EMULATOR_DRIFT.map(|(attribute, _)| attribute.to_owned()).into());
    everybody_may_do_what_is_needed_and_no_more(&resources);
    main_job(&aws, &stack.output("task_definitions"), &stack.output("queue_urls")).await;

    stack.destroy();
    assert!(stack.resources().is_empty());
}

/// What a second plan would change on the emulator, and why it would not on AWS.
const EMULATOR_DRIFT: [(&str, &str); 9] = [
    ("aws_db_instance.performance_insights_enabled", "moto does not keep it"),
    ("aws_db_instance.performance_insights_kms_key_id", "moto does not keep it"),
    ("aws_db_instance.performance_insights_retention_period", "moto does not keep it"),
    ("aws_db_parameter_group.parameter", "moto tells another method of applying"),
    ("aws_ecs_service.availability_zone_rebalancing", "moto does not tell it"),
    ("aws_ecs_service.health_check_grace_period_seconds", "moto does not tell it"),
    ("aws_sqs_queue.redrive_policy", "moto writes the JSON with other spaces"),
    ("aws_vpc_security_group_egress_rule.description", "moto forgets it where a rule names a group or a prefix list"),
    ("aws_vpc_security_group_ingress_rule.description", "moto forgets it where a rule names a group or a prefix list"),
];

/// Who may receive messages, log in to the database, read which secret.
fn everybody_may_do_what_is_needed_and_no_more(resources: &[Value]) {
    let may = |action: &str, resource: &str| {
        let holds = |value: &Value, text: &str| value.to_string().contains(text);
        let grants = |policy: &&Value| {
            let policy: Value = serde_json::from_str(policy["values"]["policy"].as_str().unwrap()).unwrap();
            let mut statements = policy["Statement"].as_array().unwrap().iter();
            statements.any(|s| holds(&s["Action"], action) && holds(&s["Resource"], resource))
        };
        let policies = resources.iter().filter(|resource| resource["type"] == "aws_iam_role_policy").filter(grants);
        policies.map(|policy| policy["values"]["role"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    let roles = |names: &[&str]| names.iter().map(|name| format!("psp-dev-{name}")).collect::<BTreeSet<_>>();
    let tasks = [
        "api-task",
        "worker-task",
        "settle-payables-task",
        "purge-idempotency-keys-task",
        "shred-cards-task",
        "purge-events-task",
    ];
    assert_eq!(may("rds-db:connect", "/psp"), roles(&tasks));
    assert_eq!(may("sqs:ReceiveMessage", ":psp-dev-transactions"), roles(&["worker-task"]));
    let settling = roles(&["worker-task", "settle-payables-task"]);
    assert_eq!(may("sqs:ReceiveMessage", ":psp-dev-payables-settlement"), settling);
    let sealing = roles(&["api-execution", "worker-execution"]);
    assert_eq!(may("secretsmanager:GetSecretValue", "card-keys"), sealing);
    assert_eq!(may("secretsmanager:GetSecretValue", ":psp-dev/gateway"), sealing);
    assert_eq!(may("secretsmanager:GetSecretValue", ":psp-dev/named-gateways"), sealing);
    for queue in ["gateway-callbacks", "refunds", "orders"] {
        assert_eq!(may("sqs:ReceiveMessage", &format!(":psp-dev-{queue}")), roles(&["worker-task"]));
    }
    let readers = may("secretsmanager:GetSecretValue", ":secret:");
    assert_eq!(&readers - &sealing, roles(&["migrate-execution"]));
}

/// As in the first deployment: the migration, the services, a payment, the jobs.
async fn main_job(aws: &Aws, definitions: &Value, queues: &Value) {
    // Only the roles of the API and the worker, with nothing but what their definitions say.
    let place = Place::new(&[]);
    let server = PostgresServer::start(&["fsync=off"]).await;
    let (owner, service) = (server.url.clone(), server.url.replace("postgres@", "psp@"));

    let migrate = Task::read(aws, &definitions["migrate"]).await;
    assert!(migrate.get("DATABASE_URL").unwrap().starts_with("postgres://psp_admin@"));
    assert!(migrate.get("PSP_DATABASE_PASSWORD").is_some_and(|password| !password.is_empty()));
    assert!(migrate.run(&place, aws, &owner, &[]).contains("applied 0001_main"));

    let api = Task::read(aws, &definitions["api"]).await;
    let worker = Task::read(aws, &definitions["worker"]).await;
    for task in [&api, &worker] {
        assert!(task.get("DATABASE_URL").unwrap().starts_with("postgres://psp@"));
        assert!(task.get("DATABASE_URL").unwrap().contains("sslmode=verify-full"));
        assert_eq!((task.get("PSP_DATABASE_AUTH"), task.get("PSP_DATABASE_PASSWORD")), (Some("rds_iam"), None));
        assert_eq!((task.get("PSP_CARD_KEYS"), task.get("PSP_QUEUE")), (Some(CARD_KEY), Some("sqs")));
    }
    // The API verifies callbacks, the worker asks; on the network the API does not get there.
    for task in [&api, &worker] {
        let gateway = (task.get("PSP_GATEWAY_URL"), task.get("PSP_GATEWAY_SECRET"));
        assert_eq!(gateway, (Some("https://acquirer.example.com/v1"), Some(GATEWAY_SECRET)));
        assert_eq!(task.get("PSP_GATEWAY_SECRETS"), Some(GATEWAY_SECRETS));
        assert_eq!(task.get("PSP_PUBLIC_URL"), Some("https://callbacks.psp.dev.example.com"));
    }
    let secret = worker.get("PSP_GATEWAY_SECRET").unwrap().to_owned();
    let gateway = place.start_with(&["gateway-simulator"], &[("PSP_GATEWAY_SECRET", &secret)]).await;
    let gateway_url = format!("http://{}", gateway.address);
    let api = api.start(&place, aws, &service, "").await;
    let mut worker = worker.start(&place, aws, &service, &gateway_url).await;
    let mut jobs = Vec::new();
    for job in ["settle-payables", "purge-idempotency-keys", "shred-cards", "purge-events"] {
        jobs.push(Task::read(aws, &definitions[job]).await);
    }
    approve_and_settle(&api, |args| {
        let job = jobs.iter().find(|job| args.starts_with(&job.args())).expect("a job with that command");
        job.run(&place, aws, &service, &args[job.command.len()..])
    })
    .await;

    assert_eq!(gateway.get("", "/admin/totals").await.json()["charges"], 1);
    worker.terminate();
    assert!(worker.ended().await.success(), "{}", worker.log());
    // The messages went over the queues that Terraform made, and none is left.
    let sent = queues.as_object().unwrap().keys().map(String::as_str).collect::<Vec<_>>();
    let queues_of = |name: &str| [name.to_owned(), format!("{name}-dlq")];
    let wanted =
        ["gateway-callbacks", "orders", "payables-settlement", "refunds", "transactions"].map(queues_of).concat();
    assert_eq!(sent, wanted);
    for (name, url) in queues.as_object().unwrap() {
        let asked = json!({ "QueueUrl": url, "AttributeNames": ["All"] });
        let attributes = aws.ask("sqs", "AmazonSQS.GetQueueAttributes", &asked).await["Attributes"].clone();
        assert_eq!(attributes["ApproximateNumberOfMessages"], "0", "{name}: {attributes}");
    }
}
