//! E-mail: the server that takes it, and to whom it may go.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use lettre::message::Mailbox;

use crate::base::secret::Secret;

use super::server::positive;
use super::source::{ConfigError, Loaded};

/// Settings of e-mail.
#[derive(Clone, Debug)]
pub struct MailConfig {
    /// The server that takes it; no mail is sent where there is none.
    pub smtp: Option<SmtpConfig>,
    /// To whom mail may go: nobody else is ever written to.
    pub recipients: Vec<Recipient>,
    /// How many mails a project may cause a day (UTC).
    pub per_day: u32,
    /// How long is remembered what was sent.
    pub retention: Duration,
}

/// A mail server, as a client of it needs to know it (RFC 6409).
#[derive(Clone, Debug)]
pub struct SmtpConfig {
    /// Its name or address.
    pub host: String,
    /// 587 with STARTTLS, 465 with TLS, 25 without, unless it is set.
    pub port: u16,
    /// What it wants to be shown, if anything.
    pub credentials: Option<(String, Secret)>,
    /// Who writes.
    pub from: Mailbox,
    /// How the connection is protected.
    pub tls: SmtpTls,
    /// Certificate authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
}

/// How a connection to a mail server is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SmtpTls {
    /// It begins in the clear and must turn to TLS before anything is said (RFC 3207).
    StartTls,
    /// TLS from its first byte (RFC 8314).
    Tls,
    /// Not at all.
    None,
}

/// Who may be written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipient {
    /// One address, in lower case.
    Address(String),
    /// Everybody at a domain, in lower case; nobody at those below it.
    Domain(String),
}

/// Why nothing is sent to an address. The text is for whoever named it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotPermitted {
    /// There is no mail server.
    #[error("this server sends no e-mail: its operator has configured none")]
    Off,
    /// It can't be an address, or is one of a form that leads elsewhere on its way.
    #[error("expected an e-mail address such as ops@example.com")]
    Form,
    /// It isn't among those that the operator allows.
    #[error("the operator allows no e-mail to this address")]
    Recipient,
}

impl MailConfig {
    pub(super) fn parse(loaded: &Loaded) -> Result<Self, ConfigError> {
        let texts: Vec<String> = loaded.list("mail_recipients", RECIPIENTS)?;
        let recipients = texts.iter().map(|text| {
            Recipient::parse(text).ok_or_else(|| loaded.invalid("mail_recipients", format!("expected {RECIPIENTS}")))
        });
        Ok(Self {
            smtp: SmtpConfig::parse(loaded)?,
            recipients: recipients.collect::<Result<_, _>>()?,
            per_day: loaded.number("mail_per_day", 1..=1_000_000).map(|n| u32::try_from(n).unwrap_or(u32::MAX))?,
            retention: positive(loaded, "mail_retention")?,
        })
    }

    /// Whether mail may go to an address.
    ///
    /// # Errors
    /// Why not.
    pub fn permits(&self, address: &str) -> Result<(), NotPermitted> {
        if self.smtp.is_none() {
            return Err(NotPermitted::Off);
        }
        let (local, domain) = parts(address).ok_or(NotPermitted::Form)?;
        let fits = |recipient: &Recipient| match recipient {
            Recipient::Address(one) => one
                .rsplit_once('@')
                .is_some_and(|(l, d)| l.eq_ignore_ascii_case(local) && d.eq_ignore_ascii_case(domain)),
            Recipient::Domain(all) => all.eq_ignore_ascii_case(domain),
        };
        if self.recipients.iter().any(fits) { Ok(()) } else { Err(NotPermitted::Recipient) }
    }
}

const RECIPIENTS: &str = "addresses such as ops@example.com, or domains such as @example.com, separated by commas";

impl Recipient {
    fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        match text.strip_prefix('@') {
            Some(domain) => is_domain(domain).then(|| Self::Domain(domain.to_owned())),
            None => parts(&text).is_some().then_some(Self::Address(text)),
        }
    }
}

/// The longest address (RFC 5321, section 4.5.3.1.3, without its brackets), in bytes.
const MAX_ADDRESS: usize = 254;

/// An address's local part and domain. Narrower than RFC 5321: no quoted local parts, which readers of the same text take in
/// different ways, and no `%` or `!`, by which old servers send on to somewhere else.
fn parts(address: &str) -> Option<(&str, &str)> {
    let (local, domain) = address.split_once('@')?;
    let is_atom = |b: u8| b.is_ascii_alphanumeric() || b"#$&'*+-/=?^_`{|}~".contains(&b);
    let is_local =
        (1..=64).contains(&local.len()) && local.split('.').all(|part| !part.is_empty() && part.bytes().all(is_atom));
    (address.len() <= MAX_ADDRESS && is_local && is_domain(domain)).then_some((local, domain))
}

