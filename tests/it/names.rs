//! Names behind: addresses that change, that lead nowhere, and name servers that are away, while the proxy runs.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use cutover::side::Side;
use socket2::{Domain, Socket, Type};

use crate::support::fault::Faulty;
use crate::support::world::{Setup, World};
use crate::support::{PATIENCE, eventually, within};

/// What a name server says of the name of new.
#[derive(Clone, Debug)]
enum Says {
    These(Vec<IpAddr>),
    Unknown,
    /// Nothing, until it says something else.
    Nothing,
}

/// A name server.
#[derive(Clone)]
struct NameServer {
    says: Arc<(Mutex<Says>, Condvar)>,
    asked: Arc<AtomicUsize>,
}

impl NameServer {
    fn new(addresses: &[IpAddr]) -> Self {
        let says = Mutex::new(Says::These(addresses.to_vec()));
        Self { says: Arc::new((says, Condvar::new())), asked: Arc::default() }
    }

    fn says(&self, says: Says) {
        *self.says.0.lock().unwrap() = says;
        self.says.1.notify_all();
    }

    fn ask(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        assert_eq!(name, "new.example");
        self.asked.fetch_add(1, SeqCst);
        let (says, changed) = &*self.says;
        let mut says = says.lock().unwrap();
        loop {
            match &*says {
                Says::These(addresses) => return Ok(addresses.clone()),
                Says::Unknown => return Err(io::Error::other("no such name")),
                Says::Nothing => says = changed.wait(says).unwrap(),
            }
        }
    }

    fn asked(&self) -> usize {
        self.asked.load(SeqCst)
    }
}

/// Frees the threads that wait for it.
impl Drop for NameServer {
    fn drop(&mut self) {
        // The resolver has one for itself, and the test another.
        if Arc::strong_count(&self.says) == 2 {
            self.says(Says::Unknown);
        }
    }
}

/// Everybody on new, which has a name.
fn world(server: &NameServer, port: u16) -> Setup {
    let server = server.clone();
    World::start()
        .rollout(100)
        .set("workers", "1")
        .set("rollout.anonymous", "\"old\"")
        .set("projects.new.url", &format!("\"http://new.example:{port}\""))
        .set("upstream.connect_timeout", "\"3s\"")
        .names(move |name| server.ask(name))
}

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const NOWHERE: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// An address on which connections are neither taken nor refused: its backlog is full.
struct Deaf {
    _listener: Socket,
    _waiting: Vec<Socket>,
}

impl Deaf {
    fn on(address: SocketAddr) -> Self {
        let domain = Domain::for_address(address);
        let open = || {
            let socket = Socket::new(domain, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        };
        let listener = open();
        listener.set_reuse_address(true).unwrap();
        listener.bind(&address.into()).unwrap();
        listener.listen(0).unwrap();
        let waiting: Vec<_> = (0..4).map(|_| open()).collect();
        for socket in &waiting {
            // In progress, or waiting for ever.
            socket.connect(&address.into()).ok();
        }
        Self { _listener: listener, _waiting: waiting }
    }
}

async fn reaches(world: &World, faulty: &Faulty) {
    let before = faulty.seen().len();
    let answer = world.as_user("ada").get("/rest/v1/todos").await;
    answer.served_by(Side::New);
    assert_eq!(faulty.seen().len(), before + 1, "another one answered");
}

#[tokio::test]
async fn a_new_address_is_used_when_the_old_one_fails() {
    let first = Faulty::start(Side::New);
    let second = Faulty::start_on(Side::New, SocketAddr::new(THERE, first.address.port()));
    let server = NameServer::new(&[HERE]);
    let world = world(&server, first.address.port()).await;
    for _ in 0..5 {
        reaches(&world, &first).await;
        first.hangs_up().await;
    }
    assert_eq!(server.asked(), 1, "an answer is remembered");
    // It moves, and what was there before is gone.
    server.says(Says::These(vec![THERE]));
    first.refuses().await;
    first.hangs_up().await;
    for method in ["POST", "GET"] {
        let answer = world.as_user("ada").ask(method, "/rest/v1/todos", None).await;
        answer.served_by(Side::New);
    }
    assert_eq!((second.seen().len(), server.asked()), (2, 2));
}

#[tokio::test]
async fn a_new_address_is_used_after_a_while_though_the_old_one_still_answers() {
    let first = Faulty::start(Side::New);
    let second = Faulty::start_on(Side::New, SocketAddr::new(THERE, first.address.port()));
    let server = NameServer::new(&[HERE]);
    let world =
        world(&server, first.address.port()).set("upstream.connection_lifetime", "\"1s\"").await;
    reaches(&world, &first).await;
    server.says(Says::These(vec![THERE]));
    let user = world.as_user("ada");
    eventually("the new address", async || {
        user.get("/rest/v1/todos").await.served_by(Side::New);
        !second.seen().is_empty()
    })
    .await;
    reaches(&world, &second).await;
}

#[tokio::test]
async fn an_address_that_refuses_costs_nothing() {
    let well = Faulty::start(Side::New);
    // Nobody listens on the first two.
    let server = NameServer::new(&[NOWHERE, THERE, HERE]);
    let world = world(&server, well.address.port()).await;
    world.as_user("ada").post("/rest/v1/todos", "{}").await.served_by(Side::New);
    assert_eq!(well.seen().len(), 1);
}

#[tokio::test]
async fn an_address_that_hangs_costs_its_head_start_once() {
    for addresses in [vec![NOWHERE, HERE], vec![NOWHERE, THERE, HERE]] {
        let well = Faulty::start(Side::New);
        let port = well.address.port();
        let dead = &addresses[..addresses.len() - 1];
        let deaf: Vec<_> =
            dead.iter().map(|address| Deaf::on(SocketAddr::new(*address, port))).collect();
        let server = NameServer::new(&addresses);
        let world = world(&server, port).await;
        let begun = Instant::now();
        reaches(&world, &well).await;
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(250) * dead.len() as u32, "too early: {took:?}");
        // What led nowhere comes last, even when it leads somewhere again.
        drop(deaf);
        let other = Faulty::start_on(Side::New, SocketAddr::new(NOWHERE, port));
        well.hangs_up().await;
        reaches(&world, &well).await;
        assert!(other.seen().is_empty());
    }
}

