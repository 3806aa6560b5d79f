//! Where no message goes, however it is spelled and whatever the DNS says. The same URLs are refused by the routes that take
//! them (`tests/it/api/outbound_hostile.rs`).

use http::HeaderMap;

use super::*;

/// URLs, each with the reason why it is refused.
const URLS: &str = include_str!("../../../../tests/it/harness/hostile_urls.txt");

fn urls() -> impl Iterator<Item = (&'static str, &'static str)> {
    URLS.lines().filter(|line| !line.starts_with('#')).map(|line| line.split_once(' ').unwrap())
}

fn message(timeout: Duration) -> Post {
    Post { headers: HeaderMap::new(), body: Bytes::from_static(b"{}"), timeout, max_answer: 1024 }
}

fn quick() -> Post {
    message(Duration::from_secs(5))
}

#[tokio::test]
async fn hostile_urls_are_refused_when_they_are_given_and_when_they_are_used() {
    let outbound = Outbound::with_resolver(Vec::new(), Box::new(Names::new(&[&["8.8.8.8"]])));
    let mut count = 0;
    for (reason, url) in urls() {
        let expected = match reason {
            "refused" => OutboundError::Refused,
            "form" => UrlError::Form.into(),
            "credentials" => UrlError::Credentials.into(),
            "scheme" => UrlError::Scheme.into(),
            "port" => UrlError::Port.into(),
            "foreign_port" => UrlError::ForeignPort.into(),
            other => panic!("{other}?"),
        };
        assert_eq!(outbound.check_post(url), Err(expected), "{url}");
        assert_eq!(outbound.post(url, &quick()).await, Err(expected), "{url}");
        count += 1;
    }
    assert!(count >= 100, "only {count}");
    for url in
        ["https://example.com/", "https://example.com:8443/a?b", "https://8.8.8.8/", "https://[2606:4700::1111]/"]
    {
        assert_eq!(outbound.check_post(url), Ok(()), "{url}");
    }
}

#[tokio::test]
async fn the_allow_list_lets_in_what_it_names_and_nothing_beside_it() {
    // Where the text names these two, whatever its spelling.
    let outbound = Outbound::new(networks(&["10.0.0.1/32", "fc00::1/128"]));
    let allowed = [
        "https://10.0.0.1/",
        "https://012.0.0.1/",
        "https://167772161/",
        "https://[::ffff:10.0.0.1]/",
        "https://[64:ff9b::10.0.0.1]/",
        "https://[fc00::1]/",
    ];
    for (reason, url) in urls().filter(|(reason, _)| *reason != "scheme") {
        assert_eq!(outbound.check_post(url).is_ok(), allowed.contains(&url), "{reason} {url}");
        // In the clear, what is public is refused as well.
        let plain = url.replacen("https:", "http:", 1);
        assert_eq!(outbound.check_post(&plain).is_ok(), allowed.contains(&url), "{plain}");
    }
    for url in ["http://8.8.8.8/", "http://[2606:4700::1111]/"] {
        assert_eq!(outbound.check_post(url), Err(OutboundError::Plain), "{url}");
    }
}

