//! labtool: the small programs that the comparison needs, in one binary (libc and epoll, one thread each).
//!
//!   upstream OLD_PORT NEW_PORT               two tagged upstreams, like PostgREST and Realtime
//!   relay LISTEN_PORT TARGET_PORT            a TCP relay: the floor for any proxy
//!   load --port P --reqs F [--conns N] [--secs S] [--rate R] [--count N]
//!                                            requests; rate 0 is a closed loop, count ends it early
//!   ws --port P --reqs F [--conns N] [--secs S] [--size N]
//!                                            WebSocket ping-pong of binary frames
//!   realtime --port P --reqs F --join TEXT --say TEXT [--conns N] [--secs S]
//!                                            a joined Phoenix channel, then ping-pong of one text frame
//!   idle --port P --reqs F --conns N         N kept-alive connections, held until stdin closes
mod client;
mod frame;
mod net;
mod phoenix;
mod relay;
mod upstream;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    // SAFETY: sets the disposition of one signal, before there is another thread.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    let port = |at: usize| arguments.get(at).and_then(|text| text.parse::<u16>().ok());
    match (arguments.get(1).map(String::as_str), port(2), port(3)) {
        (Some("upstream"), Some(old), Some(new)) => upstream::run(old, new),
        (Some("relay"), Some(listen), Some(target)) => relay::run(listen, target),
        (Some(mode @ ("load" | "ws" | "realtime" | "idle")), ..) => {
            client::run(mode, &arguments[2..]);
        }
        _ => {
            eprintln!("usage: labtool upstream|relay|load|ws|realtime|idle …, see its first lines");
            std::process::exit(2)
        }
    }
}
