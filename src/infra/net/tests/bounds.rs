//! Hosts that send too much, too slowly, or something else.

use super::*;

#[tokio::test]
async fn what_is_no_success_is_an_error() {
    let statuses = ["204", "299", "300", "301", "304", "305", "400", "401", "404", "500", "503", "999"];
    for status in statuses {
        // A redirect that leads nowhere, and a Location on what isn't one.
        let location = if status == "301" { "" } else { "Location: /elsewhere\r\n" };
        let server = Server::saying(format!("HTTP/1.1 {status} x\r\n{location}Connection: close\r\n\r\n")).await;
        let code = status.parse().unwrap();
        let expected = if code < 300 { Ok(code) } else { Err(OutboundError::Status(code)) };
        assert_eq!(loopback().get(&server.url("/"), &fetch()).await.map(|fetched| fetched.status), expected);
        assert_eq!(server.asked().len(), 1);
    }
}

#[tokio::test]
async fn bodies_are_bounded_however_they_come() {
    let chunked = |bytes: usize| {
        let chunk = format!("{bytes:x}\r\n{}\r\n0\r\nTrailer: x\r\n\r\n", "a".repeat(bytes));
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}")
    };
    let until_closed = |bytes: usize| format!("HTTP/1.1 200 OK\r\n\r\n{}", "a".repeat(bytes));
    let announced = |length: usize, bytes: usize| {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{}", "a".repeat(bytes))
    };
    let too_large = Err(OutboundError::TooLarge(1000));
    for (answer, expected) in [
        (announced(1000, 1000), Ok(1000)),
        (announced(1001, 0), too_large),
        (announced(1 << 60, 0), too_large),
        // It claims little and sends more: what it claimed is all there is.
        (announced(10, 5000), Ok(10)),
        (announced(0, 5000), Ok(0)),
        // It claims more and hangs up.
        (announced(10, 9), Err(Failure::Http.into())),
        (chunked(1000), Ok(1000)),
        (chunked(1001), too_large),
        (chunked(1_000_000), too_large),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\naaa".to_owned(), Err(Failure::Http.into())),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\na".to_owned(),
            Err(Failure::Http.into()),
        ),
        (until_closed(1000), Ok(1000)),
        (until_closed(1001), too_large),
        (until_closed(1_000_000), too_large),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\naa".to_owned(), Err(Failure::Http.into())),
        ("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\nx".to_owned(), Err(Failure::Encoding.into())),
        ("HTTP/1.1 200 OK\r\nContent-Encoding: identity\r\n\r\nx".to_owned(), Ok(1)),
    ] {
        let server = Server::saying(answer.clone()).await;
        let got = loopback().get(&server.url("/"), &fetch()).await.map(|fetched| fetched.body.len());
        assert_eq!(got, expected, "{}", &answer[..answer.len().min(100)]);
    }
}

#[tokio::test]
async fn an_endless_body_is_left() {
    let server = Server::start(|_| {
        let mut script = vec![(Duration::ZERO, b"HTTP/1.1 200 OK\r\n\r\n".to_vec())];
        script.extend((0..10_000).map(|_| (Duration::from_millis(1), vec![b'a'; 100])));
        script
    })
    .await;
    assert_eq!(loopback().get(&server.url("/"), &fetch()).await, Err(OutboundError::TooLarge(1000)));
}

#[tokio::test]
async fn heads_are_bounded() {
    let with = |headers: String| format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{headers}\r\nhi");
    for (answer, expected) in [
        (with(format!("X: {}\r\n", "a".repeat(MAX_HEAD - 100))), Ok(2)),
        (with(format!("X: {}\r\n", "a".repeat(MAX_HEAD))), Err(Failure::Head.into())),
        (with(format!("X: {}\r\n", "a".repeat(10_000_000))), Err(Failure::Head.into())),
        (with("X: a\r\n".repeat(99)), Ok(2)),
        (with("X: a\r\n".repeat(100)), Err(Failure::Head.into())),
        (format!("HTTP/1.1 200 {}\r\n\r\n", "a".repeat(1_000_000)), Err(Failure::Head.into())),
        ("SSH-2.0-OpenSSH_9.6\r\n".to_owned(), Err(Failure::Http.into())),
        ("HTTP/0.9 200 OK\r\n\r\n".to_owned(), Err(Failure::Http.into())),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), Err(Failure::Http.into())),
        ("HTTP/1.1 101 x\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n".to_owned(), Err(OutboundError::Status(101))),
        ("HTTP/1.1 100 Continue\r\n\r\n".repeat(3) + OK, Ok(2)),
        (String::new(), Err(Failure::Http.into())),
        ("HTTP/1.1 200 OK\r\nContent-".to_owned(), Err(Failure::Http.into())),
        (
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: {}\r\n\r\n", "a".repeat(1_000_000)),
            Err(Failure::Http.into()),
        ),
    ] {
        let server = Server::saying(answer.clone()).await;
        let got = loopback().get(&server.url("/"), &fetch()).await.map(|fetched| fetched.body.len());
        assert_eq!(got, expected, "{}", &answer[..answer.len().min(100)]);
    }
}

#[tokio::test]
async fn all_of_it_takes_no_longer_than_the_caller_says() {
    let drip = |head: &'static str, drop: &'static str| {
        Server::start(move |_| {
            let mut script = vec![(Duration::ZERO, head.as_bytes().to_vec())];
            script.extend((0..1000).map(|_| (Duration::from_millis(20), drop.as_bytes().to_vec())));
            script
        })
    };
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = silent.local_addr().unwrap().port();
    let fetch = Fetch { timeout: Duration::from_millis(300), max_redirects: u8::MAX, ..fetch() };
    for url in [
        drip("HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n", "a").await.url("/"),
        drip("HTTP/1.1 200 OK\r\n", "X").await.url("/"),
        drip("", "HTTP/1.1 100 Continue\r\n\r\n").await.url("/"),
        format!("http://127.0.0.1:{silent}/"),
        // A TLS greeting that is never answered.
        format!("https://127.0.0.1:{silent}/"),
        // Each hop is quick, all of them aren't.
        Server::start(|_| vec![(Duration::from_millis(50), b"HTTP/1.1 302 x\r\nLocation: /\r\n\r\n".to_vec())])
            .await
            .url("/"),
    ] {
        let outbound = loopback();
        let got = timeout(Duration::from_secs(5), outbound.get(&url, &fetch)).await.unwrap();
        assert_eq!(got, Err(OutboundError::Timeout), "{url}");
    }
}
