//! Messages: what is sent, what counts as an answer, and where they may go.

use http::HeaderMap;

use super::*;
use crate::base::clock::Timestamp;

fn message() -> Post {
    Post {
        headers: HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]),
        body: Bytes::from_static(b"{\"type\":\"key.created\"}"),
        timeout: Duration::from_secs(20),
        max_answer: 10,
    }
}

/// Reads a head and `length` bytes after it, answers, and hands out what it read.
async fn receiver(length: usize, answer: &'static str) -> (String, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://127.0.0.1:{}/hook?a=b", listener.local_addr().unwrap().port());
    let task = tokio::spawn(async move {
        let mut stream = listener.accept().await.unwrap().0;
        let mut read = Vec::new();
        while !read.windows(4).any(|end| end == b"\r\n\r\n") {
            read.push(stream.read_u8().await.unwrap());
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        read.extend(body);
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(read).unwrap()
    });
    (url, task)
}

#[tokio::test]
async fn a_message_is_sent_as_it_is_with_nothing_but_what_is_needed() {
    let mut post = message();
    post.headers.insert("webhook-id", HeaderValue::from_static("msg_1"));
    // The connection's are not the caller's.
    for (name, value) in
        [("host", "elsewhere"), ("content-length", "1"), ("transfer-encoding", "chunked"), ("connection", "upgrade")]
    {
        post.headers.insert(name, HeaderValue::from_static(value));
    }
    let (url, asked) = receiver(post.body.len(), "HTTP/1.1 204 x\r\n\r\n").await;
    let posted = loopback().post(&url, &post).await.unwrap();
    assert_eq!((posted.status, posted.answer, posted.retry_after), (204, Vec::new(), None));
    assert!(posted.duration > Duration::ZERO && posted.duration < post.timeout);
    let asked = asked.await.unwrap();
    let (head, body) = asked.split_once("\r\n\r\n").unwrap();
    assert_eq!(body.as_bytes(), &post.body[..]);
    let mut lines: Vec<&str> = head.split("\r\n").collect();
    assert_eq!(lines.remove(0), "POST /hook?a=b HTTP/1.1");
    lines.sort_unstable();
    let host = format!("host: {}", url.split('/').nth(2).unwrap());
    let agent = format!("user-agent: Keyward/{}", env!("CARGO_PKG_VERSION"));
    let expected = [
        "connection: close",
        "content-length: 22",
        "content-type: application/json",
        &host,
        &agent,
        "webhook-id: msg_1",
    ];
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn whatever_status_is_an_answer_and_no_redirect_is_followed() {
    let inside = Server::saying(OK).await;
    for status in [101, 200, 204, 299, 300, 301, 302, 303, 304, 307, 308, 400, 404, 410, 429, 500, 503, 999] {
        let server = Server::saying(format!(
            "HTTP/1.1 {status} x\r\nLocation: {}\r\nContent-Length: 0\r\n\r\n",
            inside.url("/")
        ))
        .await;
        let posted = loopback().post(&server.url("/"), &message()).await.unwrap();
        assert_eq!((posted.status, server.asked().len()), (status, 1));
    }
    assert_eq!(inside.asked(), [""; 0]);
}

#[tokio::test]
async fn of_the_body_the_beginning_is_read_and_nothing_in_it_changes_the_answer() {
    let ok = "HTTP/1.1 200 OK\r\n";
    for (answer, beginning) in [
        (format!("{ok}Content-Length: 4\r\n\r\nbody"), "body"),
        (format!("{ok}Content-Length: 10\r\n\r\n0123456789"), "0123456789"),
        (format!("{ok}Content-Length: 11\r\n\r\n0123456789A"), "0123456789"),
        (format!("{ok}Content-Length: {}\r\n\r\n0123456789A", 1_u64 << 60), "0123456789"),
        (format!("{ok}\r\n{}", "a".repeat(10_000_000)), "aaaaaaaaaa"),
        (format!("{ok}Transfer-Encoding: chunked\r\n\r\nfffff\r\n{}", "a".repeat(1000)), "aaaaaaaaaa"),
        // Cut short, or no body at all in the end.
        (format!("{ok}Content-Length: 9\r\n\r\nbody"), "body"),
        (format!("{ok}Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\nzz"), "body"),
        (format!("{ok}Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n"), ""),
        (format!("{ok}Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nbody"), ""),
        (format!("{ok}Content-Encoding: identity\r\nContent-Length: 4\r\n\r\nbody"), "body"),
        ("HTTP/1.1 500 x\r\nContent-Length: 4\r\n\r\nbody".to_owned(), "body"),
    ] {
        let server = Server::saying(answer.clone()).await;
        let posted = loopback().post(&server.url("/"), &message()).await.unwrap();
        let status = if answer.starts_with(ok) { 200 } else { 500 };
        assert_eq!((posted.status, &*posted.answer), (status, beginning.as_bytes()), "{answer:.90}");
    }
}

#[tokio::test]
async fn what_comes_after_the_head_may_take_as_long_as_it_likes() {
    let drip = |head: &'static str, drop: &'static str, every: u64| {
        Server::start(move |_| {
            let mut script = vec![(Duration::ZERO, head.as_bytes().to_vec())];
            script.extend((0..1000).map(|_| (Duration::from_millis(every), drop.as_bytes().to_vec())));
            script
        })
    };
    let post = Post { timeout: Duration::from_millis(300), max_answer: 1000, ..message() };
    for (head, beginning) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n", true),
        ("HTTP/1.1 200 OK\r\n\r\n", true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false),
    ] {
        let server = drip(head, "a", 20).await;
        let posted = timeout(Duration::from_secs(5), loopback().post(&server.url("/"), &post)).await.unwrap().unwrap();
        assert_eq!((posted.status, posted.answer.is_empty()), (200, !beginning), "{head}");
    }
    // Nothing at all after the head: not even until the deadline.
    let server = drip("HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n", "a", 60_000).await;
    let posted = timeout(Duration::from_secs(10), loopback().post(&server.url("/"), &message())).await.unwrap();
    assert_eq!(posted.unwrap().answer, b"");
}

#[tokio::test]
async fn without_a_head_there_is_no_answer() {
    let head = |headers: String| format!("HTTP/1.1 200 OK\r\n{headers}\r\n");
    for (answer, expected) in [
        (String::new(), Failure::Http),
        ("HTTP/1.1 200 OK\r\nContent-".to_owned(), Failure::Http),
        ("SSH-2.0-OpenSSH_9.6\r\n".to_owned(), Failure::Http),
        (head(format!("X: {}\r\n", "a".repeat(MAX_HEAD))), Failure::Head),
        (head("X: a\r\n".repeat(1_000_000)), Failure::Head),
    ] {
        let server = Server::saying(answer).await;
        assert_eq!(loopback().post(&server.url("/"), &message()).await, Err(expected.into()));
    }
    let post = Post { timeout: Duration::from_millis(300), ..message() };
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = silent.local_addr().unwrap().port();
    let endless = Server::start(|_| {
        let mut script = vec![(Duration::ZERO, b"HTTP/1.1 200 OK\r\n".to_vec())];
        script.extend((0..1000).map(|_| (Duration::from_millis(20), b"X: y\r\n".to_vec())));
        script
    });
    let continuing = Server::start(|_| vec![(Duration::from_millis(20), b"HTTP/1.1 100 x\r\n\r\n".to_vec()); 1000]);
    for url in [
        format!("http://127.0.0.1:{silent}/"),
        format!("https://127.0.0.1:{silent}/"),
        endless.await.url("/"),
        continuing.await.url("/"),
    ] {
        let outbound = loopback();
        let got = timeout(Duration::from_secs(5), outbound.post(&url, &post)).await.unwrap();
        assert_eq!(got, Err(OutboundError::Timeout), "{url}");
    }
}

#[tokio::test]
async fn hosts_say_when_they_want_to_be_asked_again() {
    let now = Timestamp::parse("2026-11-20T12:00:00Z").unwrap();
    let most = Duration::from_secs(u32::MAX.into());
    for (value, expected) in [
        ("120", Some(Duration::from_mins(2))),
        ("0", Some(Duration::ZERO)),
        (" 7 ", Some(Duration::from_secs(7))),
        ("4294967295", Some(most)),
        ("4294967296", Some(most)),
        ("99999999999999999999999999999999", Some(most)),
        ("Fri, 20 Nov 2026 12:01:00 GMT", Some(Duration::from_mins(1))),
        ("Friday, 20-Nov-26 12:01:00 GMT", Some(Duration::from_mins(1))),
        ("Fri Nov 20 12:01:00 2026", Some(Duration::from_mins(1))),
        ("Fri, 20 Nov 2026 11:00:00 GMT", Some(Duration::ZERO)),
        ("Sun, 06 Nov 1994 08:49:37 GMT", Some(Duration::ZERO)),
        ("-1", None),
        ("+1", None),
        ("1.5", None),
        ("1e3", None),
        ("soon", None),
        ("", None),
        ("2026-11-20T12:01:00Z", None),
        ("Fri, 20 Nov 2026 12:01:00 +0000", None),
    ] {
        let server = Server::saying(format!("HTTP/1.1 429 x\r\nRetry-After: {value}\r\n\r\n")).await;
        let posted = loopback().post(&server.url("/"), &message()).await.unwrap();
        assert_eq!(posted.retry_after.map(|after| after.from(now)), expected, "{value}");
    }
}

#[tokio::test]
async fn in_the_clear_nothing_leaves_the_networks_that_the_operator_allows() {
    let server = Server::saying(OK).await;
    let url = |scheme: &str, host: &str| format!("{scheme}://{host}:{}/", server.port);
    // Without any, http isn't even a form; nobody learns what a name leads to.
    let nowhere = Outbound::with_resolver(Vec::new(), Box::new(Names::new(&[&["127.0.0.1"]])));
    for host in ["127.0.0.1", "8.8.8.8", "example.com", "localhost"] {
        let scheme = Err(UrlError::Scheme.into());
        assert_eq!(nowhere.check_post(&url("http", host)), scheme);
        assert_eq!(nowhere.post(&url("http", host), &message()).await, Err(UrlError::Scheme.into()));
    }
    // With some: those alone, and the same words for what is public and what isn't.
    let names = |ip: &'static str| {
        Outbound::with_resolver(networks(&["127.0.0.1/32", "fd00::1/128"]), Box::new(Names::new(&[&[ip]])))
    };
    for (ip, allowed) in [
        ("127.0.0.1", true),
        ("::ffff:127.0.0.1", true),
        ("127.0.0.2", false),
        ("8.8.8.8", false),
        ("10.0.0.1", false),
        ("169.254.169.254", false),
        ("2606:4700::1111", false),
        ("fd00::2", false),
    ] {
        let outbound = names(ip);
        let named = outbound.post(&url("http", "some.example"), &message()).await.map(|posted| posted.status);
        assert_eq!(named, if allowed { Ok(200) } else { Err(OutboundError::Plain) }, "{ip}");
        let literal = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
        let by_text = outbound.check_post(&url("http", &literal));
        assert_eq!(by_text, if allowed { Ok(()) } else { Err(OutboundError::Plain) }, "{ip}");
        let public = ["8.8.8.8", "2606:4700::1111"].contains(&ip);
        let by_text = outbound.check_post(&url("https", &literal));
        assert_eq!(by_text, if allowed || public { Ok(()) } else { Err(OutboundError::Refused) }, "{ip}");
        if !allowed && !public {
            let refused = Err(OutboundError::Refused);
            assert_eq!(outbound.post(&url("https", "some.example"), &message()).await, refused);
            assert_eq!(outbound.post(&url("https", &literal), &message()).await, refused);
        }
        assert_eq!(outbound.check_post(&url("http", "some.example")), Ok(()));
    }
}

#[tokio::test]
async fn other_protocols_are_not_spoken_to() {
    let outbound = loopback();
    for port in [22, 25, 53, 110, 465, 587, 2049, 6379, 6667, 11211] {
        for scheme in ["http", "https"] {
            let url = format!("{scheme}://127.0.0.1:{port}/");
            assert_eq!(outbound.check_post(&url), Err(UrlError::ForeignPort.into()), "{url}");
            assert_eq!(outbound.post(&url, &message()).await, Err(UrlError::ForeignPort.into()), "{url}");
        }
    }
    for port in [80, 443, 3000, 5000, 8000, 8080, 8443, 9000, 65535] {
        assert_eq!(outbound.check_post(&format!("https://127.0.0.1:{port}/")), Ok(()), "{port}");
    }
}