/// ASCII alone: others are written in punycode. No address in brackets, and no name without a dot.
fn is_domain(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.contains('.') && text.split('.').all(is_label)
}

impl SmtpConfig {
    fn parse(loaded: &Loaded) -> Result<Option<Self>, ConfigError> {
        let host = loaded.text("smtp_host").trim().trim_start_matches('[').trim_end_matches(']');
        let (username, password) = (loaded.text("smtp_username"), loaded.text("smtp_password"));
        if host.is_empty() {
            let is_alone = !username.is_empty() || !password.is_empty() || !loaded.text("smtp_from").is_empty();
            return if is_alone {
                Err(ConfigError::Together("smtp_username, smtp_password or smtp_from is set, but smtp_host isn't"))
            } else {
                Ok(None)
            };
        }
        if !host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:".contains(&b)) {
            return Err(loaded.invalid("smtp_host", "expected a host such as smtp.example.com"));
        }
        let is_here = host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let (tls, usual) = match loaded.text("smtp_tls") {
            "starttls" => (SmtpTls::StartTls, 587),
            "tls" => (SmtpTls::Tls, 465),
            "none" if is_here => (SmtpTls::None, 25),
            "insecure" if is_here || username.is_empty() => (SmtpTls::None, 25),
            "none" => {
                return Err(loaded.invalid(
                    "smtp_tls",
                    "only a server on this machine is spoken to in the clear; insecure says that this one may be, too",
                ));
            }
            "insecure" => {
                return Err(loaded.invalid("smtp_tls", "a password isn't sent in the clear to another machine"));
            }
            _ => return Err(loaded.invalid("smtp_tls", "expected starttls, tls, none or insecure")),
        };
        let credentials = match (username, password) {
            ("", "") => None,
            ("", _) | (_, "") => {
                return Err(ConfigError::Together("smtp_username and smtp_password are set together, or neither"));
            }
            (username, password) => Some((username.to_owned(), Secret::new(password.to_owned()))),
        };
        let from = loaded.text("smtp_from").trim();
        if from.is_empty() {
            return Err(ConfigError::Together("smtp_host is set, but smtp_from isn't"));
        }
        let from: Mailbox =
            from.parse().ok().filter(is_writer).ok_or_else(|| {
                loaded.invalid("smtp_from", "expected an address such as Keyward <keyward@example.com>")
            })?;
        let port = match loaded.text("smtp_port") {
            "" => usual,
            _ => u16::try_from(loaded.number("smtp_port", 1..=65535)?).unwrap_or(usual),
        };
        let ca_file = Some(loaded.text("smtp_ca_file")).filter(|path| !path.is_empty()).map(PathBuf::from);
        Ok(Some(Self { host: host.to_owned(), port, credentials, from, tls, ca_file }))
    }
}

