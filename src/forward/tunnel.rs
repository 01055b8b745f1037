//! A WebSocket between client and side, byte for byte. The frames' borders are followed, not their contents, so that the proxy can
//! say goodbye with a close code of its own: 1012 when it stops or the side changes, 1009 when a frame is too large.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};

use super::frames::{FrameTooLarge, Frames, close_frame};
use crate::http1::link::Link;

/// Service restart: clients come back (`supabase-wire.md` 4.6: never 1000 or 1001, some clients then stop for ever).
pub const RESTART: u16 = 1012;
/// Message too big.
const TOO_BIG: u16 = 1009;

/// How long a frame that is under way may take to end, and the client to close after our close frame.
const GOODBYE: Duration = Duration::from_secs(2);

/// How a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelEnd {
    /// One of the two ends closed.
    Closed,
    /// The proxy closed with 1012.
    Restarted,
    /// A frame of the client was too large: closed with 1009.
    FrameTooLarge,
    /// The client took nothing in time: cut.
    TooSlow,
}

/// What ended the passing of bytes.
enum Over {
    /// The client has closed its half.
    Client,
    /// The client's connection, or the way up, is broken.
    Broken,
    /// The side has closed, with a close frame or without, or the way down is broken.
    Side,
    /// A frame of the client is too large.
    TooLarge,
    /// The client takes nothing.
    TooSlow,
}

/// Both ends, and where each direction stands among its frames.
struct Tunnel<C, U> {
    client: Link<C>,
    side: Link<U>,
    up: Frames,
    down: Frames,
    frame_bytes: u64,
    /// How long the client may take nothing of what waits for it.
    patience: Duration,
    /// What it had taken when it began to take nothing, and when that is too long ago. Only then is there a timer.
    stall: Option<(u64, Pin<Box<Sleep>>)>,
    /// Which direction goes first: they take turns, so that one that never rests does not keep the other waiting.
    down_first: bool,
}

/// Passes bytes both ways until either end closes, `restart` resolves, a frame from the client is longer than `frame_bytes`, or the client
/// takes nothing of what waits for it for as long as `patience`.
pub async fn run<C, U>(
    client: C,
    side: U,
    frame_bytes: u64,
    patience: Duration,
    restart: impl Future<Output = ()>,
) -> TunnelEnd
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let (client, side) = (Link::new(client), Link::new(side));
    let (up, down) = (Frames::default(), Frames::default());
    let (stall, down_first) = (None, false);
    let mut tunnel = Tunnel { client, side, up, down, frame_bytes, patience, stall, down_first };
    let over = tokio::select! {
        biased;
        over = poll_fn(|cx| tunnel.poll_pass(cx)) => Some(over),
        () = restart => None,
    };
    let (end, code) = match over {
        Some(Over::Client) => {
            // What the side still says is passed on, for a while.
            let rest = poll_fn(|cx| tunnel.poll_down(cx));
            let _rest = tokio::time::timeout(GOODBYE, rest).await;
            (TunnelEnd::Closed, None)
        }
        Some(Over::Broken) => (TunnelEnd::Closed, None),
        // The client is told to come back.
        Some(Over::Side) => (TunnelEnd::Closed, Some(RESTART)),
        Some(Over::TooLarge) => (TunnelEnd::FrameTooLarge, Some(TOO_BIG)),
        // It would not take a goodbye either.
        Some(Over::TooSlow) => (TunnelEnd::TooSlow, None),
        None => (TunnelEnd::Restarted, Some(RESTART)),
    };
    if let Some(code) = code {
        let _late = tokio::time::timeout(GOODBYE, tunnel.say_goodbye(code)).await;
    }
    // Over TLS even a shutdown waits for a peer that does not read.
    let Tunnel { client, side, .. } = &mut tunnel;
    let closing = async {
        let (client, side) =
            (poll_fn(|cx| client.poll_shutdown(cx)), poll_fn(|cx| side.poll_shutdown(cx)));
        tokio::join!(client, side)
    };
    let _late = tokio::time::timeout(GOODBYE, closing).await;
    end
}

