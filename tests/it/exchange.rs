//! HTTP/1 towards a side: what the proxy's own client has to take, and what it must not.

use std::time::Duration;

use cutover::side::Side;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::conn::Conn;
use crate::support::upstream::{response, usual};
use crate::support::world::{ANON_OLD, World};
use crate::support::{eventually, within};

/// What a side sends, and what of it arrives: status, body, trailers.
const ANSWERS: [(&str, u16, &str, bool); 6] = [
    ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, "hello", true),
    (
        "HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 404 No\r\ncontent-length: 2\r\n\r\nno",
        404,
        "no",
        true,
    ),
    (
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nx-sum: 1\r\n\r\n",
        200,
        "hello",
        true,
    ),
    (
        "HTTP/1.0 200 OK\r\ncontent-length: 5\r\nconnection: keep-alive\r\n\r\nhello",
        200,
        "hello",
        true,
    ),
    ("HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello", 200, "hello", false),
    ("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello", 200, "hello", false),
];

#[tokio::test]
async fn answers_arrive_whole_in_whatever_pieces_they_come() {
    let world = World::start().await;
    for (text, status, body, is_kept) in ANSWERS {
        for pieces in [1, 7, usize::MAX] {
            world.old.does(move |_, mut conn| async move {
                for piece in text.as_bytes().chunks(pieces) {
                    conn.send(piece).await;
                    tokio::task::yield_now().await;
                }
                is_kept.then_some(conn)
            });
            let answer = world.client().get("/rest/v1/todos").await;
            assert_eq!((answer.status, answer.text().as_str()), (status, body), "{text:?}");
            assert!(answer.body.is_whole, "{text:?}");
            world.old.answers_as_usual();
            let before = world.old.connections();
            world.client().get("/rest/v1/todos").await.served_by(Side::Old);
            let new = world.old.connections() - before;
            assert_eq!(new, usize::from(!is_kept), "{text:?} in pieces of {pieces}");
        }
    }
}

#[tokio::test]
async fn what_a_side_says_unasked_reaches_nobody() {
    let world = World::start().await;
    let evil = response("200 OK", "", "evil");
    for (method, text) in [
        ("GET", response("200 OK", "", "mine")),
        (
            "GET",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nmine\r\n0\r\n\r\n"
                .to_owned(),
        ),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n".to_owned()),
        ("GET", "HTTP/1.1 304 Not Modified\r\ncontent-length: 4\r\n\r\n".to_owned()),
        ("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n".to_owned()),
    ] {
        let both = format!("{text}{evil}");
        world.old.does(move |_, mut conn| {
            let both = both.clone();
            async move {
                conn.send(both).await;
                // It stays open: what is left in it would be the next one's answer.
                conn.fill().await;
                None
            }
        });
        let answer = world.client().ask(method, "/rest/v1/todos", None).await;
        assert_ne!(answer.text(), "evil");
        world.old.answers_as_usual();
        world.client().get("/rest/v1/todos").await.served_by(Side::Old);
    }
}

#[tokio::test]
async fn an_answer_that_came_before_its_request_is_nobodys() {
    let world = World::start().await;
    world.old.does(|_, mut conn| async move {
        conn.send(usual(Side::Old)).await;
        // Behind the answer, when its connection is kept already.
        tokio::time::sleep(Duration::from_millis(50)).await;
        conn.send(response("200 OK", "", "evil")).await;
        conn.fill().await;
        None
    });
    for method in ["GET", "POST", "GET"] {
        let answer = world.client().ask(method, "/rest/v1/todos", None).await;
        assert_ne!(answer.text(), "evil");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(world.old.connections(), 3);
}

#[tokio::test]
async fn no_head_and_a_head_without_end_are_502() {
    let world = World::start().await;
    let long = format!("HTTP/1.1 200 OK\r\nlong: {}", "x".repeat(500 * 1024));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(101));
    let interim = "HTTP/1.1 102 Processing\r\n\r\n".repeat(101);
    for text in ["SSH-2.0-x\r\n\r\n", "HTTP/1.1 200 OK\r\na b: c\r\n\r\n", &long, &many, &interim] {
        let text = text.to_owned();
        world.old.does(move |_, mut conn| {
            let text = text.clone();
            async move {
                conn.try_send(text).await;
                while conn.fill().await > 0 {}
                None
            }
        });
        world.client().get("/rest/v1/todos").await.refused(502, "CUT5021");
    }
    let interim = format!("{}{}", "HTTP/1.1 102 Processing\r\n\r\n".repeat(100), usual(Side::Old));
    world.old.answers(move |_| interim.clone());
    world.client().get("/rest/v1/todos").await.served_by(Side::Old);
}

