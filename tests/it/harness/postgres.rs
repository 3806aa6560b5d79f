//! A throw-away Postgres from the machine's own binaries.

use std::io::Read as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use keyward::infra::db::{self, Db};
use sqlx::{Connection as _, PgConnection};
use tokio::sync::OnceCell;

/// The one that all tests share; each has a database of its own.
pub async fn shared() -> &'static Postgres {
    static SHARED: OnceCell<Postgres> = OnceCell::const_new();
    SHARED.get_or_init(Postgres::start).await
}

/// A cluster in a temporary directory. It ends with this process, however that ends: a guardian shell waits for its end
/// of a pipe to close.
pub struct Postgres {
    bin: PathBuf,
    data: PathBuf,
    pub port: u16,
    databases: AtomicU32,
    _guardian: Child,
}

impl Postgres {
    /// Makes and starts a cluster, with a migrated template database.
    pub async fn start() -> Self {
        let bin = binaries();
        let home = tempfile::Builder::new().prefix("keyward-postgres-").tempdir().unwrap().keep();
        let data = home.join("data");
        if is_root() {
            // Postgres refuses to run as root.
            run(Command::new("chown").arg("postgres").arg(&home));
        }
        let mut initdb = as_postgres(&bin.join("initdb"));
        initdb.args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync", "-D"]);
        run(initdb.arg(&data));

        let port = free_port();
        let server = shell_words(&as_postgres(&bin.join("postgres")));
        let script = format!(
            "trap : HUP INT TERM; {server} -D '{data}' -p {port} -k '{home}' -c listen_addresses=127.0.0.1 -c max_connections=300 -c fsync=off \
             >>'{home}/log' 2>&1 & read -r _; {control} stop -m immediate -w -D '{data}' >/dev/null 2>&1; rm -rf '{home}'",
            control = shell_words(&as_postgres(&bin.join("pg_ctl"))),
            data = data.display(),
            home = home.display(),
        );
        let guardian = Command::new("sh").arg("-c").arg(script).stdin(Stdio::piped()).spawn().unwrap();
        let postgres = Self { bin, data, port, databases: AtomicU32::new(0), _guardian: guardian };
        postgres.wait().await;
        postgres.sql("CREATE DATABASE template").await;
        let config = super::settings(&postgres.url("template"), &[]);
        let db = Db::open(&config.database).await.unwrap();
        db::migrate(&db).await.unwrap();
        db.close().await;
        postgres
    }

    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// A fresh database with the schema.
    pub async fn database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.sql(&format!("CREATE DATABASE {name} TEMPLATE template STRATEGY file_copy")).await;
        self.url(&name)
    }

    /// A database without anything.
    pub async fn empty_database(&self) -> String {
        let name = format!("empty_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.sql(&format!("CREATE DATABASE {name}")).await;
        self.url(&name)
    }

    /// Runs a statement as the superuser.
    pub async fn sql(&self, statement: &str) {
        let mut connection = PgConnection::connect(&self.url("postgres")).await.unwrap();
        sqlx::query(sqlx::AssertSqlSafe(statement.to_owned())).execute(&mut connection).await.unwrap();
    }

    /// Stops the server as an operator would in a hurry; connections are broken off.
    pub fn stop(&self) {
        run(as_postgres(&self.bin.join("pg_ctl")).args(["stop", "-m", "immediate", "-w", "-D"]).arg(&self.data));
    }

    /// Starts it again on the same port and data.
    pub async fn start_again(&self) {
        let options = format!(
            "-p {} -k {} -c listen_addresses=127.0.0.1 -c fsync=off",
            self.port,
            self.data.parent().unwrap().display()
        );
        let mut start = as_postgres(&self.bin.join("pg_ctl"));
        start
            .args(["start", "-w", "-s", "-o", &options, "-l"])
            .arg(self.data.with_file_name("log2"))
            .arg("-D")
            .arg(&self.data);
        run(start.stdout(Stdio::null()).stderr(Stdio::null()));
        self.wait().await;
    }

    /// Makes every process of the server hang until the answer is dropped.
    pub fn pause(&self) -> Paused<'_> {
        self.signal("STOP");
        Paused(self)
    }

    fn signal(&self, name: &str) {
        let pid_file = std::fs::read_to_string(self.data.join("postmaster.pid")).unwrap();
        let postmaster = pid_file.lines().next().unwrap().to_owned();
        let children = Command::new("ps").args(["-o", "pid=", "--ppid", &postmaster]).output().unwrap();
        let children = String::from_utf8(children.stdout).unwrap();
        let mut kill = Command::new("kill");
        kill.arg(format!("-{name}")).arg(&postmaster).args(children.split_whitespace());
        // A child may have ended meanwhile: the others have the signal all the same.
        kill.stderr(Stdio::null()).status().unwrap();
    }

    /// Asks a role for its password from now on; the cluster trusts everybody else.
    pub async fn require_password(&self, role: &str) {
        let path = self.data.join("pg_hba.conf");
        let rules = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("host all {role} 127.0.0.1/32 scram-sha-256\n{rules}")).unwrap();
        self.sql("SELECT pg_reload_conf()").await;
    }

    async fn wait(&self) {
        let started = Instant::now();
        while PgConnection::connect(&self.url("postgres")).await.is_err() {
            assert!(started.elapsed() < Duration::from_secs(30), "Postgres didn't start: {}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn log(&self) -> String {
        let mut text = String::new();
        if let Ok(mut file) = std::fs::File::open(self.data.with_file_name("log")) {
            let _ = file.read_to_string(&mut text);
        }
        text
    }
}

/// A server that hangs; it goes on when this is dropped.
pub struct Paused<'a>(&'a Postgres);

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        self.0.signal("CONT");
    }
}

/// A port that was free a moment ago, and that no other caller in this process gets. Below the range from which the system
/// takes the ports of outgoing connections, so that nobody takes it by chance.
pub fn free_port() -> u16 {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 22_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Another run of the tests begins elsewhere.
    let start = std::process::id().wrapping_mul(977) % COUNT;
    loop {
        let offset = (start + NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = u16::try_from(FIRST + offset).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

pub fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout.trim_ascii() == b"0"
}

fn as_postgres(program: &Path) -> Command {
    if is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(program);
        command.current_dir("/");
        command
    } else {
        Command::new(program)
    }
}

fn shell_words(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| format!("'{}'", word.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// `TEST_PG_BIN`, then the PATH, then where `pg_config` says, then where distributions put them.
fn binaries() -> PathBuf {
    let has = |dir: &PathBuf| dir.join("initdb").is_file() && dir.join("postgres").is_file();
    let mut places: Vec<PathBuf> = std::env::var_os("TEST_PG_BIN").map(PathBuf::from).into_iter().collect();
    places.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        places.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    for (parent, rest) in [("/usr/lib/postgresql", "bin"), ("/usr", "bin")] {
        let mut found: Vec<PathBuf> =
            std::fs::read_dir(parent).into_iter().flatten().flatten().map(|entry| entry.path().join(rest)).collect();
        found.sort();
        places.extend(found.into_iter().rev());
    }
    places.into_iter().find(has).expect(
        "no PostgreSQL server binaries (initdb, postgres) were found: install them (Debian: apt-get install postgresql), or set TEST_PG_BIN",
    )
}
