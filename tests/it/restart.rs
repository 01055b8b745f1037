//! One process takes another's place while clients come all the time: none is refused, none is reset, all are answered.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cutover::side::Side;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::support::conn::Conn;
use crate::support::process::{Process, ended, serving};
use crate::support::upstream::Upstream;
use crate::support::world::{ANON_OLD, World};
use crate::support::{eventually, within};

/// Clients with a connection for each request.
const CLIENTS: usize = 6;
/// Requests that have to be answered before and after each step.
const BETWEEN: usize = 200;

/// Two sides, and the settings of every process that serves between them.
struct Place {
    old: Upstream,
    new: Upstream,
}

impl Place {
    async fn new() -> Self {
        Self { old: Upstream::start(Side::Old).await, new: Upstream::start(Side::New).await }
    }

    /// Settings for a process that listens here.
    fn settings(&self, listen: &str, admin: &str) -> TempDir {
        let setup = World::start()
            .set("listen", &format!("{listen:?}"))
            .set("admin.listen", &format!("{admin:?}"))
            .set("workers", "2")
            .set("log.format", "\"json\"");
        setup.write(&self.old, &self.new).0
    }
}

/// The proxy says goodbye for half a second (`FAREWELL`). A client that stood still as long was not told, and its closed connection is right.
const STOOD_STILL: Duration = Duration::from_millis(400);

/// What became of the clients' requests.
#[derive(Default)]
struct Tally {
    answered: AtomicUsize,
    /// Those of clients that keep their connection, as long as the proxy does.
    kept: AtomicUsize,
    faults: Mutex<Vec<String>>,
    longest: Mutex<Duration>,
}

impl Tally {
    fn took(&self, time: Duration) {
        let mut longest = self.longest.lock().unwrap();
        *longest = longest.max(time);
    }
}

/// Clients that ask all the time.
struct Load {
    tally: Arc<Tally>,
    stop: watch::Sender<bool>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    fn on(address: SocketAddr) -> Self {
        let (tally, (stop, stopped)) = (Arc::<Tally>::default(), watch::channel(false));
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let (tally, stopped) = (Arc::clone(&tally), stopped.clone());
            clients.push(tokio::spawn(async move {
                while !*stopped.borrow() {
                    let begun = Instant::now();
                    match within("an answer", ask(address)).await {
                        Ok(true) => _ = tally.answered.fetch_add(1, Relaxed),
                        Ok(false) => {}
                        Err(error) => tally.faults.lock().unwrap().push(error.to_string()),
                    }
                    tally.took(begun.elapsed());
                    // Steady, not as fast as can be: the machine has other tests to run.
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            }));
        }
        let (keeping, stopped) = (Arc::clone(&tally), stopped);
        clients.push(tokio::spawn(async move { keeps(address, &keeping, &stopped).await }));
        Self { tally, stop, clients }
    }

    /// Waits until some more requests were answered.
    async fn goes_on(&self) {
        let before = self.tally.answered.load(Relaxed);
        eventually("more answers", async || {
            self.tally.answered.load(Relaxed) >= before + BETWEEN
                || !self.tally.faults.lock().unwrap().is_empty()
        })
        .await;
    }

    /// Ends it; nothing may have failed.
    #[expect(clippy::print_stdout, reason = "figures, for whoever asks for them")]
    async fn ends(self, what: &str) {
        self.stop.send_replace(true);
        for client in self.clients {
            within("the last answer", client).await.unwrap();
        }
        let (answered, kept) = (self.tally.answered.load(Relaxed), self.tally.kept.load(Relaxed));
        let faults = self.tally.faults.lock().unwrap();
        let longest = *self.tally.longest.lock().unwrap();
        println!(
            "{what}: {answered} requests on connections of their own and {kept} on kept ones, {} failed, the longest took {longest:?}",
            faults.len()
        );
        assert!(faults.is_empty(), "{} of {answered}: {faults:?}", faults.len());
        assert!(kept > 0);
    }
}

fn request(more: &str) -> String {
    format!("GET /rest/v1/todos HTTP/1.1\r\nhost: a\r\napikey: {ANON_OLD}\r\n{more}\r\n")
}

/// One request on a connection of its own; whether it was answered. Nobody has to answer what came so late.
async fn ask(address: SocketAddr) -> io::Result<bool> {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(address).await?;
    let written = stream.write_all(request("connection: close\r\n").as_bytes()).await;
    let is_late = begun.elapsed() >= STOOD_STILL;
    let mut answer = Vec::new();
    let read = match written {
        Ok(()) => stream.read_to_end(&mut answer).await.map(|_| ()),
        Err(error) => Err(error),
    };
    if is_late && answer.is_empty() {
        return Ok(false);
    }
    read?;
    let is_whole = answer.starts_with(b"HTTP/1.1 200 ") && answer.ends_with(b"{\"side\":\"old\"}");
    let said = || io::Error::other(String::from_utf8_lossy(&answer).into_owned());
    if is_whole { Ok(true) } else { Err(said()) }
}