/// A side whose connections are reset after it has sent this.
async fn resetting(text: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            assert!(stream.read(&mut head).await.unwrap() > 0);
            stream.write_all(text.as_bytes()).await.unwrap();
            // What was sent has to be there before the reset, which takes back nothing that was read.
            tokio::time::sleep(Duration::from_millis(50)).await;
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
    });
    format!("\"http://{address}\"")
}

#[tokio::test]
async fn a_reset_is_502_before_the_end_of_the_head_and_a_cut_behind_it() {
    for (text, status) in [
        ("", 502),
        ("HTTP/1.1 20", 502),
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n", 502),
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", 200),
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel", 200),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel", 200),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n0\r\n", 200),
        ("HTTP/1.1 200 OK\r\n\r\nhel", 200),
    ] {
        let url = resetting(text).await;
        let world = World::start().set("projects.old.url", &url).await;
        for method in ["GET", "POST"] {
            let answer = world.client().ask(method, "/rest/v1/todos", None).await;
            assert_eq!(answer.status, status, "{text:?}");
            assert!(status == 502 || !answer.body.is_whole, "{text:?}");
        }
    }
}

#[tokio::test]
async fn a_read_is_not_repeated_when_a_byte_of_its_answer_has_come() {
    let world = World::start().await;
    world.client().get("/rest/v1/todos").await.served_by(Side::Old);
    let before = world.old.count();
    world.old.does(|_, mut conn| async move {
        conn.send("H").await;
        None
    });
    world.client().get("/rest/v1/todos").await.refused(502, "CUT5021");
    assert_eq!(world.old.count(), before + 1);
}

/// A request with a body of this many bytes, not all alike.
fn upload(length: usize) -> (String, Vec<u8>) {
    let head = format!(
        "POST /functions/v1/f HTTP/1.1\r\nhost: a\r\napikey: {ANON_OLD}\r\ncontent-length: {length}\r\n\r\n"
    );
    (head, (0..length).map(|at| (at / 251 % 251) as u8).collect())
}

#[tokio::test]
async fn an_upload_goes_on_when_its_answer_has_come_and_the_next_request_waits_for_it() {
    let world = World::start().await;
    let (head, body) = upload(6_000_000);
    for text in [
        response("200 OK", "", "early"),
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nearly\r\n0\r\n\r\n".to_owned(),
    ] {
        let (want, next) = (body.clone(), response("200 OK", "", "next"));
        let gone = world.old.notes_gone();
        let before = world.old.gone();
        world.old.does(move |seen, mut conn| {
            let (text, want, next, gone) = (text.clone(), want.clone(), next.clone(), gone.clone());
            async move {
                if seen.method() == "GET" {
                    conn.send(next).await;
                    return Some(conn);
                }
                conn.send(text).await;
                let body = conn.request_body(&seen.head).await;
                assert!(body.is_whole && body.bytes == want, "{} bytes", body.bytes.len());
                gone();
                // A side that closed here without a word would race with the next request.
                Some(conn)
            }
        });
        let mut conn = world.raw().await;
        // The client is one that reads when it has sent all.
        conn.send(&head).await;
        conn.send(&body).await;
        conn.send(world.client().says("GET", "/functions/v1/f", None)).await;
        assert_eq!(conn.answer().await.text(), "early");
        assert_eq!(conn.answer().await.text(), "next");
        eventually("the whole upload", async || world.old.gone() == before + 1).await;
    }
}

