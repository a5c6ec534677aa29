use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use psp_domain::ports::{IdGenerator, UuidV7Generator};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use sqlx::migrate::Migrator;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};
use testcontainers::core::{IntoContainerPort, WaitFor};
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, GenericImage, ImageExt};

use super::native::{Native, as_user, program, unprivileged};
use super::{DATABASE_URL, free_port, is_no_engine};

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_mins(1);
/// The pause between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// A Postgres server.
pub struct PostgresServer {
    /// The address of its maintenance database, for a user who may create databases.
    pub url: String,
    running: Running,
}

enum Running {
    Elsewhere,
    Container(Box<ContainerAsync<GenericImage>>),
    Native(Native),
}

/// A database of one test; dropped with it.
pub struct Database {
    /// Its address.
    pub url: String,
    admin: String,
    name: String,
}

impl PostgresServer {
    /// The one that is named, or else a new one that forgets on a crash of the machine, which tests may bear.
    pub async fn find() -> Self {
        if let Ok(url) = std::env::var(DATABASE_URL) {
            return Self { url, running: Running::Elsewhere };
        }
        Self::start(&["fsync=off", "full_page_writes=off"]).await
    }

    /// A new one with these settings: in a container where an engine answers, otherwise native.
    pub async fn start(settings: &[&str]) -> Self {
        match Self::in_container(settings).await {
            Ok(server) => server,
            Err(error) if is_no_engine(&error) => Self::native(settings).await,
            Err(error) => panic!("the Docker engine answers, but Postgres does not start in it: {error}"),
        }
    }

    async fn in_container(settings: &[&str]) -> Result<Self, testcontainers::TestcontainersError> {
        let mut command = vec!["postgres".to_owned()];
        command.extend(all_settings(settings).into_iter().flat_map(|setting| ["-c".to_owned(), setting]));
        let image = GenericImage::new("postgres", "17-alpine")
            .with_exposed_port(5432.tcp())
            .with_wait_for(WaitFor::message_on_stderr("database system is ready to accept connections"))
            .with_env_var("POSTGRES_HOST_AUTH_METHOD", "trust")
            .with_cmd(command);
        let container = image.start().await?;
        let (host, port) = (container.get_host().await?, container.get_host_port_ipv4(5432).await?);
        let url = format!("postgres://postgres@{host}:{port}/postgres");
        let server = Self { url, running: Running::Container(Box::new(container)) };
        server.answers(Path::new("")).await;
        Ok(server)
    }

    /// A new one from the machine's binaries, in a temporary directory.
    pub async fn native(settings: &[&str]) -> Self {
        let user = unprivileged();
        Self::native_in(directory(user), user, settings).await
    }

    /// A native one that speaks TLS under that name, with a certificate of an authority that is made for it; and that
    /// authority's certificate, as PEM.
    pub async fn with_tls(name: &str) -> (Self, String) {
        let user = unprivileged();
        let dir = directory(user);
        let (certificate, key, authority) = certify(name);
        let mut settings = vec!["ssl=on".to_owned()];
        for (setting, file, text) in [("ssl_cert_file", "cert.pem", certificate), ("ssl_key_file", "key.pem", key)] {
            use std::os::unix::fs::PermissionsExt;
            let path = dir.join(file);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            own(&path, user);
            settings.push(format!("{setting}={}", path.display()));
        }
        let settings: Vec<_> = settings.iter().map(String::as_str).collect();
        (Self::native_in(dir, user, &settings).await, authority)
    }