#[tokio::test]
async fn where_all_addresses_hang_it_is_502_in_the_connect_timeout() {
    // It keeps the port, and nobody listens on it.
    let place = Faulty::start(Side::New);
    place.refuses().await;
    let port = place.address.port();
    let _deaf = [NOWHERE, THERE].map(|address| Deaf::on(SocketAddr::new(address, port)));
    let server = NameServer::new(&[NOWHERE, THERE]);
    let world = world(&server, port).set("upstream.connect_timeout", "\"300ms\"").await;
    let begun = Instant::now();
    world.as_user("ada").post("/rest/v1/todos", "{}").await.refused(502, "CUT502");
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(300) && took < PATIENCE / 2, "{took:?}");
    // The addresses are doubted: the next one asks again, and finds the one that is well.
    let well = Faulty::start_on(Side::New, SocketAddr::new(HERE, port));
    server.says(Says::These(vec![HERE]));
    // Which may take its time.
    world.change("upstream.connect_timeout", "\"10s\"").await;
    reaches(&world, &well).await;
}

#[tokio::test]
async fn a_name_server_that_is_away_is_not_noticed_where_addresses_are_known() {
    let well = Faulty::start(Side::New);
    let server = NameServer::new(&[HERE]);
    let world = world(&server, well.address.port()).await;
    reaches(&world, &well).await;
    for away in [Says::Unknown, Says::Nothing] {
        server.says(away.clone());
        // Past the time for which an answer is good.
        let asked = server.asked();
        eventually("another question", async || {
            well.hangs_up().await;
            reaches(&world, &well).await;
            server.asked() > asked
        })
        .await;
        let begun = Instant::now();
        for _ in 0..10 {
            well.hangs_up().await;
            reaches(&world, &well).await;
        }
        // One that failed is asked again after a second.
        if begun.elapsed() < Duration::from_millis(900) {
            assert!(server.asked() <= asked + 2, "{away:?}: {} questions", server.asked() - asked);
        }
    }
    server.says(Says::Unknown);
}

/// A name server that says nothing holds the requests of its side, for as long as a connection may take, with one thread; the other side
/// is served meanwhile, with new connections, and a stop does not wait.
#[tokio::test]
async fn a_name_server_that_says_nothing_holds_up_its_own_side_alone() {
    let server = NameServer::new(&[]);
    server.says(Says::Nothing);
    let mut world = world(&server, 1).set("upstream.connect_timeout", "\"500ms\"").await;
    let user = world.as_user("ada");
    let asking = (0..100).map(|_| {
        let user = user.clone();
        tokio::spawn(async move {
            user.get("/rest/v1/todos").await.refused(502, "CUT502");
        })
    });
    let asking: Vec<_> = asking.collect();
    for _ in 0..20 {
        world.client().get("/rest/v1/todos").await.served_by(Side::Old);
        world.old.hangs_up().await;
    }
    for one in asking {
        within("an answer", one).await.unwrap();
    }
    assert_eq!(server.asked(), 1, "all wait for one answer");
    user.get("/rest/v1/todos").await.refused(502, "CUT502");
    assert_eq!(server.asked(), 1, "which is still awaited");
    within("the stop", world.begin_stop()).await;
}