fn is_writer(from: &Mailbox) -> bool {
    let is_plain = |name: &String| !name.chars().any(char::is_control);
    from.name.as_ref().is_none_or(is_plain) && parts(from.email.as_ref()).is_some()
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    fn parse(settings: &[(&str, &str)]) -> Result<MailConfig, String> {
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let loaded = Loaded::load(None, settings, []).unwrap();
        Config::parse(&loaded).map(|config| config.mail).map_err(|error| error.to_string())
    }

    const HOST: (&str, &str) = ("KEYWARD_SMTP_HOST", "smtp.example.com");
    const FROM: (&str, &str) = ("KEYWARD_SMTP_FROM", "Keyward <keyward@example.com>");

    fn permitted(recipients: &str) -> MailConfig {
        parse(&[HOST, FROM, ("KEYWARD_MAIL_RECIPIENTS", recipients)]).unwrap()
    }

    #[test]
    fn off_until_configured_and_then_protected() {
        let off = parse(&[]).unwrap();
        assert!(off.smtp.is_none() && off.permits("ops@example.com") == Err(NotPermitted::Off));
        let smtp = parse(&[HOST, FROM]).unwrap().smtp.unwrap();
        assert_eq!((smtp.port, smtp.tls), (587, SmtpTls::StartTls));
        assert!(smtp.credentials.is_none() && smtp.ca_file.is_none());
        let smtp = parse(&[HOST, FROM, ("KEYWARD_SMTP_TLS", "tls")]).unwrap().smtp.unwrap();
        assert_eq!((smtp.port, smtp.tls), (465, SmtpTls::Tls));
        let smtp = parse(&[HOST, FROM, ("KEYWARD_SMTP_PORT", "2525")]).unwrap().smtp.unwrap();
        assert_eq!(smtp.port, 2525);
    }

    #[test]
    fn in_the_clear_only_on_this_machine_unless_the_operator_says_so() {
        for host in ["localhost", "127.0.0.1", "[::1]", "::1"] {
            let smtp = parse(&[("KEYWARD_SMTP_HOST", host), FROM, ("KEYWARD_SMTP_TLS", "none")]).unwrap().smtp.unwrap();
            assert_eq!((smtp.port, smtp.tls), (25, SmtpTls::None), "{host}");
        }
        assert!(parse(&[HOST, FROM, ("KEYWARD_SMTP_TLS", "none")]).unwrap_err().contains("in the clear"));
        assert!(parse(&[HOST, FROM, ("KEYWARD_SMTP_TLS", "insecure")]).is_ok());
        let user = [("KEYWARD_SMTP_USERNAME", "keyward"), ("KEYWARD_SMTP_PASSWORD", "hunter2")];
        let error = parse(&[HOST, FROM, user[0], user[1], ("KEYWARD_SMTP_TLS", "insecure")]).unwrap_err();
        assert!(error.contains("in the clear") && !error.contains("hunter2"), "{error}");
        let smtp = parse(&[HOST, FROM, user[0], user[1]]).unwrap().smtp.unwrap();
        assert!(!format!("{smtp:?}").contains("hunter2"));
    }

    #[test]
    fn what_belongs_together_is_set_together() {
        for wrong in [
            &[HOST][..],
            &[FROM],
            &[HOST, FROM, ("KEYWARD_SMTP_USERNAME", "keyward")],
            &[HOST, FROM, ("KEYWARD_SMTP_PASSWORD", "hunter2")],
            &[("KEYWARD_SMTP_PASSWORD", "hunter2")],
            &[("KEYWARD_SMTP_HOST", "smtp://example.com"), FROM],
            &[("KEYWARD_SMTP_HOST", "a b"), FROM],
            &[HOST, ("KEYWARD_SMTP_FROM", "keyward")],
            &[HOST, ("KEYWARD_SMTP_FROM", "a@example.com, b@example.com")],
            &[HOST, ("KEYWARD_SMTP_FROM", "a\r\nBcc: x@example.com <a@example.com>")],
            &[HOST, FROM, ("KEYWARD_SMTP_TLS", "maybe")],
            &[HOST, FROM, ("KEYWARD_SMTP_PORT", "0")],
            &[("KEYWARD_MAIL_RECIPIENTS", "*")],
            &[("KEYWARD_MAIL_RECIPIENTS", "example.com")],
            &[("KEYWARD_MAIL_PER_DAY", "0")],
        ] {
            let error = parse(wrong).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn nobody_is_written_to_whom_the_operator_does_not_allow() {
        assert_eq!(permitted("").permits("ops@example.com"), Err(NotPermitted::Recipient));
        let config = permitted("Ops@Example.com, @corp.example");
        for (address, expected) in [
            ("ops@example.com", Ok(())),
            ("OPS@EXAMPLE.COM", Ok(())),
            ("anna.b+alerts@corp.example", Ok(())),
            ("dev@example.com", Err(NotPermitted::Recipient)),
            ("ops@example.com.evil.example", Err(NotPermitted::Recipient)),
            ("a@sub.corp.example", Err(NotPermitted::Recipient)),
            ("a@notcorp.example", Err(NotPermitted::Recipient)),
            ("a@xn--crp-0na.example", Err(NotPermitted::Recipient)),
        ] {
            assert_eq!(config.permits(address), expected, "{address}");
        }
        let long = format!("{}@corp.example", "a".repeat(65));
        for address in [
            "",
            "@corp.example",
            "corp.example",
            "a@b@corp.example",
            "a@corp",
            "a@[127.0.0.1]",
            "a@corp.example.",
            "a@corp..example",
            "a@-corp.example",
            ".a@corp.example",
            "a.@corp.example",
            "a..b@corp.example",
            "\"a b\"@corp.example",
            "a b@corp.example",
            "A <a@corp.example>",
            "a@evil.example,b@corp.example",
            "a%evil.example@corp.example",
            "evil.example!a@corp.example",
            "a@corp.example\r\nRCPT TO:<b@evil.example>",
            "a\n@corp.example",
            "a@corp.example ",
            "ä@corp.example",
            "a@cörp.example",
            "a(comment)@corp.example",
            "<a@corp.example>",
            &long,
        ] {
            assert_eq!(config.permits(address), Err(NotPermitted::Form), "{address:?}");
        }
    }
}
