//! Against servers on this machine, which is allowed where a test says so.

mod bounds;
mod hostile;
mod https;
mod post;

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

/// What a server says, and how long it waits before each part.
type Script = Vec<(Duration, Vec<u8>)>;

/// A server that says what it is told, and remembers what it was asked.
struct Server {
    port: u16,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(script: impl Fn(&str) -> Script + Clone + Send + Sync + 'static) -> Self {
        Self::on("127.0.0.1:0", None, script).await
    }

    async fn on(
        address: &str,
        tls: Option<TlsAcceptor>,
        script: impl Fn(&str) -> Script + Clone + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let server = Self { port, heads: Arc::clone(&heads) };
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (heads, script, tls) = (Arc::clone(&heads), script.clone(), tls.clone());
                tokio::spawn(async move {
                    // The client may hang up whenever it likes.
                    drop(match tls {
                        None => answer(stream, &heads, script).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => answer(stream, &heads, script).await,
                            Err(error) => Err(error),
                        },
                    });
                });
            }
        });
        server
    }

    /// Always the same, all at once.
    async fn saying(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::start(move |_| vec![(Duration::ZERO, answer.clone())]).await
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn asked(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

async fn answer(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    heads: &Mutex<Vec<String>>,
    script: impl Fn(&str) -> Script,
) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let parts = script(&head);
    heads.lock().unwrap().push(head);
    for (wait, part) in parts {
        sleep(wait).await;
        stream.write_all(&part).await?;
        stream.flush().await?;
    }
    stream.shutdown().await
}

/// Finds what it is told, one answer a look-up; the last one again and again.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<(usize, Vec<Vec<IpAddr>>)>>);

impl Names {
    fn new(answers: &[&[&str]]) -> Self {
        let answers = answers.iter().map(|ips| ips.iter().map(|ip| ip.parse().unwrap()).collect()).collect();
        Self(Arc::new(Mutex::new((0, answers))))
    }

    fn asked(&self) -> usize {
        self.0.lock().unwrap().0
    }
}

impl Resolve for Names {
    fn resolve(&self, _: String) -> BoxFuture<'_, io::Result<Vec<IpAddr>>> {
        let mut state = self.0.lock().unwrap();
        let turn = state.0.min(state.1.len().saturating_sub(1));
        state.0 += 1;
        let found = state.1.get(turn).cloned().ok_or_else(|| io::Error::other("10.1.2.3 knows no db.internal"));
        Box::pin(async { found })
    }
}

fn networks(allow: &[&str]) -> Vec<IpNet> {
    allow.iter().map(|network| network.parse().unwrap()).collect()
}

fn loopback() -> Outbound {
    Outbound::new(networks(&["127.0.0.0/8"]))
}