impl<C, U> Tunnel<C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    /// Passes what there is, both ways.
    fn poll_pass(&mut self, cx: &mut Context<'_>) -> Poll<Over> {
        self.down_first = !self.down_first;
        if self.down_first && self.poll_down(cx).is_ready() {
            return Poll::Ready(Over::Side);
        }
        match self.poll_up(cx) {
            Poll::Ready(Ok(())) => return Poll::Ready(Over::Client),
            Poll::Ready(Err(Unpassed::Io)) => return Poll::Ready(Over::Broken),
            Poll::Ready(Err(Unpassed::TooLarge)) => return Poll::Ready(Over::TooLarge),
            Poll::Pending => {}
        }
        if !self.down_first && self.poll_down(cx).is_ready() {
            return Poll::Ready(Over::Side);
        }
        self.poll_stall(cx).map(|()| Over::TooSlow)
    }

    /// Resolves when the client has taken nothing for too long.
    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Asked of the stream, not of what waits in front of it: TLS takes a piece whole and can't send it.
        if self.client.poll_flush_now(cx).is_ready() {
            self.stall = None;
            return Poll::Pending;
        }
        let taken = self.client.taken();
        let (then, end) =
            self.stall.get_or_insert_with(|| (taken, Box::pin(tokio::time::sleep(self.patience))));
        if *then != taken {
            *then = taken;
            end.as_mut().reset(Instant::now() + self.patience);
        }
        end.as_mut().poll(cx)
    }

    /// From the client to the side, until the client has closed its half and the side knows.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Unpassed>> {
        let Self { client, side, up, frame_bytes, .. } = self;
        ready!(poll_through(client, side, cx, |bytes| up.advance(bytes, *frame_bytes)))?;
        side.poll_shutdown(cx).map_err(Unpassed::from)
    }

    /// From the side to the client, until the side has closed.
    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Unpassed>> {
        let Self { client, side, down, .. } = self;
        poll_through(side, client, cx, |bytes| down.advance(bytes, u64::MAX))
    }

    /// Lets the frame that is under way end, sends a close frame unless one was sent already, and waits for the client to close.
    async fn say_goodbye(&mut self, code: u16) -> io::Result<()> {
        let Self { client, side, down, .. } = self;
        poll_fn(|cx| client.poll_flush_now(cx)).await?;
        while !down.is_between() {
            let mut bytes = poll_fn(|cx| side.poll_piece(cx, u64::MAX)).await?;
            if bytes.is_empty() {
                // Half a frame can't be mended; the client sees the connection end.
                return Ok(());
            }
            bytes.truncate(down.boundary_in(&bytes).unwrap_or(bytes.len()));
            let _unlimited = down.advance(&bytes, u64::MAX);
            client.pass(bytes);
            poll_fn(|cx| client.poll_flush_now(cx)).await?;
        }
        if !down.has_closed() {
            client.add(&close_frame(code));
            poll_fn(|cx| client.poll_flush_now(cx)).await?;
        }
        // The server closes first (RFC 6455 7.1.1): a client that waits for that would wait until we stop waiting for it.
        poll_fn(|cx| client.poll_shutdown(cx)).await?;
        while !poll_fn(|cx| client.poll_piece(cx, u64::MAX)).await?.is_empty() {}
        Ok(())
    }
}

/// Why bytes were not passed on.
enum Unpassed {
    Io,
    TooLarge,
}

impl From<io::Error> for Unpassed {
    fn from(_: io::Error) -> Self {
        Self::Io
    }
}

impl From<FrameTooLarge> for Unpassed {
    fn from(_: FrameTooLarge) -> Self {
        Self::TooLarge
    }
}

