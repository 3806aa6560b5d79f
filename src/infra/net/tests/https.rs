//! Hosts that prove who they are, or don't.

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::*;

/// Proof of being `host`, and who believes it.
fn proof(host: &str) -> (TlsAcceptor, RootCertStore) {
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    (Arc::new(config).into(), roots)
}

async fn secure(
    host: &str,
    script: impl Fn(&str) -> Script + Clone + Send + Sync + 'static,
) -> (Server, RootCertStore) {
    let (acceptor, roots) = proof(host);
    (Server::on("127.0.0.1:0", Some(acceptor), script).await, roots)
}

fn trusting(roots: RootCertStore) -> Outbound {
    let names = Names::new(&[&["127.0.0.1"]]);
    Outbound::assemble(networks(&["127.0.0.0/8"]), Box::new(names), Tls::trusting(roots))
}

#[tokio::test]
async fn https_is_spoken_with_hosts_that_prove_who_they_are() {
    let (server, roots) = secure("secure.example", |_| vec![(Duration::ZERO, OK.into())]).await;
    let url = |host: &str| format!("https://{host}:{}/", server.port);
    let outbound = trusting(roots);
    for host in ["secure.example", "SECURE.example."] {
        assert_eq!(outbound.get(&url(host), &fetch()).await.unwrap().body, b"hi", "{host}");
    }
    let untrusted = Err(Failure::Tls.into());
    for host in ["other.example", "127.0.0.1", "some_host"] {
        assert_eq!(outbound.get(&url(host), &fetch()).await, untrusted, "{host}");
    }
    // By the system's certificates, nobody has made that one.
    assert_eq!(loopback().get(&url("127.0.0.1"), &fetch()).await, untrusted);
    // One that doesn't speak TLS at all.
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = plain.local_addr().unwrap().port();
    tokio::spawn(async move { plain.accept().await.unwrap().0.write_all(OK.as_bytes()).await });
    assert_eq!(outbound.get(&format!("https://secure.example:{port}/"), &fetch()).await, untrusted);
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn an_address_can_prove_itself() {
    let (server, roots) = secure("127.0.0.1", |_| vec![(Duration::ZERO, OK.into())]).await;
    let url = format!("https://127.0.0.1:{}/", server.port);
    assert_eq!(trusting(roots).get(&url, &fetch()).await.unwrap().final_url, url);
}

#[tokio::test]
async fn an_answer_over_tls_that_somebody_cuts_short_is_no_answer() {
    // Without a length, only the end of TLS says that the body is whole; the end of the connection is anybody's.
    for (whole, expected) in [(true, Ok(4)), (false, Err(Failure::Http.into()))] {
        let (acceptor, roots) = proof("secure.example");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://secure.example:{}/", listener.local_addr().unwrap().port());
        tokio::spawn(async move {
            let mut stream = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nbody").await.unwrap();
            stream.flush().await.unwrap();
            let mut asked = [0; 1024];
            while !asked.windows(4).any(|end| end == b"\r\n\r\n") {
                assert!(stream.read(&mut asked).await.unwrap() > 0);
            }
            if whole {
                stream.shutdown().await.unwrap();
            }
        });
        let got = trusting(roots).get(&url, &fetch()).await.map(|fetched| fetched.body.len());
        assert_eq!(got, expected);
    }
}

#[tokio::test]
async fn from_https_nothing_leads_to_http() {
    let plain = Server::saying(OK).await;
    let location = plain.url("/");
    let (server, roots) = secure("secure.example", move |head| {
        let next = if head.starts_with("GET /there") { "/here" } else { &location };
        vec![(Duration::ZERO, format!("HTTP/1.1 302 x\r\nLocation: {next}\r\n\r\n").into_bytes())]
    })
    .await;
    let url = format!("https://secure.example:{}/there", server.port);
    let downgrade = Err(OutboundError::BadRedirect(UrlError::Scheme));
    assert_eq!(trusting(roots).get(&url, &fetch()).await, downgrade);
    assert_eq!((server.asked().len(), plain.asked().len()), (2, 0));
}
