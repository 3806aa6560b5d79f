//! `keyward audit verify` and `export`.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::pin::pin;

use futures_util::StreamExt as _;
use serde::Deserialize;
use serde_json::Value;

use crate::base::id::ProjectId;
use crate::ctx::Ctx;
use crate::features::audit::By;
use crate::features::audit::chain;
use crate::features::audit::chain::export::{self, Scope, Span, Whose};
use crate::features::audit::chain::file::{self, Checked};
use crate::features::audit::chain::rules::{Hash, parse_hash};
use crate::features::audit::chain::verify::{self, Asked, Verdict};
use crate::infra::audit_key::PublicKey;

use super::args::{ExportTrail, Format, VerifyTrail};
use super::{Failure, output};

/// Verifies the trail in the database.
pub(super) async fn verify(ctx: &Ctx, args: &VerifyTrail, format: Format) -> Result<(), Failure> {
    chain::open(ctx, false).await;
    let asked = Asked { known: known(args.checkpoint.as_deref())?, ..Asked::default() };
    let verdict = verify::verify(ctx, &asked).await.map_err(|error| Failure::Refused(error.to_string()))?;
    if ctx.keyring().trusted().is_empty() {
        output::complain("keyward: there is no key here: signatures aren't verified (see `keyward doctor`)");
    }
    if let Format::Json = format {
        output::json(&verdict)?;
    }
    tell(&verdict, format)
}

/// Verifies a file, without a database and without settings.
pub(super) fn verify_file(args: &VerifyTrail, path: &Path, format: Format) -> Result<(), Failure> {
    let keys = args.public_key.iter().map(|text| public_key(text)).collect::<Result<Vec<_>, _>>()?;
    let known = known(args.checkpoint.as_deref())?;
    let given = known.len();
    let mut reader = open(path)?;
    let checked = file::verify(&mut *reader, &keys, known)
        .map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?;
    if let Format::Json = format {
        output::json(&of_file(&checked)?)?;
    }
    let verdict = &checked.verdict;
    let apart = (given as u64).saturating_sub(verdict.checkpoints);
    if !checked.is_broken() && apart > 0 {
        output::complain(&format!("keyward: {apart} checkpoints are of entries that aren't in the file"));
    }
    if verdict.valid || checked.is_broken() {
        tell(verdict, format)?;
        if let Format::Table = format
            && verdict.from_seq > 1
            && verdict.pruned_through.is_none()
        {
            output::say(&format!("the file begins with entry {}, and doesn't show those before it", verdict.from_seq));
        }
        return Ok(());
    }
    unproven(&checked, args.entries_only, format)
}

/// The verdict on a file, for programs: `valid` is `null` where nothing is broken, and nothing proven either.
fn of_file(checked: &Checked) -> Result<Value, Failure> {
    let refused = |error: serde_json::Error| Failure::Refused(error.to_string());
    let mut told = serde_json::to_value(&checked.verdict).map_err(refused)?;
    if let Value::Object(members) = &mut told {
        let proven = checked.verdict.valid;
        let valid = if proven || checked.is_broken() { Value::Bool(proven) } else { Value::Null };
        members.insert("valid".to_owned(), valid);
        members.insert("proven".to_owned(), Value::Bool(proven));
        members.insert("scope".to_owned(), serde_json::to_value(checked.scope).map_err(refused)?);
    }
    Ok(told)
}

/// Says that nothing is proven: that is no success, unless just that was asked for.
fn unproven(checked: &Checked, entries_only: bool, format: Format) -> Result<(), Failure> {
    let Verdict { checked: entries, checkpoints, .. } = checked.verdict;
    if checked.scope == Scope::Trail {
        return Err(Failure::Refused("nothing to verify: the trail is empty, and not signed".to_owned()));
    }
    let text = format!(
        "NOT PROVEN: each of {entries} entries agrees with its own hash, {checkpoints} checkpoints agree, and nothing is \
         signed: anybody could have made this export of projects, and whether an entry is missing can't be seen"
    );
    if !entries_only {
        return Err(Failure::Refused(format!("{text} (--entries-only asks for no more than that)")));
    }
    if let Format::Table = format {
        output::say(&text);
    }
    Ok(())
}

fn open(path: &Path) -> Result<Box<dyn BufRead>, Failure> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    let file = File::open(path).map_err(|error| Failure::Usage(format!("can't open {}: {error}", path.display())))?;
    Ok(Box::new(BufReader::with_capacity(256 * 1024, file)))
}