/// Passes what one end says to the other, until it ends. Nothing is read before what was read is written, so that nothing queues up.
fn poll_through<F: AsyncRead + Unpin, T: AsyncWrite + Unpin>(
    from: &mut Link<F>,
    to: &mut Link<T>,
    cx: &mut Context<'_>,
    mut look: impl FnMut(&[u8]) -> Result<(), FrameTooLarge>,
) -> Poll<Result<(), Unpassed>> {
    loop {
        ready!(to.poll_flush_now(cx))?;
        let length = ready!(from.poll_read(cx, |bytes| {
            look(bytes)?;
            to.add(bytes);
            Ok::<_, Unpassed>(bytes.len())
        }))?;
        if length == 0 {
            return Poll::Ready(Ok(()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf, duplex};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    struct Ends {
        client: DuplexStream,
        side: DuplexStream,
        tunnel: tokio::task::JoinHandle<TunnelEnd>,
        restart: tokio::sync::oneshot::Sender<()>,
    }

    fn open(frame_bytes: u64) -> Ends {
        let (client, client_end) = duplex(64);
        let (side, side_end) = duplex(64);
        let (restart, asked) = tokio::sync::oneshot::channel::<()>();
        let tunnel = tokio::spawn(run(client_end, side_end, frame_bytes, PATIENCE, async {
            let _asked = asked.await;
        }));
        Ends { client, side, tunnel, restart }
    }

    #[tokio::test]
    async fn bytes_pass_both_ways_untouched() {
        let Ends { mut client, mut side, tunnel, restart } = open(1000);
        client.write_all(&[0x82, 0x83, 1, 2, 3, 4, 9, 9, 9]).await.unwrap();
        let mut seen = [0; 9];
        side.read_exact(&mut seen).await.unwrap();
        assert_eq!(seen, [0x82, 0x83, 1, 2, 3, 4, 9, 9, 9]);
        side.write_all(&[0x82, 1, 7, 0x88, 2, 3, 0xe8]).await.unwrap();
        drop(side);
        let mut rest = Vec::new();
        let reading = async {
            let mut buffer = [0; 16];
            let length = client.read(&mut buffer).await.unwrap();
            rest.extend_from_slice(&buffer[..length]);
        };
        reading.await;
        assert_eq!(
            rest,
            [0x82, 1, 7, 0x88, 2, 3, 0xe8],
            "the side's own close code, and no second one"
        );
        drop(client);
        assert_eq!(tunnel.await.unwrap(), TunnelEnd::Closed);
        drop(restart);
    }

    #[tokio::test]
    async fn a_restart_waits_for_the_frame_under_way() {
        let Ends { mut client, mut side, tunnel, restart } = open(1000);
        side.write_all(&[0x82, 4, 1, 2]).await.unwrap();
        let mut seen = [0; 4];
        client.read_exact(&mut seen).await.unwrap();
        restart.send(()).unwrap();
        tokio::task::yield_now().await;
        side.write_all(&[3, 4, 0x82, 1, 5]).await.unwrap();
        let mut rest = [0; 6];
        client.read_exact(&mut rest).await.unwrap();
        assert_eq!(rest, [3, 4, 0x88, 2, 0x03, 0xf4]);
        drop(client);
        assert_eq!(tunnel.await.unwrap(), TunnelEnd::Restarted);
    }

    #[tokio::test]
    async fn a_side_that_vanishes_sends_the_client_back_with_1012() {
        let Ends { mut client, side, tunnel, restart } = open(1000);
        drop(side);
        let mut seen = [0; 4];
        client.read_exact(&mut seen).await.unwrap();
        assert_eq!(seen, [0x88, 2, 0x03, 0xf4]);
        drop(client);
        assert_eq!(tunnel.await.unwrap(), TunnelEnd::Closed);
        drop(restart);
    }

    #[tokio::test]
    async fn a_frame_beyond_the_limit_closes_with_1009() {
        let Ends { mut client, side, tunnel, restart } = open(3);
        client.write_all(&[0x82, 0x84, 1, 2, 3, 4]).await.unwrap();
        let mut seen = [0; 4];
        client.read_exact(&mut seen).await.unwrap();
        assert_eq!(seen, [0x88, 2, 0x03, 0xf1]);
        drop(client);
        assert_eq!(tunnel.await.unwrap(), TunnelEnd::FrameTooLarge);
        drop((side, restart));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_in_time_is_cut_and_one_that_takes_little_is_not() {
        let Ends { mut client, mut side, tunnel, restart } = open(1000);
        // More than both pipes hold: from here on the client has to read.
        let sending = tokio::spawn(async move {
            let sent = side.write_all(&[0x82, 2, 8, 8].repeat(1000)).await;
            (sent, side)
        });
        for _ in 0..3 {
            tokio::time::sleep(PATIENCE * 9 / 10).await;
            client.read_exact(&mut [0; 4]).await.unwrap();
        }
        let begun = Instant::now();
        let end = tokio::time::timeout(PATIENCE * 2, tunnel).await.unwrap();
        assert_eq!(end.unwrap(), TunnelEnd::TooSlow);
        assert!(begun.elapsed() >= PATIENCE * 9 / 10);
        let (sent, _side) = sending.await.unwrap();
        assert!(sent.is_err(), "the side is let go");
        drop((client, restart));
    }

    /// A client that never stops talking, at as much as a task may do at a time, and hears what it is told.
    struct Chatterer(tokio::sync::mpsc::UnboundedSender<Vec<u8>>);

    impl AsyncRead for Chatterer {
        fn poll_read(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            out: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            ready!(pin!(tokio::task::coop::consume_budget()).poll(cx));
            out.put_slice(&[0x82, 0x80, 1, 2, 3, 4]);
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Chatterer {
        fn poll_write(
            self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let _gone = self.0.send(bytes.to_vec());
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_client_that_never_rests_hears_its_side() {
        let (mut side, side_end) = duplex(64);
        let (tell, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let side_end = tokio::io::join(side_end, tokio::io::sink());
        let tunnel = run(Chatterer(tell), side_end, 1000, PATIENCE, std::future::pending());
        let tunnel = tokio::spawn(tunnel);
        side.write_all(&[0x82, 1, 7]).await.unwrap();
        let heard = tokio::time::timeout(Duration::from_secs(10), heard.recv()).await;
        assert_eq!(heard.unwrap().unwrap(), [0x82, 1, 7]);
        tunnel.abort();
    }

    #[tokio::test]
    async fn what_waited_for_a_slow_client_comes_before_the_goodbye() {
        let Ends { mut client, mut side, tunnel, restart } = open(1000);
        let message = [&[0x82, 100][..], &[9; 100]].concat();
        side.write_all(&message).await.unwrap();
        // More than fits between tunnel and client: a part of it is read, and not written.
        tokio::task::yield_now().await;
        restart.send(()).unwrap();
        let mut seen = vec![0; message.len() + 4];
        client.read_exact(&mut seen).await.unwrap();
        assert_eq!(seen, [&message[..], &[0x88, 2, 0x03, 0xf4]].concat());
        drop(client);
        assert_eq!(tunnel.await.unwrap(), TunnelEnd::Restarted);
    }
}
