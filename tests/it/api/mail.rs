//! E-mail, from the transaction that causes it to a real mail server.

use std::time::Duration;

use keyward::base::id::ProjectId;
use keyward::features::mail::{self, Appended, Message};
use keyward::infra::config::NotPermitted;

use super::support::{texts, until};
use crate::both_engines;
use crate::harness::postgres::free_port;
use crate::harness::smtp::{LOGIN, MailServer};
use crate::harness::{App, Engine};

const TO: &str = "ops@corp.example";
const SOON: Duration = Duration::from_secs(20);

/// A service that may write to corp.example by way of a mail server.
async fn start(engine: Engine, server: &MailServer, tls: &str, more: &[(&str, &str)]) -> App {
    let port = server.port.to_string();
    let mut settings = vec![
        ("KEYWARD_SMTP_HOST", "localhost"),
        ("KEYWARD_SMTP_PORT", &port),
        ("KEYWARD_SMTP_TLS", tls),
        ("KEYWARD_SMTP_CA_FILE", server.certificate.to_str().unwrap()),
        ("KEYWARD_SMTP_FROM", "Keyward <keyward@auth.example>"),
        ("KEYWARD_MAIL_RECIPIENTS", "@corp.example, oncall@pager.example"),
    ];
    settings.extend(more);
    App::start_with(engine, &settings).await
}

const PRIVATE: [(&str, &str); 2] = [("KEYWARD_SMTP_USERNAME", LOGIN.0), ("KEYWARD_SMTP_PASSWORD", LOGIN.1)];

async fn project(app: &App) -> ProjectId {
    app.person("anna").await.project.parse().unwrap()
}

/// Writes a mail in a transaction of its own.
async fn write(app: &App, project: ProjectId, to: &str) -> Appended {
    let message = Message {
        project,
        to: to.to_owned(),
        subject: "error_rate is 7.5 % – über 5 %".to_owned(),
        text: "error_rate: 7.5\nthreshold: 5\n.\nGrüße\n".to_owned(),
    };
    let mut tx = app.ctx.db.begin().await.unwrap();
    let appended = mail::append(&mut tx, &app.ctx, message).await.unwrap();
    tx.commit().await.unwrap();
    appended
}

async fn waiting(app: &App) -> i64 {
    app.count("SELECT count(*) FROM mails WHERE done_at IS NULL").await
}

/// Outcome, number of tries and error of each mail.
async fn outcomes(app: &App) -> Vec<String> {
    let sql = "SELECT COALESCE(outcome, 'waiting') || ' ' || CAST(attempts AS TEXT) || ' ' || COALESCE(error, '') FROM mails ORDER BY id";
    texts(app, sql.to_owned()).await
}

async fn until_outcome(app: &App, start: &str) -> String {
    until(SOON, true, async || outcomes(app).await.first().is_some_and(|outcome| outcome.starts_with(start))).await;
    outcomes(app).await.remove(0)
}

fn header<'a>(message: &'a str, name: &str) -> &'a str {
    let head = message.split("\r\n\r\n").next().unwrap();
    let mut found = head.split("\r\n").filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let value = found.next().unwrap_or_else(|| panic!("no {name} in {head}"));
    assert_eq!(found.next(), None, "{name} twice in {head}");
    value
}

/// A metric's value.
async fn counted(app: &App, outcome: &str) -> String {
    let name = format!("keyward_mails_total{{outcome=\"{outcome}\"}} ");
    let metrics = app.metrics().await;
    metrics.lines().find_map(|line| line.strip_prefix(&name)).unwrap_or("0").to_owned()
}

