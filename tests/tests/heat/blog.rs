//! Two servers with an engine each, in networks of their own: what the one tells by its signal, the other is
//! given as user data.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Error, Result, ensure};
use e2e::agent::{Instance, Ran};
use e2e::engine::{Engine, Kind};
use e2e::heat::{Stack, script};
use e2e::lan::Lan;
use e2e::proxy::CuttingProxy;
use e2e::{neutron, programs, wait};
use reqwest::blocking::Client;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::examples::create_with;
use crate::stage::{END_LIMIT, Scene, Stage};

pub(crate) fn scenes() -> Vec<Scene> {
    vec![Scene::new("blog::two_servers_are_one_blog", two_servers)]
}

/// A page that is made from a database, on two busy cores.
const PAGE_LIMIT: Duration = Duration::from_secs(60);

/// Both servers' network, and somebody in it who opens pages. A thread of its own lives there.
struct Outside {
    servers: Vec<(String, String)>,
    urls: Option<Sender<String>>,
    pages: Receiver<Result<(u16, String)>>,
    thread: Option<JoinHandle<()>>,
}

impl Outside {
    fn make(n_servers: usize) -> Result<Outside> {
        let (urls, asked) = channel::<String>();
        let (answers, pages) = channel();
        let (made, is_made) = channel();
        let thread = thread::spawn(move || {
            let lan = match Lan::enter(n_servers) {
                Ok(lan) => lan,
                Err(error) => return drop(made.send(Err(error))),
            };
            let server = |index| (lan.name(index).to_owned(), lan.address(index));
            let _listened_to = made.send(Ok((0..n_servers).map(server).collect()));
            while let Ok(url) = asked.recv() {
                let _listened_to = answers.send(open(&url));
            }
        });
        let servers = is_made.recv()??;
        Ok(Outside { servers, urls: Some(urls), pages, thread: Some(thread) })
    }