#[tokio::test]
async fn hostile_answers_of_the_dns_are_refused() {
    let answers: &[&[&str]] = &[
        &["127.0.0.1"],
        &["127.8.8.8"],
        &["0.0.0.0"],
        &["10.0.0.1"],
        &["100.64.0.1"],
        &["100.100.100.200"],
        &["168.63.129.16"],
        &["169.254.169.254"],
        &["172.16.0.1"],
        &["192.0.0.192"],
        &["192.0.2.1"],
        &["192.88.99.1"],
        &["192.168.0.1"],
        &["198.18.0.1"],
        &["198.51.100.1"],
        &["203.0.113.1"],
        &["224.0.0.1"],
        &["240.0.0.1"],
        &["255.255.255.255"],
        &["::"],
        &["::1"],
        &["::127.0.0.1"],
        &["::ffff:127.0.0.1"],
        &["::ffff:169.254.169.254"],
        &["::ffff:0:10.0.0.1"],
        &["64:ff9b::127.0.0.1"],
        &["64:ff9b::169.254.169.254"],
        &["64:ff9b:1::8.8.8.8"],
        &["2001::1"],
        &["2001:db8::1"],
        &["2002:7f00:1::"],
        &["2002:a9fe:a9fe::"],
        &["3fff::1"],
        &["fc00::1"],
        &["fd00:ec2::254"],
        &["fe80::1"],
        &["fec0::1"],
        &["ff02::1"],
        &["5f00::1"],
        // None of several.
        &["10.0.0.1", "192.168.0.1", "::1", "fe80::1", "169.254.169.254"],
    ];
    for answer in answers {
        let names = Names::new(&[answer]);
        let outbound = Outbound::with_resolver(Vec::new(), Box::new(names.clone()));
        // An alias is what it leads to: the resolver follows it, and the guard sees the end.
        assert_eq!(outbound.post("https://alias.example/", &quick()).await, Err(OutboundError::Refused), "{answer:?}");
        assert_eq!(names.asked(), 1, "{answer:?}");
        let beside =
            Outbound::with_resolver(networks(&["10.9.9.9/32", "fd00:9::/64"]), Box::new(Names::new(&[answer])));
        assert_eq!(beside.post("https://alias.example/", &quick()).await, Err(OutboundError::Refused), "{answer:?}");
        assert_eq!(beside.post("http://alias.example/", &quick()).await, Err(OutboundError::Plain), "{answer:?}");
    }
    for (names, expected) in
        [(Names::default(), OutboundError::Unresolvable), (Names::new(&[&[]]), OutboundError::Unresolvable)]
    {
        let outbound = Outbound::with_resolver(Vec::new(), Box::new(names));
        assert_eq!(outbound.post("https://nowhere.example/", &quick()).await, Err(expected));
    }
}

#[tokio::test]
async fn of_a_mixed_answer_only_what_is_admitted_is_connected_to() {
    // That a name has a private address as well is common (split horizons) and harmless: nobody connects to it.
    let allowed = Server::saying(OK).await;
    let inside = Server::on(&format!("127.0.0.2:{}", allowed.port), None, |_| vec![(Duration::ZERO, OK.into())]).await;
    for answer in [&["127.0.0.2", "127.0.0.1"], &["127.0.0.1", "127.0.0.2"], &["::ffff:127.0.0.2", "::ffff:127.0.0.1"]]
    {
        let outbound = Outbound::with_resolver(networks(&["127.0.0.1/32"]), Box::new(Names::new(&[answer])));
        let posted = outbound.post(&format!("http://both.example:{}/", allowed.port), &quick()).await.unwrap();
        assert_eq!(posted.status, 200);
    }
    assert_eq!((allowed.asked().len(), inside.asked().len()), (3, 0));
}

#[tokio::test]
async fn a_name_that_changes_its_address_between_look_ups_gains_nothing() {
    let judged = Server::saying("HTTP/1.1 307 x\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n").await;
    let inside = Server::on(&format!("127.0.0.2:{}", judged.port), None, |_| vec![(Duration::ZERO, OK.into())]).await;
    let names = Names::new(&[&["127.0.0.1"], &["127.0.0.2"]]);
    let outbound = Outbound::with_resolver(networks(&["127.0.0.1/32"]), Box::new(names.clone()));
    let url = format!("http://rebinding.example:{}/", judged.port);
    // One look-up a message: the connection goes to what was judged; the redirect isn't followed.
    assert_eq!(outbound.post(&url, &quick()).await.unwrap().status, 307);
    assert_eq!((names.asked(), judged.asked().len()), (1, 1));
    // The next message asks anew, and is refused.
    assert_eq!(outbound.post(&url, &quick()).await, Err(OutboundError::Plain));
    assert_eq!((names.asked(), inside.asked()), (2, Vec::new()));
}

/// Never answers.
struct Silent;

impl Resolve for Silent {
    fn resolve(&self, _: String) -> BoxFuture<'_, io::Result<Vec<IpAddr>>> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn a_resolver_that_never_answers_costs_no_more_than_the_deadline() {
    let outbound = Outbound::with_resolver(Vec::new(), Box::new(Silent));
    let asked = outbound.post("https://silent.example/", &message(Duration::from_millis(100))).await;
    assert_eq!(asked, Err(OutboundError::Timeout));
}
