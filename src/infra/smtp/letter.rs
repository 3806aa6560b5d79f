//! What a mail looks like on the wire (RFC 5322). The same mail is always the same bytes, however often it is sent.

use std::time::{Duration, SystemTime};

use lettre::address::Envelope;
use lettre::message::header::{ContentType, Header, HeaderName, HeaderValue, MIME_VERSION_1_0};
use lettre::message::{Mailbox, Message};

use crate::base::clock::Timestamp;
use crate::base::unseen::is_unseen;

/// One mail to one address.
#[derive(Clone, Copy, Debug)]
pub struct Letter<'a> {
    /// What makes its `Message-ID`, together with the writer's domain. By that a reader sees that two are one.
    pub id: &'a str,
    /// Its `Date`.
    pub at: Timestamp,
    /// Who writes.
    pub from: &'a Mailbox,
    /// To whom.
    pub to: &'a str,
    /// What about: one line.
    pub subject: &'a str,
    /// The text; lines end with `\n`.
    pub text: &'a str,
}

/// Nobody sent it by hand, so nobody's vacation answers it (RFC 3834, section 5).
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

impl Letter<'_> {
    /// The envelope and the bytes, ASCII alone.
    ///
    /// # Errors
    /// The address can't be one.
    pub(super) fn render(&self) -> Result<(Envelope, Vec<u8>), lettre::error::Error> {
        let to: lettre::Address = self.to.parse().map_err(|_| lettre::error::Error::MissingTo)?;
        let message = Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(one_line(self.subject))
            .date(SystemTime::UNIX_EPOCH + Duration::from_millis(self.at.as_millis()))
            .message_id(Some(format!("<{}@{}>", self.id, self.from.email.domain())))
            .header(AutoSubmitted)
            .header(MIME_VERSION_1_0)
            .header(ContentType::TEXT_PLAIN)
            .body(lines(self.text))?;
        Ok((message.envelope().clone(), message.formatted()))
    }
}

/// The longest subject, in characters; the rest is left out.
const MAX_SUBJECT: usize = 200;

/// The largest text, in bytes; the rest is left out.
const MAX_TEXT: usize = 16 * 1024;

/// One line, in which nothing begins a header or pretends to be encoded (RFC 2047).
fn one_line(text: &str) -> String {
    let line: String = text.chars().map(|c| if is_unseen(c) { ' ' } else { c }).collect();
    let line = line.split_whitespace().collect::<Vec<_>>().join(" ").replace("=?", "= ?");
    match line.char_indices().nth(MAX_SUBJECT) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

fn lines(text: &str) -> String {
    let mut lines: String =
        text.replace("\r\n", "\n").chars().filter(|c| matches!(c, '\n' | '\t') || !is_unseen(*c)).collect();
    if lines.len() > MAX_TEXT {
        lines.truncate(lines.floor_char_boundary(MAX_TEXT));
        lines.push('…');
    }
    // The end of the last line is added on the way.
    lines.truncate(lines.trim_end_matches('\n').len());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(subject: &str, text: &str) -> String {
        let from: Mailbox = "Keyward <keyward@example.com>".parse().unwrap();
        let at = Timestamp::parse("2026-11-20T12:00:00Z").unwrap();
        let letter = Letter { id: "mai_1", at, from: &from, to: "ops@corp.example", subject, text };
        let (envelope, bytes) = letter.render().unwrap();
        assert_eq!(envelope.from().unwrap().to_string(), "keyward@example.com");
        assert_eq!(envelope.to().iter().map(ToString::to_string).collect::<Vec<_>>(), ["ops@corp.example"]);
        assert_eq!(letter.render().unwrap().1, bytes);
        assert!(bytes.is_ascii());
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn headers_are_those_of_a_machine() {
        insta::assert_snapshot!(rendered("error_rate is 7.5 %", "It is over 5 %.\nSince 12:00.\n").replace('\r', ""), @r"
        From: Keyward <keyward@example.com>
        To: ops@corp.example
        Subject: error_rate is 7.5 %
        Date: Fri, 20 Nov 2026 12:00:00 +0000
        Message-ID: <mai_1@example.com>
        Auto-Submitted: auto-generated
        MIME-Version: 1.0
        Content-Type: text/plain; charset=utf-8
        Content-Transfer-Encoding: 7bit

        It is over 5 %.
        Since 12:00.");
    }

    #[test]
    fn nothing_in_a_subject_begins_a_header() {
        let names = |text: &str| {
            let head = text.split("\r\n\r\n").next().unwrap().replace("\r\n ", " ");
            head.split("\r\n").map(|line| line.split(':').next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let usual = names(&rendered("plain", "x"));
        for subject in [
            "a\r\nBcc: evil@example.com",
            "a\nBcc: evil@example.com\n\nbody",
            "a\rBcc: evil@example.com",
            "a\u{2028}Bcc: evil@example.com",
            "a\u{85}Bcc: x",
            "ä\r\nBcc: evil@example.com",
            "\0\u{7f}\u{1b}[31m",
            "",
            &"ü".repeat(5000),
            &"a".repeat(5000),
            &"a b ".repeat(500),
        ] {
            let text = rendered(subject, "body");
            assert_eq!(names(&text), usual, "{text}");
            assert!(text.split("\r\n").all(|line| line.len() <= 998), "{text}");
            assert!(text.ends_with("\r\n\r\nbody"), "{text}");
        }
        assert!(rendered("=?utf-8?b?YWJj?=", "x").contains("Subject: = ?utf-8?b?YWJj?=\r\n"));
        assert_eq!(one_line("a\r\nb\tc\u{202e}d"), "a b c d");
    }

    #[test]
    fn texts_are_encoded_and_bounded() {
        let text = rendered("ü", "Grüße\n.\n\nEnde\u{202e}\u{0}\n");
        assert!(text.contains("Subject: =?utf-8?b?w7w=?=\r\n"), "{text}");
        assert!(text.contains("quoted-printable") || text.contains("base64"), "{text}");
        assert!(text.split("\r\n").all(|line| !line.contains('\n') && line.len() <= 998));
        assert_eq!(lines("a\r\nb\rc\u{1b}[0m\td"), "a\nbc[0m\td");
        assert!(lines(&"ü".repeat(20_000)).len() <= MAX_TEXT + 4);
        assert!(rendered("a", &"x".repeat(50_000)).split("\r\n").all(|line| line.len() <= 998));
    }
}
