//! A real PostgreSQL as an app with a volume, and another app that reaches it by its name: over redeploys, restarts and a crash of either.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use berth_acceptance::{Answer, Api, Options, Platform, exchange, wait_until};
use rustix::process::Signal;

const PATIENCE: Duration = Duration::from_secs(180);

/// What runs the server: a cluster is made in the volume the first time.
const DATABASE: &str = r#"#!/bin/sh
set -e
cluster="$VOLUME_DATA/cluster"
if [ ! -s "$cluster/PG_VERSION" ]; then
    rm -rf "$cluster"
    printf '%s' "$DB_PASSWORD" > /tmp/password
    "$PG/initdb" --pgdata "$cluster" --username app --pwfile /tmp/password --auth scram-sha-256 --encoding UTF8 --locale C
    rm /tmp/password
fi
exec "$PG/postgres" -D "$cluster" -p "$PORT" -h 127.0.0.1 -k /tmp
"#;

/// The other app: it hands what it is asked for, as `/HOST/SQL`, to psql, which is libpq.
const CLIENT: &str = r#"#!/usr/bin/python3
import http.server, os, subprocess, urllib.parse

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        _, host, sql = urllib.parse.unquote(self.path).split("/", 2)
        word = {"PGPASSWORD": os.environ["DB_PASSWORD"]}
        command = [os.environ["PG"] + "/psql", "-h", host, "-p", "5432", "-U", "app", "-d", "postgres"]
        done = subprocess.run(command + ["-v", "ON_ERROR_STOP=1", "-qAtX"], input=sql, capture_output=True, text=True, env={**os.environ, **word})
        body = (done.stdout if done.returncode == 0 else "failed: " + done.stderr).strip().encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"#;

/// The programs of the newest PostgreSQL that the machine has.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    folders.retain(|folder| ["postgres", "initdb", "psql"].iter().all(|it| folder.join(it).is_file()));
    folders.sort();
    folders.pop()
}

struct App<'p> {
    platform: &'p Platform,
    name: &'static str,
    folder: PathBuf,
}

impl<'p> App<'p> {
    fn new(
        api: &Api,
        platform: &'p Platform,
        name: &'static str,
        script: &str,
        pg: &Path,
        more: &str,
    ) -> Self {
        let folder = platform.scratch().join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("start"), script).unwrap();
        fs::set_permissions(folder.join("start"), fs::Permissions::from_mode(0o755)).unwrap();
        let manifest = format!(
            "app = \"{name}\"\n[processes]\nweb = \"./start\"\n[env]\nPG = \"{}\"\n[deploy]\nwarm = \"0s\"\n\
             [[http.checks]]\ntype = \"readiness\"\ngrace = \"3m\"\n{more}",
            pg.display()
        );
        fs::write(folder.join("berth.toml"), manifest).unwrap();
        let made = api.ask(
            "POST",
            "/api/v1/tenants/default/projects/default/apps",
            format!("{{\"name\": \"{name}\"}}").as_bytes(),
        );
        assert_eq!(made.status, 201, "{}", made.text());
        let secrets = folder.join("../secrets.env");
        fs::write(&secrets, "DB_PASSWORD=not-for-everybody\n").unwrap();
        let app = Self { platform, name, folder };
        let _set = app.verb(&["secrets", "import", secrets.to_str().unwrap()]).ok();
        app
    }

    fn verb(&self, words: &[&str]) -> Answer {
        self.platform.cli_in(&self.folder, words)
    }

    fn deploy(&self) {
        let _released = self.verb(&["deploy"]).ok();
    }

    /// What the statements give at the database `host`, said by this app.
    fn sql(&self, host: &str, statements: &str) -> String {
        let text: String = statements.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let request = format!(
            "GET /{host}/{text} HTTP/1.1\r\nHost: {}.localhost\r\nConnection: close\r\n\r\n",
            self.name
        );
        exchange(self.platform.edge(), request.as_bytes())
            .map_or_else(|error| error.to_string(), |reply| reply.text())
    }

    /// The process of its one instance.
    fn pid(&self) -> Option<u32> {
        let listed = self.verb(&["ps", "--json"]).ok().json();
        listed["instances"][0]["pid"].as_u64()?.try_into().ok()
    }
}

const DB: &str = "db.internal";
const COUNT: &str = "select count(*) from orders;";
const ORDER: &str = "begin; insert into orders (what) values ('one'); insert into lines values (currval('orders_id_seq'), 2); commit; select 'done';";