fn public_key(text: &str) -> Result<PublicKey, Failure> {
    if let Some(key) = PublicKey::parse(text) {
        return Ok(key);
    }
    let read = std::fs::read_to_string(text)
        .map_err(|error| Failure::Usage(format!("{text} is neither a public key nor a file: {error}")))?;
    PublicKey::parse(&read)
        .ok_or_else(|| Failure::Usage(format!("{text} holds no Ed25519 public key in base64 or PEM")))
}

/// A checkpoint as it is stored elsewhere; what else it holds doesn't matter here.
#[derive(Deserialize)]
struct Stored {
    seq: i64,
    hash: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum StoredForm {
    Page { data: Vec<Stored> },
    List(Vec<Stored>),
    One(Stored),
}

fn known(path: Option<&Path>) -> Result<Vec<(i64, Hash)>, Failure> {
    let Some(path) = path else { return Ok(Vec::new()) };
    let wrong = |what: &str| Failure::Usage(format!("{}: {what}", path.display()));
    let text = std::fs::read(path).map_err(|error| wrong(&error.to_string()))?;
    let mut found = Vec::new();
    for form in serde_json::Deserializer::from_slice(&text).into_iter::<StoredForm>() {
        let stored = match form.map_err(|_| wrong("expected checkpoints with seq and hash, as JSON"))? {
            StoredForm::Page { data } => data,
            StoredForm::List(list) => list,
            StoredForm::One(one) => vec![one],
        };
        for Stored { seq, hash } in stored {
            found.push((seq, parse_hash(&hash).ok_or_else(|| wrong("a hash isn't 64 hexadecimal digits"))?));
        }
    }
    if found.is_empty() { Err(wrong("it holds no checkpoint")) } else { Ok(found) }
}

fn tell(verdict: &Verdict, format: Format) -> Result<(), Failure> {
    let Verdict { checked, checkpoints, .. } = verdict;
    if let Format::Table = format
        && verdict.valid
    {
        let by = match &verdict.head {
            Some(head) if verdict.signed => {
                format!("; the end is signed by the key {}", head.key_id.as_deref().unwrap_or_default())
            }
            Some(head) if head.seq == 0 => "; the trail is empty, and not signed".to_owned(),
            _ => "; NOT SIGNED by a key that is trusted here".to_owned(),
        };
        output::say(&format!("valid: {checked} entries, {checkpoints} checkpoints{by}"));
        if let Some(pruned) = verdict.pruned_through {
            output::say(&format!("the entries up to {pruned} were pruned"));
        }
        if let Some(since) = verdict.oldest_unsealed_at {
            output::say(&format!("{} entries wait to be sealed, the oldest since {since}", verdict.unsealed));
        }
        if let Some(first) = verdict.first_backdated_seq {
            let backdated = verdict.backdated;
            output::say(&format!("{backdated} entries were sealed later than their time says, the first is {first}"));
        }
    }
    if verdict.valid {
        return Ok(());
    }
    let seq = verdict.first_broken_seq.unwrap_or(0);
    let reason = verdict.reason.and_then(|reason| serde_json::to_value(reason).ok());
    let reason = reason.as_ref().and_then(Value::as_str).unwrap_or("unknown");
    let detail = verdict.detail.as_deref().unwrap_or_default();
    Err(Failure::Refused(format!("the audit trail is broken at entry {seq} ({reason}): {detail}")))
}

/// Writes the trail to a file that isn't there yet, or to standard output.
pub(super) async fn export(ctx: &Ctx, args: &ExportTrail) -> Result<(), Failure> {
    chain::open(ctx, false).await;
    let whose = match &args.project {
        Some(id) => {
            let id: ProjectId = id.parse().map_err(|_| Failure::Usage(format!("{id} isn't the id of a project")))?;
            Whose::Projects(vec![id])
        }
        None => Whose::Everybodys,
    };
    let span = Span { since: args.since, until: args.until };
    let Some(path) = &args.output else {
        return stream(ctx, whose, span, &mut io::stdout().lock()).await;
    };
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file =
        options.open(path).map_err(|error| Failure::Refused(format!("can't write {}: {error}", path.display())))?;
    let written = stream(ctx, whose, span, &mut file).await.and_then(|()| Ok(file.sync_all()?));
    if written.is_err() {
        // A part would look like the whole.
        drop(std::fs::remove_file(path));
    }
    written
}

async fn stream(ctx: &Ctx, whose: Whose, span: Span, to: &mut impl Write) -> Result<(), Failure> {
    export::begin(ctx, &By::system("cli", ctx), &whose, span).await?;
    let mut to = BufWriter::new(to);
    let mut lines = pin!(export::lines(ctx.clone(), whose, span));
    while let Some(part) = lines.next().await {
        to.write_all(&part?)?;
    }
    Ok(to.flush()?)
}