both_engines! {
    async fn a_mail_arrives_over_starttls_with_the_headers_of_a_machine(engine: Engine) {
        let server = MailServer::start("starttls", true, &[]).await;
        let app = start(engine, &server, "starttls", &PRIVATE).await;
        let project = project(&app).await;
        // What isn't committed was never written.
        let mut tx = app.ctx.db.begin().await.unwrap();
        let lost = Message { project, to: TO.to_owned(), subject: "lost".to_owned(), text: String::new() };
        assert!(matches!(mail::append(&mut tx, &app.ctx, lost).await.unwrap(), Appended::Waiting(_)));
        drop(tx);
        let Appended::Waiting(id) = write(&app, project, TO).await else { panic!("not written") };

        let taken = server.mails(1).await;
        let mail = &taken[0];
        assert_eq!((&mail["encrypted"], &mail["login"]), (&true.into(), &LOGIN.0.into()), "{mail}");
        assert_eq!((&mail["sender"], &mail["hello"]), (&"keyward@auth.example".into(), &"auth.example".into()));
        assert_eq!(mail["recipients"], serde_json::json!([TO]));
        let message = mail["message"].as_str().unwrap();
        for (name, value) in [
            ("From", "Keyward <keyward@auth.example>"),
            ("To", TO),
            ("Date", "Tue, 06 May 2031 12:00:00 +0000"),
            ("Message-ID", &format!("<{id}@auth.example>")),
            ("Auto-Submitted", "auto-generated"),
            ("MIME-Version", "1.0"),
            ("Content-Type", "text/plain; charset=utf-8"),
        ] {
            assert_eq!(header(message, name), value, "{message}");
        }
        let python = "import sys, email, email.policy; m = email.message_from_string(sys.argv[1], policy=email.policy.default); print(m['subject']); print(m.get_content(), end='')";
        let read = std::process::Command::new("python3").args(["-c", python, message]).output().unwrap();
        let read = String::from_utf8(read.stdout).unwrap();
        assert_eq!(read, "error_rate is 7.5 % – über 5 %\nerror_rate: 7.5\nthreshold: 5\n.\nGrüße\n");

        assert_eq!(until_outcome(&app, "sent").await, "sent 1 ");
        // What it said isn't kept.
        assert_eq!(app.count("SELECT count(*) FROM mails WHERE text = ''").await, 1);
        until(SOON, "1".to_owned(), async || counted(&app, "sent").await).await;
        app.advance(Duration::from_hours(3));
        mail::send::send(&app.ctx).await.unwrap();
        assert_eq!(server.taken().len(), 1);
    }

    async fn what_is_refused_for_now_is_sent_again_as_the_same_mail(engine: Engine) {
        let replies = [("DATA", "451 4.7.1 Greylisted <ops@corp.example>"), ("RCPT", "421 4.3.2 Shutting down")];
        let server = MailServer::start("starttls", false, &replies).await;
        let app = start(engine, &server, "starttls", &[]).await;
        let Appended::Waiting(id) = write(&app, project(&app).await, TO).await else { panic!("not written") };
        let outcome = until_outcome(&app, "waiting 1 4").await;
        assert_eq!(outcome, "waiting 1 451 4.7.1 Greylisted <o***@corp.example>");
        mail::send::send(&app.ctx).await.unwrap();
        assert_eq!((server.taken().len(), server.refused().len(), waiting(&app).await), (0, 1, 1));
        app.advance(Duration::from_secs(75));
        assert_eq!(until_outcome(&app, "waiting 2 4").await, "waiting 2 421 4.3.2 Shutting down");
        app.advance(Duration::from_mins(3));
        let taken = server.mails(1).await;
        let message = taken[0]["message"].as_str().unwrap();
        assert_eq!(header(message, "Message-ID"), format!("<{id}@auth.example>"));
        assert_eq!(header(message, "Date"), "Tue, 06 May 2031 12:00:00 +0000");
        // The one that was refused was the same.
        let said = server.until(|_| true).await;
        let first = said.iter().find_map(|line| line["message"].as_str().filter(|_| line["refused"].is_string()));
        assert_eq!(first, Some(message));
        assert_eq!(until_outcome(&app, "sent").await, "sent 3 421 4.3.2 Shutting down");
        assert_eq!((counted(&app, "retried").await, counted(&app, "refused").await), ("2".into(), "0".into()));
    }

    async fn what_is_refused_for_good_is_given_up(engine: Engine) {
        let server = MailServer::start("none", false, &[("RCPT", "550 5.1.1 <ops@corp.example> unknown")]).await;
        let app = start(engine, &server, "none", &[]).await;
        let project = project(&app).await;
        write(&app, project, TO).await;
        app.advance(Duration::from_secs(1));
        write(&app, project, "dev@corp.example").await;
        assert_eq!(until_outcome(&app, "refused").await, "refused 1 550 5.1.1 <o***@corp.example> unknown");
        // The next one isn't held up by it.
        assert_eq!(server.mails(1).await[0]["recipients"][0], "dev@corp.example");
        until(SOON, 0, async || waiting(&app).await).await;
        app.advance(Duration::from_hours(25));
        mail::send::send(&app.ctx).await.unwrap();
        assert_eq!(server.refused().len(), 1);
        assert_eq!((counted(&app, "refused").await, counted(&app, "sent").await), ("1".into(), "1".into()));
    }

    async fn a_server_that_is_away_is_tried_for_a_day(engine: Engine) {
        let server = MailServer::start("none", false, &[]).await;
        let port = free_port();
        let away = [("KEYWARD_SMTP_PORT", port.to_string())];
        let app = start(engine, &server, "none", &[(away[0].0, &away[0].1)]).await;
        let project = project(&app).await;
        write(&app, project, TO).await;
        let mut tries = 1;
        // The last try is at the end of the day.
        while until_outcome(&app, "").await.starts_with("waiting") {
            let tried = async || outcomes(&app).await.remove(0).split(' ').nth(1).unwrap().parse::<i64>().unwrap() >= tries;
            until(SOON, true, tried).await;
            until(SOON, 0, async || app.count("SELECT count(*) FROM mails WHERE done_at IS NULL AND error IS NULL").await).await;
            app.advance(Duration::from_mins(150));
            tries += 1;
            assert!(tries < 30);
            let is_tried = async || {
                let outcome = outcomes(&app).await.remove(0);
                !outcome.starts_with(&format!("waiting {} ", tries - 1))
            };
            until(SOON, true, is_tried).await;
        }
        assert_eq!(counted(&app, "expired").await, "1");
        assert!(until_outcome(&app, "expired").await.contains("onnection"), "{:?}", outcomes(&app).await);
        // It comes back.
        write(&app, project, "dev@corp.example").await;
        until(SOON, 0, async || app.count("SELECT count(*) FROM mails WHERE attempts = 0").await).await;
        let back = MailServer::start_at(port, "none", false, &[]).await;
        app.advance(Duration::from_mins(2));
        assert_eq!(back.mails(1).await[0]["recipients"][0], "dev@corp.example");
    }

    async fn without_starttls_nothing_is_said_in_the_clear(engine: Engine) {
        let server = MailServer::start("none", false, &[]).await;
        let app = start(engine, &server, "starttls", &PRIVATE).await;
        write(&app, project(&app).await, TO).await;
        let outcome = until_outcome(&app, "waiting 1 ").await;
        until(SOON, true, async || outcomes(&app).await[0].contains("STARTTLS")).await;
        assert!(!server.was_given_mail() && server.refused().is_empty(), "{outcome}");
    }

    async fn a_server_that_nobody_vouches_for_gets_nothing(engine: Engine) {
        for tls in ["starttls", "tls"] {
            let (server, other) = (MailServer::start(tls, true, &[]).await, MailServer::start(tls, true, &[]).await);
            // By another's certificate; by the right one, under a name that it isn't for; by the system's.
            let elsewhere = other.certificate.to_str().unwrap();
            for wrong in [("KEYWARD_SMTP_CA_FILE", elsewhere), ("KEYWARD_SMTP_HOST", "127.0.0.1"), ("KEYWARD_SMTP_CA_FILE", "/dev/null"), ("KEYWARD_SMTP_CA_FILE", "")] {
                let app = start(engine, &server, tls, &[PRIVATE[0], PRIVATE[1], wrong]).await;
                write(&app, project(&app).await, TO).await;
                until(SOON, true, async || outcomes(&app).await[0].contains("ertificate")).await;
            }
            assert!(!server.was_given_mail() && server.refused().is_empty());
        }
    }

    async fn a_wrong_password_is_not_the_mails_fault(engine: Engine) {
        let server = MailServer::start("tls", true, &[]).await;
        let app = start(engine, &server, "tls", &[PRIVATE[0], ("KEYWARD_SMTP_PASSWORD", "hunter2")]).await;
        write(&app, project(&app).await, TO).await;
        until(SOON, true, async || outcomes(&app).await[0].starts_with("waiting 1 permanent error (535)")).await;
        assert!(!outcomes(&app).await[0].contains("hunter2"));
        assert_eq!((server.refused(), server.was_given_mail()), (vec!["login".to_owned()], false));
        // Nor where a log-in is wanted, and there is none.
        let app = start(engine, &server, "tls", &[]).await;
        write(&app, project(&app).await, TO).await;
        until(SOON, true, async || outcomes(&app).await[0].contains("530")).await;
        assert!(outcomes(&app).await[0].starts_with("waiting 1 ") && server.taken().is_empty());
    }

    async fn tls_from_the_first_byte(engine: Engine) {
        let server = MailServer::start("tls", true, &[]).await;
        let app = start(engine, &server, "tls", &PRIVATE).await;
        let project = project(&app).await;
        for to in [TO, "a@corp.example", "oncall@pager.example", "ONCALL@Pager.Example"] {
            write(&app, project, to).await;
        }
        let taken = server.mails(4).await;
        assert!(taken.iter().all(|mail| mail["encrypted"] == true && mail["login"] == LOGIN.0));
        until(SOON, 0, async || waiting(&app).await).await;
        until(SOON, true, async || app.metrics().await.contains("\nkeyward_mails_waiting 0\n")).await;
    }

    async fn nobody_writes_to_strangers_or_too_much(engine: Engine) {
        let server = MailServer::start("none", false, &[]).await;
        let app = start(engine, &server, "none", &[("KEYWARD_MAIL_PER_DAY", "3")]).await;
        let (project, other) = (project(&app).await, app.person("bob").await.project.parse().unwrap());
        let refused = Appended::NotPermitted(NotPermitted::Recipient);
        assert_eq!(write(&app, project, "stranger@elsewhere.example").await, refused);
        assert_eq!(write(&app, project, "ops@pager.example").await, refused);
        assert_eq!(write(&app, project, "no address").await, Appended::NotPermitted(NotPermitted::Form));
        // Of many at once as many are written as may be.
        let all = futures_util::future::join_all((0..12).map(|_| write(&app, project, TO))).await;
        assert_eq!(all.iter().filter(|appended| matches!(appended, Appended::Waiting(_))).count(), 3);
        assert_eq!(all.iter().filter(|appended| **appended == Appended::TooMany).count(), 9);
        // Others aren't held up, and tomorrow is another day.
        assert!(matches!(write(&app, other, TO).await, Appended::Waiting(_)));
        app.advance(Duration::from_hours(12));
        assert!(matches!(write(&app, project, TO).await, Appended::Waiting(_)));
        server.mails(5).await;
        until(SOON, 0, async || waiting(&app).await).await;
        assert_eq!((counted(&app, "not_permitted").await, counted(&app, "too_many").await), ("3".into(), "9".into()));
        // Nothing is written where there is no server.
        let off = App::start(engine).await;
        let nowhere = project_of(&off).await;
        assert_eq!(write(&off, nowhere, TO).await, Appended::NotPermitted(NotPermitted::Off));
        assert_eq!(off.count("SELECT count(*) FROM mails").await, 0);
    }

    async fn several_who_send_share_the_work(engine: Engine) {
        let server = MailServer::start("none", false, &[]).await;
        let app = start(engine, &server, "none", &[]).await;
        let project = project(&app).await;
        for n in 0..12 {
            write(&app, project, &format!("r{n}@corp.example")).await;
        }
        for done in futures_util::future::join_all((0..4).map(|_| mail::send::send(&app.ctx))).await {
            done.unwrap();
        }
        until(SOON, 0, async || waiting(&app).await).await;
        let mut to: Vec<String> =
            server.taken().iter().map(|mail| mail["recipients"][0].as_str().unwrap().to_owned()).collect();
        to.sort();
        to.dedup();
        assert_eq!((to.len(), server.taken().len()), (12, 12));
    }

    async fn whoever_dies_in_the_middle_is_replaced(engine: Engine) {
        let server = MailServer::start("none", false, &[("DATA", "451 later")]).await;
        let app = start(engine, &server, "none", &[]).await;
        write(&app, project(&app).await, TO).await;
        until_outcome(&app, "waiting 1 451").await;
        // As if another process had claimed it just now.
        app.tamper(match engine {
            Engine::Sqlite => "UPDATE mails SET attempts = 2, next_at = 1936094700000000",
            Engine::Postgres => "UPDATE mails SET attempts = 2, next_at = '2031-05-06T12:05:00Z'",
        })
        .await;
        app.advance(Duration::from_secs(299));
        mail::send::send(&app.ctx).await.unwrap();
        assert!(server.taken().is_empty());
        app.advance(Duration::from_secs(2));
        server.mails(1).await;
        assert!(until_outcome(&app, "sent").await.starts_with("sent 3 "));
    }

    async fn what_was_sent_is_forgotten_after_a_while(engine: Engine) {
        let server = MailServer::start("none", false, &[]).await;
        let app = start(engine, &server, "none", &[("KEYWARD_MAIL_RETENTION", "7d")]).await;
        write(&app, project(&app).await, TO).await;
        until_outcome(&app, "sent").await;
        app.advance(Duration::from_hours(7 * 24 - 1));
        keyward::worker::prune(&app.ctx).await.unwrap();
        assert_eq!(app.count("SELECT count(*) FROM mails").await, 1);
        app.advance(Duration::from_hours(2));
        keyward::worker::prune(&app.ctx).await.unwrap();
        assert_eq!((app.count("SELECT count(*) FROM mails").await, app.count("SELECT count(*) FROM mail_days").await), (0, 0));
    }
}

async fn project_of(app: &App) -> ProjectId {
    project(app).await
}
