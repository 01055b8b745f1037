//! A WebSocket between client and side, byte for byte. The frames' borders are followed, not their contents, so that the proxy can
//! say goodbye with a close code of its own: 1012 when it stops or the side changes, 1009 when a frame is too large.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

use super::frames::{Frames, close_frame};

/// Service restart: clients come back (`supabase-wire.md` 4.6: never 1000 or 1001, some clients then stop for ever).
pub const RESTART: u16 = 1012;
/// Message too big.
const TOO_BIG: u16 = 1009;

const BUFFER: usize = 16 * 1024;

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
}

/// What the client's half ended with.
enum UpEnd {
    Closed,
    TooLarge,
}

/// Passes bytes both ways until either end closes, `restart` resolves, or a frame from the client is longer than `frame_bytes`.
pub async fn run<C, U>(
    client: C,
    side: U,
    frame_bytes: u64,
    restart: impl Future<Output = ()>,
) -> TunnelEnd
where
    C: AsyncRead + AsyncWrite,
    U: AsyncRead + AsyncWrite,
{
    let (mut client_read, mut client_write) = tokio::io::split(client);
    let (mut side_read, mut side_write) = tokio::io::split(side);
    let mut down_frames = Frames::default();
    let (end, code) = {
        let mut up = pin!(pump_up(&mut client_read, &mut side_write, frame_bytes));
        let mut down = pin!(pump_down(&mut side_read, &mut client_write, &mut down_frames));
        tokio::select! {
            biased;
            ended = up.as_mut() => match ended {
                // The client has closed its half; what the side still says is passed on, for a while.
                Ok(UpEnd::Closed) => {
                    let _rest = tokio::time::timeout(GOODBYE, down).await;
                    (TunnelEnd::Closed, None)
                }
                Ok(UpEnd::TooLarge) => (TunnelEnd::FrameTooLarge, Some(TOO_BIG)),
                Err(_) => (TunnelEnd::Closed, None),
            },
            // The side is gone without a word: the client is told to come back.
            _ended = down.as_mut() => (TunnelEnd::Closed, Some(RESTART)),
            () = restart => (TunnelEnd::Restarted, Some(RESTART)),
        }
    };
    if let Some(code) = code {
        let goodbye =
            say_goodbye(&mut side_read, &mut client_write, &mut client_read, down_frames, code);
        let _late = tokio::time::timeout(GOODBYE, goodbye).await;
    }
    // Over TLS even a shutdown waits for a peer that does not read.
    let closing = async { tokio::join!(client_write.shutdown(), side_write.shutdown()) };
    let _late = tokio::time::timeout(GOODBYE, closing).await;
    end
}

async fn pump_up<C: AsyncRead, U: AsyncWrite>(
    client: &mut ReadHalf<C>,
    side: &mut WriteHalf<U>,
    frame_bytes: u64,
) -> io::Result<UpEnd> {
    let mut frames = Frames::default();
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = client.read(&mut buffer).await?;
        let bytes = buffer.get(..length).unwrap_or_default();
        if bytes.is_empty() {
            side.shutdown().await?;
            return Ok(UpEnd::Closed);
        }
        if frames.advance(bytes, frame_bytes).is_err() {
            return Ok(UpEnd::TooLarge);
        }
        side.write_all(bytes).await?;
        side.flush().await?;
    }
}

async fn pump_down<U: AsyncRead, C: AsyncWrite>(
    side: &mut ReadHalf<U>,
    client: &mut WriteHalf<C>,
    frames: &mut Frames,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = side.read(&mut buffer).await?;
        let bytes = buffer.get(..length).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(());
        }
        let mut written = 0;
        // Each piece is counted when it has been written, so that a goodbye in the middle of a write knows where it stands.
        while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
            let step = client.write(rest).await?;
            if step == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            let _unlimited = frames.advance(rest.get(..step).unwrap_or_default(), u64::MAX);
            written += step;
        }
        client.flush().await?;
    }
}

/// Lets the frame that is under way end, sends a close frame unless one was sent already, and waits for the client to close.
async fn say_goodbye<U: AsyncRead, C: AsyncRead + AsyncWrite>(
    side: &mut ReadHalf<U>,
    client: &mut WriteHalf<C>,
    client_read: &mut ReadHalf<C>,
    mut frames: Frames,
    code: u16,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    while !frames.is_between() {
        let length = side.read(&mut buffer).await?;
        let bytes = buffer.get(..length).unwrap_or_default();
        if bytes.is_empty() {
            // Half a frame can't be mended; the client sees the connection end.
            return Ok(());
        }
        let end = frames.boundary_in(bytes).unwrap_or(bytes.len());
        let bytes = bytes.get(..end).unwrap_or_default();
        client.write_all(bytes).await?;
        let _unlimited = frames.advance(bytes, u64::MAX);
    }
    if !frames.has_closed() {
        client.write_all(&close_frame(code)).await?;
        client.flush().await?;
    }
    // The server closes first (RFC 6455 7.1.1): a client that waits for that would wait until we stop waiting for it.
    client.shutdown().await?;
    while client_read.read(&mut buffer).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};

    use super::*;

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
        let tunnel = tokio::spawn(run(client_end, side_end, frame_bytes, async {
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
}