#[tokio::test]
async fn a_side_that_has_answered_and_takes_no_more_holds_nobody() {
    let world = World::start().set("upstream.functions_timeout", "\"1s\"").await;
    world.old.does(|_, mut conn| async move {
        conn.send(response("200 OK", "", "early")).await;
        // It keeps the connection, and reads nothing more of it.
        std::future::pending::<()>().await;
        Some(conn)
    });
    let (head, _) = upload(0);
    let mut conn = world.raw().await;
    conn.send(head.replace("content-length: 0", "content-length: 64000000")).await;
    let (mut reader, mut writer) = conn.split();
    let sending = tokio::spawn(async move { while writer.try_send(&[b'x'; 64_000]).await {} });
    assert_eq!(reader.answer().await.text(), "early");
    within("the end of the upload", sending).await.unwrap();
    world.is_quiet().await;
}

/// More than all sockets on the way hold: the client does not read before it has sent all, so that the answer waits for it.
#[tokio::test]
async fn an_answer_that_waits_for_its_client_does_not_hold_the_upload_up() {
    const LENGTH: usize = 64_000_000;
    let world = World::start().await;
    let (head, _) = upload(0);
    let head = head.replace("content-length: 0", &format!("content-length: {LENGTH}"));
    world.old.does(|seen, conn| async move {
        let (mut reader, mut writer) = conn.split();
        let answering = async {
            writer.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {LENGTH}\r\n\r\n")).await;
            for _ in 0..LENGTH / 64_000 {
                assert!(writer.try_send(&[b'y'; 64_000]).await);
            }
        };
        let (body, ()) = tokio::join!(reader.request_body(&seen.head), answering);
        assert!(body.is_whole && body.bytes.len() == LENGTH);
        None
    });
    let mut conn = world.raw().await;
    conn.send(&head).await;
    for _ in 0..LENGTH / 64_000 {
        conn.send(&[b'x'; 64_000]).await;
    }
    let answer = conn.answer().await;
    assert_eq!((answer.body.bytes.len(), answer.body.is_whole), (LENGTH, true));
}

#[tokio::test]
async fn both_bodies_may_flow_at_once() {
    let world = World::start().await;
    let (head, body) = upload(6_000_000);
    // An echo: the answer begins with the first byte of the request's body and ends with the last.
    world.old.does(|seen, mut conn| async move {
        let mut left: usize = seen.header("content-length").unwrap().parse().unwrap();
        conn.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        while left > 0 {
            let piece = conn.take(left.min(10_000)).await;
            assert!(!piece.is_empty());
            left -= piece.len();
            conn.send(format!("{:x}\r\n", piece.len())).await;
            conn.send(piece).await;
            conn.send("\r\n").await;
        }
        conn.send("0\r\n\r\n").await;
        Some(conn)
    });
    let (read, mut write) = TcpStream::connect(world.address).await.unwrap().into_split();
    let sent = body.clone();
    let sending = tokio::spawn(async move {
        write.write_all(head.as_bytes()).await.unwrap();
        write.write_all(&sent).await.unwrap();
        write
    });
    let mut conn = Conn::new(tokio::io::join(read, tokio::io::sink()));
    let answer = conn.answer().await;
    assert!(answer.body.is_whole && answer.body.bytes == body);
    drop(sending.await.unwrap());
}

#[tokio::test]
async fn a_post_without_a_body_says_so() {
    let world = World::start().await;
    for (method, length) in
        [("POST", Some("0")), ("PUT", Some("0")), ("GET", None), ("DELETE", None)]
    {
        let request =
            format!("{method} /functions/v1/f HTTP/1.1\r\nhost: a\r\napikey: {ANON_OLD}\r\n\r\n");
        let mut conn = world.raw().await;
        conn.send(request).await;
        conn.answer().await.served_by(Side::Old);
        let seen = world.old.last();
        assert_eq!(
            seen.head.all("content-length"),
            length.into_iter().collect::<Vec<_>>(),
            "{method}"
        );
        assert_eq!(seen.head.headers[0].0, "host");
    }
}
