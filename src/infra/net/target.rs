//! What a URL asks for: where to connect, and what to say there. Reads text alone: no I/O.

use std::net::IpAddr;

use http::HeaderValue;
use http::uri::PathAndQuery;
use url::{Host, Url};

use super::error::UrlError;
use crate::base::unseen::is_unseen;

/// The longest URL, in bytes.
pub const MAX_URL: usize = 2048;

/// Which schemes are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schemes {
    /// `https` alone.
    Https,
    /// `http` as well: what comes may have been changed on its way, and who listens there sees what is asked for.
    HttpToo,
}

/// A URL, taken apart.
#[derive(Clone, Debug)]
pub(super) struct Target {
    url: Url,
    pub(super) host: Where,
    pub(super) port: u16,
    pub(super) https: bool,
    /// What the request line asks for.
    pub(super) path: PathAndQuery,
    /// The value of `Host`.
    pub(super) authority: HeaderValue,
}

/// Where a host is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Where {
    /// To be looked up: lower case, punycode.
    Name(String),
    /// Already an address, whatever its spelling was: `2130706433` and `0x7f.1` are `127.0.0.1`.
    Address(IpAddr),
}

impl Target {
    /// Reads an absolute URL. A fragment doesn't count.
    pub(super) fn parse(text: &str, schemes: Schemes) -> Result<Self, UrlError> {
        if text.len() > MAX_URL {
            return Err(UrlError::TooLong);
        }
        // The parser forgives what other readers of the same text may take in another way.
        let lenient = text.chars().any(|c| c == ' ' || c == '\\' || is_unseen(c));
        let mut url = Url::parse(text).map_err(|_| UrlError::Form)?;
        let https = match (url.scheme(), schemes) {
            ("https", _) => true,
            ("http", Schemes::HttpToo) => false,
            _ => return Err(UrlError::Scheme),
        };
        let authority = text.split_once("://").map_or("", |(_, rest)| rest.split(['/', '?', '#']).next().unwrap_or(""));
        if lenient || authority.is_empty() {
            return Err(UrlError::Form);
        }
        if authority.contains('@') {
            return Err(UrlError::Credentials);
        }
        url.set_fragment(None);
        let port = url.port_or_known_default().filter(|port| *port > 0).ok_or(UrlError::Port)?;
        let host = match url.host().ok_or(UrlError::Form)? {
            Host::Domain(name) if name.trim_end_matches('.').is_empty() => return Err(UrlError::Form),
            Host::Domain(name) => Where::Name(name.to_owned()),
            Host::Ipv4(ip) => Where::Address(ip.into()),
            Host::Ipv6(ip) => Where::Address(ip.into()),
        };
        let path = url[url::Position::BeforePath..].parse().map_err(|_| UrlError::Form)?;
        let authority = url[url::Position::BeforeHost..url::Position::AfterPort].parse().map_err(|_| UrlError::Form)?;
        Ok(Self { url, host, port, https, path, authority })
    }

    /// Where a redirect leads. From `https` it never leads to `http`.
    pub(super) fn redirected(&self, location: &HeaderValue, schemes: Schemes) -> Result<Self, UrlError> {
        let location = location.to_str().map_err(|_| UrlError::Form)?;
        let url = self.url.join(location).map_err(|_| UrlError::Form)?;
        Self::parse(url.as_str(), if self.https { Schemes::Https } else { schemes })
    }