/// Request after request on one connection, and on another when the proxy says that it closes this one, or did not
/// get to say so. Whatever else happens is a panic.
async fn keeps(address: SocketAddr, tally: &Tally, stopped: &watch::Receiver<bool>) {
    while !*stopped.borrow() {
        let mut heard = Instant::now();
        let mut conn = Conn::open(address).await;
        while !*stopped.borrow() {
            let answer = match within("a request", conn.try_send(request(""))).await {
                true => within("an answer", conn.try_answer_to("GET")).await,
                false => None,
            };
            let Some(answer) = answer else {
                let silent = heard.elapsed();
                assert!(silent >= STOOD_STILL, "closed without a word after {silent:?}");
                break;
            };
            heard = Instant::now();
            answer.served_by(Side::Old);
            tally.kept.fetch_add(1, Relaxed);
            if answer.header("connection") == Some("close") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

async fn stops(mut process: Process) {
    process.terminate();
    let status = process.ends().await;
    assert_eq!(status.code(), Some(0), "{}", process.output());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_takes_over_the_port_of_another() {
    let place = Place::new().await;
    let mut running = Process::serve(place.settings("127.0.0.1:0", "127.0.0.1:0").path()).await;
    let (address, admin) = (running.address, running.admin);
    let settings = place.settings(&address.to_string(), &admin.to_string());
    let load = Load::on(address);
    load.goes_on().await;
    for _ in 0..5 {
        let mut command = serving(settings.path());
        command.arg("--take-over");
        let next = Process::start(command).await;
        assert_eq!((next.address, next.admin), (address, admin));
        load.goes_on().await;
        stops(std::mem::replace(&mut running, next)).await;
        load.goes_on().await;
    }
    load.ends("taken over 5 times").await;
}

#[tokio::test]
async fn a_second_process_started_by_mistake_gets_no_client() {
    let place = Place::new().await;
    let first = Process::serve(place.settings("127.0.0.1:0", "127.0.0.1:0").path()).await;
    for (listen, admin) in [
        (first.address.to_string(), "127.0.0.1:0".to_owned()),
        ("127.0.0.1:0".to_owned(), first.admin.to_string()),
    ] {
        let settings = place.settings(&listen, &admin);
        let output = ended(&mut serving(settings.path()));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("in use") && said.contains("--take-over"), "{said}");
    }
    assert!(ask(first.address).await.unwrap());
    let strange = TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = place.settings(&strange.local_addr().unwrap().to_string(), "127.0.0.1:0");
    let output = ended(serving(settings.path()).arg("--take-over"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("another program has it"), "{said}");
}

/// Sockets that are held as systemd holds them: by nobody who serves.
struct Held {
    listen: TcpListener,
    admin: TcpListener,
}

impl Held {
    fn new() -> Self {
        let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
        Self { listen: bind(), admin: bind() }
    }

    /// `cutover serve` with both sockets as descriptors 3 and 4, and what systemd says of them.
    fn serving(&self, folder: &Path) -> Command {
        let given = |socket: &TcpListener| Stdio::from(OwnedFd::from(socket.try_clone().unwrap()));
        let usual = serving(folder);
        let mut command = Command::new("/bin/sh");
        command
            .args([
                "-c",
                "export LISTEN_PID=$$; exec \"$0\" \"$@\" 3<&0 4<&1 0</dev/null 1>/dev/null",
            ])
            .arg(usual.get_program())
            .args(usual.get_args())
            .current_dir(folder)
            .env_clear()
            .env("LISTEN_FDS", "2")
            .env("LISTEN_FDNAMES", "listen:admin.listen")
            .env("NOTIFY_SOCKET", folder.join("notify"))
            .stdin(given(&self.listen))
            .stdout(given(&self.admin))
            .stderr(Stdio::piped());
        command
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_that_are_handed_in_outlive_every_process() {
    let (place, held) = (Place::new().await, Held::new());
    // What the settings say of addresses does not count.
    let settings = place.settings("127.0.0.1:1", "127.0.0.1:2");
    let manager = UnixDatagram::bind(settings.path().join("notify")).unwrap();
    let hears = || {
        let mut bytes = [0; 64];
        let length = manager.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    let mut running = Process::start(held.serving(settings.path())).await;
    assert_eq!(running.address, held.listen.local_addr().unwrap());
    assert_eq!(running.admin, held.admin.local_addr().unwrap());
    assert_eq!(hears(), "READY=1");
    let load = Load::on(running.address);
    load.goes_on().await;
    // Side by side, as two instances of a unit.
    for _ in 0..4 {
        let next = Process::start(held.serving(settings.path())).await;
        assert_eq!(hears(), "READY=1");
        load.goes_on().await;
        stops(std::mem::replace(&mut running, next)).await;
        assert_eq!(hears(), "STOPPING=1");
        load.goes_on().await;
    }
    // One after the other, as `systemctl restart` does: whoever comes meanwhile waits.
    for _ in 0..2 {
        stops(running).await;
        running = Process::start(held.serving(settings.path())).await;
        assert_eq!((hears(), hears()), ("STOPPING=1".to_owned(), "READY=1".to_owned()));
        load.goes_on().await;
    }
    load.ends("handed in, 4 restarts side by side and 2 one after the other").await;
}

/// The units that are shipped hand the sockets in by the names that are asked for, and start what there is.
#[test]
fn the_units_fit_the_program() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    let mut sockets = Vec::new();
    let mut services = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let values = |key: &str| -> Vec<String> {
            let start = format!("{key}=");
            text.lines().filter_map(|line| line.strip_prefix(&start)).map(str::to_owned).collect()
        };
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.ends_with(".socket") {
            let [known] = &values("FileDescriptorName")[..] else { panic!("{name}") };
            assert!(["listen", "tls.listen", "admin.listen"].contains(&known.as_str()), "{known}");
            assert_eq!(values("Service"), ["cutover@a.service"]);
            sockets.push(name);
        } else {
            assert_eq!(values("Type"), ["notify"], "{name}");
            let [start] = &values("ExecStart")[..] else { panic!("{name}") };
            assert!(start.contains("/cutover serve --config "), "{start}");
            services.push((name, values("Sockets").join(" ")));
        }
    }
    sockets.sort();
    services.sort();
    let names: Vec<_> = services.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["cutover.service", "cutover@.service"]);
    for (name, named) in &services {
        let mut named: Vec<_> = named.split(' ').collect();
        named.sort_unstable();
        assert_eq!(named, sockets, "{name}");
    }
}