    async fn native_in(dir: PathBuf, user: Option<(u32, u32)>, settings: &[&str]) -> Self {
        let mut initdb = Command::new(binary("initdb"));
        initdb.args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "-N", "-D"]).arg(dir.join("data"));
        as_user(&mut initdb, user);
        let made = initdb.current_dir("/").stdin(Stdio::null()).output().unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let (postgres, port, log) = (binary("postgres"), free_port(), dir.join("log"));
        let (data, port_text) = (dir.join("data"), port.to_string());
        let mut command: Vec<&OsStr> = vec![postgres.as_os_str(), "-D".as_ref(), data.as_os_str()];
        command.extend(["-p", &port_text, "-h", "127.0.0.1", "-k", ""].map(OsStr::new));
        let settings = all_settings(settings);
        for setting in &settings {
            command.extend([OsStr::new("-c"), OsStr::new(setting)]);
        }
        let server = Native::start("INT", &dir, &log, &command, user);
        let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
        let server = Self { url, running: Running::Native(server) };
        server.answers(&log).await;
        server
    }

    /// Kills the server without a shutdown, as a crash would, and starts it again on the same data.
    pub async fn crash(&mut self) {
        let before = self.started_at().await.expect("it runs");
        match &mut self.running {
            Running::Elsewhere => panic!("somebody else's server is not ours to kill"),
            Running::Container(container) => {
                container.stop_with_timeout(Some(0)).await.unwrap();
                container.start().await.unwrap();
                let port = container.get_host_port_ipv4(5432).await.unwrap();
                self.url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
            }
            Running::Native(server) => server.restart("QUIT"),
        }
        let begun = Instant::now();
        while self.started_at().await.is_none_or(|started| started == before) {
            assert!(begun.elapsed() < PATIENCE, "Postgres does not come back");
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn started_at(&self) -> Option<String> {
        let mut connection = PgConnection::connect(&self.url).await.ok()?;
        sqlx::query_scalar("SELECT pg_postmaster_start_time()::text").fetch_one(&mut connection).await.ok()
    }

    /// The address host:port at which it listens.
    pub fn socket(&self) -> String {
        let options: PgConnectOptions = self.url.parse().unwrap();
        format!("{}:{}", options.get_host(), options.get_port())
    }

    async fn answers(&self, log: &Path) {
        let begun = Instant::now();
        while let Err(error) = PgConnection::connect(&self.url).await {
            let log = || std::fs::read_to_string(log).unwrap_or_default();
            assert!(begun.elapsed() < PATIENCE, "Postgres does not answer: {error}\n{}", log());
            tokio::time::sleep(LOOK).await;
        }
    }

    /// A fresh database with the migrations of that directory.
    pub async fn migrated(&self, migrations: &Path) -> Database {
        let database = self.database().await;
        let mut connection = PgConnection::connect(&database.url).await.unwrap();
        Migrator::new(migrations).await.unwrap().run(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        database
    }

    /// A fresh database.
    pub async fn database(&self) -> Database {
        let name = format!("psp_test_{}", UuidV7Generator.next_id().simple());
        let mut admin = PgConnection::connect(&self.url).await.unwrap();
        let sql = format!("CREATE DATABASE {name}");
        // Two at once disturb each other where the template is copied file by file.
        let begun = Instant::now();
        while let Err(error) = sqlx::query(AssertSqlSafe(sql.clone())).execute(&mut admin).await {
            assert!(begun.elapsed() < PATIENCE, "{error}");
        }
        let options: PgConnectOptions = self.url.parse().unwrap();
        Database { url: options.database(&name).to_url_lossy().to_string(), admin: self.url.clone(), name }
    }
}

/// A temporary directory of that user, which the server's keeper removes.
fn directory(user: Option<(u32, u32)>) -> PathBuf {
    let dir = tempfile::Builder::new().prefix("psp-postgres-").tempdir().unwrap().keep();
    own(&dir, user);
    dir
}

fn own(path: &Path, user: Option<(u32, u32)>) {
    if let Some((uid, gid)) = user {
        std::os::unix::fs::chown(path, Some(uid), Some(gid)).unwrap();
    }
}

/// A certificate for that name, its key, and the certificate of the authority that issued it, as PEM.
pub(super) fn certify(name: &str) -> (String, String, String) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, "authority of a test");
    let issuer_key = KeyPair::generate().unwrap();
    let root = authority.self_signed(&issuer_key).unwrap().pem();
    let issuer = Issuer::new(authority, issuer_key);
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    (certificate.pem(), key.serialize_pem(), root)
}

/// A test's own settings, after those of every test server.
fn all_settings(settings: &[&str]) -> Vec<String> {
    let common = ["max_connections=200", "shared_buffers=256MB", "max_wal_size=2GB"];
    common.iter().chain(settings).map(|setting| (*setting).to_owned()).collect()
}

/// A program of the Postgres server: newest version first.
fn binary(name: &str) -> PathBuf {
    let mut versions: Vec<_> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path().join("bin"))).collect())
        .unwrap_or_default();
    versions.sort();
    program(name, versions.into_iter().rev())
        .unwrap_or_else(|| panic!("no {name} on this machine and no Docker engine: `make tools` says what to install"))
}

impl Drop for Database {
    fn drop(&mut self) {
        let (admin, sql) = (self.admin.clone(), format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
        let drop = async move {
            let mut admin = PgConnection::connect(&admin).await?;
            sqlx::query(AssertSqlSafe(sql)).execute(&mut admin).await
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        // The server may be gone already.
        let _ = std::thread::spawn(move || runtime.block_on(drop)).join();
    }
}