fn fetch() -> Fetch {
    Fetch {
        schemes: Schemes::HttpToo,
        max_bytes: 1000,
        timeout: Duration::from_secs(20),
        max_redirects: 3,
        accept: HeaderValue::from_static("application/json"),
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nhi";

#[tokio::test]
async fn a_document_is_fetched_with_nothing_but_what_is_needed() {
    let server = Server::saying(OK).await;
    let fetched = loopback().get(&server.url("/a/../b?q=1#frag"), &fetch()).await.unwrap();
    let (body, content_type) = (b"hi".to_vec(), Some("text/plain".to_owned()));
    assert_eq!(fetched, Fetched { status: 200, content_type, body, final_url: server.url("/b?q=1") });
    let head = format!(
        "GET /b?q=1 HTTP/1.1\r\nhost: 127.0.0.1:{}\r\nuser-agent: Keyward/{}\r\naccept: application/json\r\nconnection: close\r\n\r\n",
        server.port,
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(server.asked(), [head]);
    // A connection is never used twice.
    loopback().get(&format!("http://localhost:{}/", server.port), &fetch()).await.unwrap();
    assert!(server.asked()[1].contains(&format!("\r\nhost: localhost:{}\r\n", server.port)));
}

#[tokio::test]
async fn this_machine_is_refused_in_every_spelling() {
    let server = Server::saying(OK).await;
    let outbound = Outbound::new(Vec::new());
    for host in [
        "127.0.0.1",
        "2130706433",
        "0x7f.1",
        "127.1",
        "0177.0.0.1",
        "127.0.0.1.",
        "①②⑦.⓪.⓪.①",
        "0",
        "0.0.0.0",
        "localhost",
        "LOCALHOST.",
        "a.localhost",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[2002:7f00:1::]",
        "169.254.169.254",
        "[fd00:ec2::254]",
        "[fe80::1]",
        "10.0.0.1",
        "255.255.255.255",
    ] {
        let url = format!("http://{host}:{}/", server.port);
        assert_eq!(outbound.get(&url, &fetch()).await, Err(OutboundError::Refused), "{url}");
        let by_text = if host.to_lowercase().contains("localhost") { Ok(()) } else { Err(OutboundError::Refused) };
        assert_eq!(outbound.check(&url, Schemes::HttpToo), by_text, "{url}");
    }
    for (url, reason) in [
        ("file:///etc/passwd", UrlError::Scheme),
        ("gopher://127.0.0.1/", UrlError::Scheme),
        ("http://user@127.0.0.1/", UrlError::Credentials),
        ("http:///", UrlError::Form),
    ] {
        assert_eq!(outbound.get(url, &fetch()).await, Err(reason.into()), "{url}");
        assert_eq!(outbound.check(url, Schemes::HttpToo), Err(reason.into()), "{url}");
    }
    assert_eq!(server.asked(), [""; 0]);
}

#[tokio::test]
async fn plain_http_is_refused_where_the_caller_wants_https() {
    let server = Server::saying(OK).await;
    let fetch = Fetch { schemes: Schemes::Https, ..fetch() };
    assert_eq!(loopback().get(&server.url("/"), &fetch).await, Err(UrlError::Scheme.into()));
    assert_eq!(server.asked(), [""; 0]);
}

#[tokio::test]
async fn of_several_addresses_only_the_admitted_ones_are_connected_to() {
    let allowed = Server::saying(OK).await;
    let other = Server::on(&format!("127.0.0.2:{}", allowed.port), None, |_| Vec::new()).await;
    // 127.0.0.3 is admitted, but nobody is there: the next one is tried.
    let names = Names::new(&[&["127.0.0.2", "10.0.0.1", "127.0.0.3", "::ffff:127.0.0.1", "169.254.169.254"]]);
    let outbound = Outbound::with_resolver(networks(&["127.0.0.1/32", "127.0.0.3/32"]), Box::new(names.clone()));
    let url = format!("http://both.example:{}/", allowed.port);
    assert_eq!(outbound.get(&url, &fetch()).await.unwrap().body, b"hi");
    assert_eq!((allowed.asked().len(), other.asked().len(), names.asked()), (1, 0, 1));
    assert!(allowed.asked()[0].contains(&format!("\r\nhost: both.example:{}\r\n", allowed.port)));
    // None is left.
    let names = Names::new(&[&["127.0.0.2", "10.0.0.1"]]);
    let outbound = Outbound::with_resolver(networks(&["127.0.0.1/32"]), Box::new(names));
    assert_eq!(outbound.get(&url, &fetch()).await, Err(OutboundError::Refused));
    assert_eq!(other.asked().len(), 0);
}

#[tokio::test]
async fn a_name_that_changes_its_address_gains_nothing() {
    let first = Server::start(|head| {
        let next = if head.starts_with("GET /away") { "302 Found\r\nLocation: /home" } else { "200 OK" };
        vec![(Duration::ZERO, format!("HTTP/1.1 {next}\r\nContent-Length: 0\r\n\r\n").into_bytes())]
    })
    .await;
    let inside = Server::on(&format!("127.0.0.2:{}", first.port), None, |_| vec![(Duration::ZERO, OK.into())]).await;
    let rebinding = || {
        let names = Names::new(&[&["127.0.0.1"], &["127.0.0.2"]]);
        (Outbound::with_resolver(networks(&["127.0.0.1/32"]), Box::new(names.clone())), names)
    };
    let url = |path: &str| format!("http://rebinding.example:{}{path}", first.port);
    // The address that was judged is the one that is connected to.
    let (outbound, names) = rebinding();
    assert_eq!(outbound.get(&url("/home"), &fetch()).await.unwrap().status, 200);
    assert_eq!(names.asked(), 1);
    // A redirect to the same name is judged anew.
    let (outbound, names) = rebinding();
    assert_eq!(outbound.get(&url("/away"), &fetch()).await, Err(OutboundError::Refused));
    assert_eq!(names.asked(), 2);
    assert_eq!(inside.asked(), [""; 0]);
}

/// `/3` leads to `/2`, `/1`, and there.
async fn staircase() -> Server {
    Server::start(|head| {
        let step: u32 = head[5..6].parse().unwrap();
        let cookie = "Set-Cookie: a=b\r\nWWW-Authenticate: Basic\r\n";
        let location =
            format!("HTTP/1.1 307 Temporary\r\n{cookie}Location: /{}\r\n\r\nwhatever", step.saturating_sub(1));
        vec![(Duration::ZERO, if step == 0 { OK.into() } else { location.into_bytes() })]
    })
    .await
}

#[tokio::test]
async fn redirects_are_followed_as_far_as_the_caller_says() {
    let server = staircase().await;
    let fetched = loopback().get(&server.url("/3"), &fetch()).await.unwrap();
    assert_eq!((fetched.final_url, fetched.body), (server.url("/0"), b"hi".to_vec()));
    assert_eq!(server.asked().len(), 4);
    // Every hop is asked in the same words: no cookie, no referer, no credentials.
    for (head, step) in server.asked().iter().zip(["3", "2", "1", "0"]) {
        assert_eq!(head.replace(&format!("/{step} "), "/ "), server.asked()[3].replace("/0 ", "/ "));
    }
    assert_eq!(loopback().get(&server.url("/4"), &fetch()).await, Err(OutboundError::TooManyRedirects(3)));
    let never = Fetch { max_redirects: 0, ..fetch() };
    assert_eq!(loopback().get(&server.url("/1"), &never).await, Err(OutboundError::Status(307)));
    assert_eq!(loopback().get(&server.url("/0"), &never).await.unwrap().status, 200);
}

#[tokio::test]
async fn redirects_to_where_nobody_may_go_are_refused() {
    let inside = Server::on("127.0.0.2:0", None, |_| vec![(Duration::ZERO, OK.into())]).await;
    let outbound = Outbound::new(networks(&["127.0.0.1/32"]));
    for status in [301, 302, 303, 307, 308] {
        for (location, expected) in [
            (format!("http://127.0.0.2:{}/", inside.port), OutboundError::Refused),
            (format!("//127.0.0.2:{}/", inside.port), OutboundError::Refused),
            (format!("http://[::ffff:127.0.0.2]:{}/", inside.port), OutboundError::Refused),
            (format!("http://0x7f.2:{}/", inside.port), OutboundError::Refused),
            ("http://169.254.169.254/latest/meta-data/".to_owned(), OutboundError::Refused),
            ("http://10.0.0.1/".to_owned(), OutboundError::Refused),
            ("http://[::1]/".to_owned(), OutboundError::Refused),
            ("file:///etc/passwd".to_owned(), OutboundError::BadRedirect(UrlError::Scheme)),
            ("http://a:b@127.0.0.1/".to_owned(), OutboundError::BadRedirect(UrlError::Credentials)),
            ("http://[".to_owned(), OutboundError::BadRedirect(UrlError::Form)),
            (format!("/{}", "a".repeat(MAX_URL)), OutboundError::BadRedirect(UrlError::TooLong)),
        ] {
            let server = Server::saying(format!("HTTP/1.1 {status} x\r\nLocation: {location}\r\n\r\n")).await;
            assert_eq!(outbound.get(&server.url("/"), &fetch()).await, Err(expected), "{status} {location}");
        }
    }
    assert_eq!(inside.asked(), [""; 0]);
    let loops = Server::saying("HTTP/1.1 301 x\r\nLocation: /\r\n\r\n").await;
    assert_eq!(loopback().get(&loops.url("/"), &fetch()).await, Err(OutboundError::TooManyRedirects(3)));
    assert_eq!(loops.asked().len(), 4);
}

#[tokio::test]
async fn errors_say_nothing_about_the_network_inside() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let allow = networks(&["127.0.0.0/8"]);
    for (names, expected) in [
        (Names::default(), OutboundError::Unresolvable),
        (Names::new(&[&[]]), OutboundError::Unresolvable),
        (Names::new(&[&["10.1.2.3", "fd00::1"]]), OutboundError::Refused),
        (Names::new(&[&["127.0.0.1", "10.1.2.3"]]), Failure::Connect.into()),
    ] {
        let outbound = Outbound::with_resolver(allow.clone(), Box::new(names));
        let error = outbound.get(&format!("http://db.internal:{port}/?token=hunter2"), &fetch()).await.unwrap_err();
        assert_eq!(error, expected);
        for said in [error.to_string(), format!("{error:?}")] {
            for secret in ["10.", "127.", "fd00", "internal", "hunter2", "refused (os", &port.to_string()] {
                assert!(!said.contains(secret), "{said}");
            }
        }
    }
}
