//! Looks for pieces of secrets in whatever the service has left.

use std::collections::{BTreeMap, HashMap};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Bytes of a piece: long enough to be nobody else's, short enough to be found in what was cut.
const PIECE: usize = 12;

/// Pieces, and whose they are.
#[derive(Default)]
pub struct Pieces(HashMap<[u8; PIECE], String>);

impl Pieces {
    fn note(&mut self, name: &str, bytes: &[u8]) {
        if let Ok(piece) = bytes.try_into() {
            self.0.insert(piece, name.to_owned());
        }
    }

    /// Notes what gives a secret away, but for its prefix, four characters behind that and the last four: as it is, in
    /// hexadecimal digits, in base64 however it lies there, and as a list of bytes.
    pub fn add(&mut self, name: &str, secret: &str) {
        let body = secret.rsplit_once("_cut_").map_or(secret, |(_, body)| body).as_bytes();
        for start in [0, (body.len() - PIECE) / 2, body.len() - PIECE] {
            self.note(name, &body[start..start + PIECE]);
        }
        for digits in [hex::encode(body), hex::encode_upper(body)] {
            let middle = digits.len() / 2 - PIECE / 2;
            self.note(name, &digits.as_bytes()[middle..middle + PIECE]);
        }
        for shift in 0..3 {
            for text in [STANDARD_NO_PAD.encode(&body[shift..]), URL_SAFE_NO_PAD.encode(&body[shift..])] {
                self.note(name, &text.as_bytes()[..PIECE]);
            }
        }
        let listed = format!("{body:?}");
        let middle = listed.len() / 2;
        self.note(name, &listed.as_bytes()[middle..middle + PIECE]);
    }

    /// Notes the body of one of our own secrets.
    pub fn add_own(&mut self, name: &str, secret: &str) {
        let body = match secret.strip_prefix("whsec_") {
            Some(body) => body,
            None if secret.starts_with("kws_") && secret.len() == 47 => &secret[4..],
            None => &secret[secret.len() - 48..],
        };
        self.add(name, &format!("_cut_{}", &body[4..body.len() - 4]));
    }

    /// Whose pieces stand in this, with what stands around the first of each.
    pub fn found_in(&self, bytes: &[u8]) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        for (at, window) in bytes.windows(PIECE).enumerate() {
            let piece: [u8; PIECE] = window.try_into().unwrap();
            if let Some(name) = self.0.get(&piece) {
                let around = &bytes[at.saturating_sub(120)..(at + 80).min(bytes.len())];
                found.entry(name.clone()).or_insert_with(|| String::from_utf8_lossy(around).into_owned());
            }
        }
        found
    }
}

#[test]
fn pieces_are_found_in_every_form() {
    let secret = super::corpus::key("sk", 7);
    let mut pieces = Pieces::default();
    pieces.add_own("it", &secret);
    for hidden in [
        secret.clone(),
        secret[10..45].to_owned(),
        hex::encode(&secret),
        hex::encode_upper(&secret),
        STANDARD_NO_PAD.encode(&secret),
        STANDARD_NO_PAD.encode(format!("x{secret}")),
        STANDARD_NO_PAD.encode(format!("xy{secret}")),
        format!("{:?}", secret.as_bytes()),
    ] {
        assert!(!pieces.found_in(format!("a{hidden}b").as_bytes()).is_empty(), "{hidden}");
    }
    let shown = format!("sk_{}…{}", &secret[3..7], &secret[47..]);
    assert!(pieces.found_in(shown.as_bytes()).is_empty());
}