    /// The URL in its one spelling.
    pub(super) fn url(&self) -> &str {
        self.url.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Where {
        Target::parse(text, Schemes::HttpToo).unwrap_or_else(|error| panic!("{text}: {error}")).host
    }

    #[test]
    fn addresses_are_seen_in_every_spelling() {
        for text in [
            "http://127.0.0.1/",
            "http://127.0.0.1./",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://017700000001/",
            "http://0x7f.1/",
            "http://127.1/",
            "http://127.0.1/",
            "http://0177.0.0.1/",
            "http://0x7F.0x0.0X0.0x1/",
            "http://%31%32%37.0.0.1/",
            "http://①②⑦.⓪.⓪.①/",
            "http://127。0。0。1/",
            "HTTPS://127.0.0.1:8443?x#y",
        ] {
            assert_eq!(host(text), Where::Address("127.0.0.1".parse().unwrap()), "{text}");
        }
        for (text, address) in [
            ("http://0/", "0.0.0.0"),
            ("http://[::1]/", "::1"),
            ("http://[0:0:0:0:0:0:0:1]:80/", "::1"),
            ("http://[::ffff:127.0.0.1]/", "::ffff:127.0.0.1"),
            ("http://[::ffff:7f00:1]/", "::ffff:127.0.0.1"),
            ("http://[::127.0.0.1]/", "::7f00:1"),
            ("http://169.254.169.254/latest/meta-data/", "169.254.169.254"),
            ("http://2852039166/", "169.254.169.254"),
        ] {
            assert_eq!(host(text), Where::Address(address.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn names_have_one_spelling() {
        for (text, name) in [
            ("https://example.com/a", "example.com"),
            ("https://EXAMPLE.com./a", "example.com."),
            ("https://bücher.example/", "xn--bcher-kva.example"),
            ("http://localhost./", "localhost."),
            ("http://local%68ost/", "localhost"),
            ("http://127.0.0.1.example.com/", "127.0.0.1.example.com"),
            ("https://some_host/", "some_host"),
        ] {
            assert_eq!(host(text), Where::Name(name.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_asked_for_is_taken_apart() {
        for (text, authority, path, port) in [
            ("https://example.com", "example.com", "/", 443),
            ("http://example.com", "example.com", "/", 80),
            ("https://example.com:443/", "example.com", "/", 443),
            ("https://example.com:8443/a", "example.com:8443", "/a", 8443),
            ("https://[2001:DB8::1]:1/?q=%20|{}^`#frag", "[2001:db8::1]:1", "/?q=%20|{}^`", 1),
            ("https://example.com?q", "example.com", "/?q", 443),
            ("https://example.com/a/../%2e%2e/b;c=\"é\"[]", "example.com", "/b;c=%22%C3%A9%22[]", 443),
            ("https://example.com/ключ?鍵", "example.com", "/%D0%BA%D0%BB%D1%8E%D1%87?%E9%8D%B5", 443),
        ] {
            let target = Target::parse(text, Schemes::HttpToo).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((target.authority.to_str().unwrap(), target.path.as_str()), (authority, path), "{text}");
            assert_eq!((target.port, target.https), (port, text.starts_with("https")), "{text}");
        }
    }

    #[test]
    fn what_is_no_usable_url_is_refused_with_its_reason() {
        let long = format!("https://example.com/{}", "a".repeat(MAX_URL));
        for (text, reason) in [
            ("", UrlError::Form),
            ("example.com", UrlError::Form),
            ("/openapi.json", UrlError::Form),
            ("//example.com/", UrlError::Form),
            ("http://", UrlError::Form),
            ("http:///", UrlError::Form),
            ("http:///example.com", UrlError::Form),
            ("http:example.com", UrlError::Form),
            ("https:/example.com", UrlError::Form),
            ("http://?q", UrlError::Form),
            ("http://./", UrlError::Form),
            ("http://../", UrlError::Form),
            ("http://:80/", UrlError::Form),
            ("http://exa mple.com/", UrlError::Form),
            ("http://exa\nmple.com/", UrlError::Form),
            (" http://example.com/", UrlError::Form),
            ("http://example.com/\t", UrlError::Form),
            ("http://example.com/\u{7f}", UrlError::Form),
            ("http://example.com/\u{85}", UrlError::Form),
            ("http://example.com/?\u{9b}31m", UrlError::Form),
            ("http://example.com/\u{202e}gpj.exe", UrlError::Form),
            ("http://example.com/\u{2066}a\u{2069}", UrlError::Form),
            ("http://example.com/a\u{2028}b", UrlError::Form),
            ("http://example.com/#\u{200b}", UrlError::Form),
            ("http://exa\u{200d}mple.com/", UrlError::Form),
            ("http://exa\u{ad}mple.com/", UrlError::Form),
            ("\u{feff}http://example.com/", UrlError::Form),
            ("http://example.com\\@127.0.0.1/", UrlError::Form),
            ("http:\\\\127.0.0.1\\", UrlError::Form),
            ("http://256.256.256.256/", UrlError::Form),
            ("http://1.2.3.4.5/", UrlError::Form),
            ("http://0x100000000/", UrlError::Form),
            ("http://[::1/", UrlError::Form),
            ("http://[fe80::1%25eth0]/", UrlError::Form),
            ("http://[127.0.0.1]/", UrlError::Form),
            ("http://example.com:65536/", UrlError::Form),
            ("http://example.com:http/", UrlError::Form),
            ("http://example.com:0/", UrlError::Port),
            ("file:///etc/passwd", UrlError::Scheme),
            ("file://localhost/etc/passwd", UrlError::Scheme),
            ("gopher://127.0.0.1:6379/_x", UrlError::Scheme),
            ("ftp://example.com/", UrlError::Scheme),
            ("ws://example.com/", UrlError::Scheme),
            ("data:text/plain,x", UrlError::Scheme),
            ("unix:/run/docker.sock", UrlError::Scheme),
            ("http+unix://%2Frun%2Fdocker.sock/", UrlError::Scheme),
            ("javascript:alert(1)", UrlError::Scheme),
            ("http://user@example.com/", UrlError::Credentials),
            ("http://user:pass@example.com/", UrlError::Credentials),
            ("http://:@example.com/", UrlError::Credentials),
            ("http://@example.com/", UrlError::Credentials),
            ("http://example.com@127.0.0.1/", UrlError::Credentials),
            (&long, UrlError::TooLong),
        ] {
            let result = Target::parse(text, Schemes::HttpToo).map(|target| target.url().to_owned());
            assert_eq!(result, Err(reason), "{text}");
        }
        assert_eq!(Target::parse("http://example.com/", Schemes::Https).unwrap_err(), UrlError::Scheme);
    }

    #[test]
    fn redirects_never_lead_from_https_to_http() {
        let target = |text: &str| Target::parse(text, Schemes::HttpToo).unwrap();
        let redirected = |from: &str, to: &'static str| {
            target(from).redirected(&HeaderValue::from_static(to), Schemes::HttpToo).map(|to| to.url().to_owned())
        };
        for (from, to, expected) in [
            ("https://a.example/x/y?z", "w", Ok("https://a.example/x/w")),
            ("https://a.example/x/y?z", "/w#f", Ok("https://a.example/w")),
            ("https://a.example/x/y?z", "//b.example:1/", Ok("https://b.example:1/")),
            ("https://a.example/", "https://b.example", Ok("https://b.example/")),
            ("https://a.example/", "http://a.example/", Err(UrlError::Scheme)),
            ("http://a.example/", "http://b.example/", Ok("http://b.example/")),
            ("http://a.example/", "https://b.example/", Ok("https://b.example/")),
            ("http://a.example/", "file:///etc/passwd", Err(UrlError::Scheme)),
            ("http://a.example/", "//user:pass@b.example/", Err(UrlError::Credentials)),
            ("http://a.example/", "http://b.example:0/", Err(UrlError::Port)),
            ("http://a.example/", "http://[", Err(UrlError::Form)),
        ] {
            assert_eq!(redirected(from, to), expected.map(str::to_owned), "{from} {to}");
        }
        let odd = HeaderValue::from_bytes(b"http://b.example/\xff").unwrap();
        assert_eq!(target("http://a.example/").redirected(&odd, Schemes::HttpToo).unwrap_err(), UrlError::Form);
    }
}