/// Orders one after another until `until` is over, and gives how many were confirmed and how many were not.
fn ordering<T: Send>(shop: &App<'_>, until: impl FnOnce() -> T + Send) -> (usize, Vec<String>) {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let doing = scope.spawn(|| {
            until();
            is_over.store(true, Ordering::Relaxed);
        });
        let (mut confirmed, mut failed) = (0, Vec::new());
        while !doing.is_finished() || confirmed == 0 {
            match shop.sql(DB, ORDER) {
                said if said == "done" => confirmed += 1,
                said => failed.push(said),
            }
            assert!(failed.len() < 10_000, "{failed:?}");
        }
        doing.join().unwrap();
        (confirmed, failed)
    })
}

#[test]
fn a_database_is_reached_by_its_name_and_keeps_what_it_was_given() {
    let Some(pg) = programs() else {
        return println!("!! NOT TESTED: there is no PostgreSQL: apt-get install postgresql");
    };
    let platform = Platform::start(Options::default());
    if platform.cli(["status", "--json"]).ok().json()["names"] != true {
        return println!("!! NOT TESTED: this platform has no names of apps");
    }
    let volume = "[http]\nport = 5432\n[shutdown]\nsignal = \"SIGINT\"\ndrain = \"2s\"\n[network]\negress = \"none\"\n\
        [[volumes]]\nname = \"data\"\npath = \"/data\"\n";
    let api = Api::of(&platform);
    let db = App::new(&api, &platform, "db", DATABASE, &pg, volume);
    db.deploy();
    let shop = App::new(&api, &platform, "shop", CLIENT, &pg, "[network]\negress = \"internal\"\n");
    shop.deploy();
    let is_up = || shop.sql(DB, "select 'up';") == "up";
    assert!(wait_until(PATIENCE, is_up), "{}", shop.sql(DB, "select 'up';"));
    let made = shop.sql(
        DB,
        "create table orders (id serial primary key, what text); create table lines (order_id int references orders, pieces int); select 'made';",
    );
    assert_eq!(made, "made");

    // A transaction is whole or not at all.
    assert_eq!(shop.sql(DB, ORDER), "done");
    let half = shop.sql(
        DB,
        "begin; insert into orders (what) values ('half'); insert into lines values (0, 1); commit;",
    );
    assert!(half.starts_with("failed: ") && half.contains("foreign key"), "{half}");
    assert_eq!(shop.sql(DB, COUNT), "1");

    // While its client is redeployed not one order is lost.
    let (confirmed, failed) = ordering(&shop, || {
        shop.deploy();
        shop.deploy();
    });
    assert!(failed.is_empty(), "{failed:?}");
    let mut least = 1 + confirmed;
    assert_eq!(shop.sql(DB, COUNT), least.to_string());

    // While the database itself is exchanged some may fail; what was confirmed is there, and nothing twice.
    let (confirmed, failed) = ordering(&shop, || db.deploy());
    assert!(wait_until(PATIENCE, is_up), "{failed:?}");
    let count = |shop: &App<'_>| shop.sql(DB, COUNT).parse::<usize>().unwrap();
    least += confirmed;
    assert!((least..=least + failed.len()).contains(&count(&shop)), "{least} {} {failed:?}", count(&shop));
    least = count(&shop);

    // The same when it is killed in the midst of its work.
    let before = db.pid().unwrap();
    let (confirmed, failed) = ordering(&shop, || {
        platform.signal(before, Signal::KILL);
        assert!(wait_until(PATIENCE, || db.pid().is_some_and(|pid| pid != before)));
    });
    assert!(wait_until(PATIENCE, is_up), "{failed:?}");
    least += confirmed;
    assert!((least..=least + failed.len()).contains(&count(&shop)), "{least} {} {failed:?}", count(&shop));
    assert_eq!(shop.sql(DB, "select count(*) from lines;"), count(&shop).to_string());

    strangers_do_not_reach_it(&api, &shop, &pg);
}

/// Neither by its name nor by its address: not from another platform of the machine, and not from where nothing may be reached.
fn strangers_do_not_reach_it(api: &Api, shop: &App<'_>, pg: &Path) {
    let hosts = shop.verb(&["run", "--", "cat", "/etc/hosts"]).ok().stdout;
    let line = hosts.lines().find(|line| line.contains(DB)).unwrap();
    let address = line.split_whitespace().next().unwrap().to_owned();
    assert_eq!(shop.sql(&address, "select 'by address';"), "by address");
    let cut_off = App::new(api, shop.platform, "cut-off", CLIENT, pg, "[network]\negress = \"none\"\n");
    cut_off.deploy();
    let other = Platform::start(Options::default());
    let stranger = App::new(&Api::of(&other), &other, "stranger", CLIENT, pg, "");
    stranger.deploy();
    for app in [&cut_off, &stranger] {
        for host in [DB, &address] {
            let said = app.sql(host, "select 'in';");
            assert!(said.starts_with("failed: "), "{} at {host}: {said}", app.name);
        }
    }
}