    /// A page as somebody in the servers' network sees it.
    fn page(&self, url: &str) -> Result<(u16, String)> {
        self.urls.as_ref().context("the network is gone")?.send(url.to_owned())?;
        self.pages.recv()?
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        drop(self.urls.take());
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

fn open(url: &str) -> Result<(u16, String)> {
    let client = Client::builder().timeout(PAGE_LIMIT).build()?;
    let response = client.get(url).send()?;
    Ok((response.status().as_u16(), response.text()?))
}

/// A server: a network namespace with an engine, and a way to the relay.
struct Server {
    address: String,
    engine: Engine,
    /// Runs the agent in the namespace.
    agent: PathBuf,
    _directory: TempDir,
}

impl Server {
    fn boot(name: &str, address: &str, relay: &str) -> Result<Server> {
        ip(&["-n", name, "route", "add", "default", "via", "10.99.0.1"])?;
        // What an engine does that may see to the firewall: containers speak with the server's address.
        let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward";
        ip(&["netns", "exec", name, "sh", "-c", forward])?;
        let masquerade = "iptables -w -t nat -A POSTROUTING -o lan -j MASQUERADE";
        ip(&["netns", "exec", name, "sh", "-c", masquerade])?;

        let relay = relay.trim_start_matches("http://").to_owned();
        let (namespace, door) = (name.to_owned(), relay.clone());
        let inside = thread::spawn(move || -> Result<(Engine, TcpListener)> {
            neutron::enter(&namespace)?;
            Ok((Engine::start(Kind::Docker, &[])?, TcpListener::bind(door)?))
        });
        let (engine, listener) = inside.join().map_err(|_| Error::msg("a server panicked"))??;
        CuttingProxy::start_on(listener, &relay);

        let directory = TempDir::new()?;
        let agent = directory.path().join("agent");
        let program = programs::heliograph_agent()?;
        fs::write(
            &agent,
            format!("#!/bin/sh\nexec ip netns exec {name} {} \"$@\"\n", program.display()),
        )?;
        fs::set_permissions(&agent, fs::Permissions::from_mode(0o755))?;
        Ok(Server { address: address.to_owned(), engine, agent, _directory: directory })
    }

    fn run(&self, id: &str, user_data: &Value) -> Result<Ran> {
        let user_data = user_data.as_str().with_context(|| format!("user data is {user_data}"))?;
        Instance::new(id, &self.engine.url(), user_data)?.with_program(&self.agent).run()
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output()?;
    ensure!(output.status.success(), "ip {arguments:?}: {output:?}");
    Ok(())
}

/// The images' root file systems, which are built once for all runs: that of both servers, and that of
/// nginx alone.
struct Images {
    directory: PathBuf,
}

impl Images {
    fn built() -> Result<Images> {
        let directory = programs::target_directory()?.join("blog");
        let output = script("blog/build").arg(&directory).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "blog/build ended with {}: {said}", output.status);
        Ok(Images { directory })
    }

    fn open(&self, name: &str) -> Result<File> {
        Ok(File::open(self.directory.join(name))?)
    }
}

fn two_servers(stage: &Stage) -> Result<()> {
    let images = Images::built()?;
    let _turn = stage.together();
    let cloud = stage.cloud()?;
    let user = cloud.lab.user("demo")?;
    let outside = Outside::make(2)?;
    let [database, blog] = &outside.servers[..] else { return Err(Error::msg("no two servers")) };
    let relay = cloud.relay.public();
    let database = Server::boot(&database.0, &database.1, &relay)?;
    let blog = Server::boot(&blog.0, &blog.1, &relay)?;
    database.engine.import_file("mariadb", images.open("images.tar")?, "database")?;
    blog.engine.import_file("wordpress", images.open("images.tar")?, "blog")?;
    blog.engine.import_file("nginx", images.open("nginx.tar")?, "pages")?;

    let stack = create_with(&user, "wordpress", &json!({}))?;
    run_well(&stack, &database, "database")?;
    run_well(&stack, &blog, "blog")?;
    stack.completed(END_LIMIT)?;
    let told = stack.json_output("database")?;
    ensure!(told["database"]["logs_head"] == "database blog of blog begins", "{told}");
    let data = stack.json_output("data")?;
    ensure!(data["blog"]["host_ip"] == blog.address, "{data}");
    let url = format!("http://{}/", blog.address);
    let (status, page) = outside.page(&url)?;
    ensure!(
        status == 200 && page.contains("<title>A blog of two servers</title>"),
        "{status} {page}"
    );
    // It is the database that the page comes from.
    drop(database);
    let (status, page) = outside.page(&url)?;
    ensure!(status == 500, "without its database the blog answers {status} {page}");
    stack.delete()?;
    web_server(stage, &blog, &outside)
}

fn run_well(stack: &Stack, server: &Server, resource: &str) -> Result<()> {
    stack.made(resource)?;
    let user_data = stack.attribute(resource, "user_data")?;
    let ran = server.run(resource, &user_data)?;
    ensure!(ran.status.success(), "{resource}: {}{}", ran.status, ran.last_words);
    Ok(())
}

/// The example of a web server as it is, on the same machine, whose other container goes.
fn web_server(stage: &Stage, server: &Server, outside: &Outside) -> Result<()> {
    let user = stage.cloud()?.lab.user("demo")?;
    let stack = create_with(&user, "web-server", &json!({}))?;
    stack.completed(END_LIMIT)?;
    let user_data = stack.attribute("server", "user_data")?;
    let user_data = user_data.as_str().context("no user data")?;
    // The second one as Heat's Docker plugin spelled it.
    for ports in ["ports:", "port_specs:"] {
        let user_data = user_data.replace("\nports:", &format!("\n{ports}"));
        ensure!(user_data.contains(ports), "the example has no ports: {user_data}");
        let _turn = server.engine.turn()?;
        let ran = server.run("web-server", &Value::from(user_data))?;
        ensure!(ran.status.success(), "{ports} {}{}", ran.status, ran.last_words);
        wait::until("the page", END_LIMIT, || {
            let opened = outside.page(&format!("http://{}/", server.address));
            Ok(opened.ok().filter(|(status, page)| {
                *status == 200 && page.contains("<h1>Welcome to nginx!</h1>")
            }))
        })?;
    }
    stack.delete()
}
