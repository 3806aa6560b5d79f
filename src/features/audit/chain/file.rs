//! Verifying an export, without the database: line by line, in constant memory.

use std::io::{self, BufRead, Read as _};

use crate::base::clock::Timestamp;
use crate::infra::audit_key::PublicKey;

use super::anchors::{Anchors, untrusted};
use super::export::{Header, Scope, Trailer};
use super::rules::{Hash, Kind, Record, START, canonical, parse_hash};
use super::verify::Verdict;
use super::walk::{Broken, Reason, Walk};

/// The longest line that is read, in bytes.
const MAX_LINE: u64 = 32 * 1024 * 1024;

/// What came of it.
#[derive(Debug)]
pub struct Checked {
    /// The verdict.
    pub verdict: Verdict,
    /// What the file holds.
    pub scope: Scope,
}

/// Why nothing was verified.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It isn't an export.
    #[error("{0}")]
    NoExport(String),
    /// It can't be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads a line without its end; `None` at the end of the file.
fn read_line(reader: &mut dyn BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let read = (&mut *reader).take(MAX_LINE).read_until(b'\n', line)?;
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    Ok(read > 0)
}

/// Verifies an export by the public keys of whoever signed it, and by what is known from elsewhere.
///
/// # Errors
/// The file can't be read, or isn't an export. A broken chain is a verdict, not an error.
pub fn verify(reader: &mut dyn BufRead, keys: &[PublicKey], known: Vec<(i64, Hash)>) -> Result<Checked, FileError> {
    let mut line = Vec::new();
    read_line(reader, &mut line)?;
    let header: Header = serde_json::from_slice(&line)
        .map_err(|error| FileError::NoExport(format!("the first line isn't that of an export: {error}")))?;
    if header.version != 1 {
        return Err(FileError::NoExport(format!("version {} isn't known here", header.version)));
    }
    let from = header.first_seq.unwrap_or(1);
    let mut verdict = Verdict::start(from, from - 1);
    let broken = match header.scope {
        Scope::Trail => trail(reader, keys, known, &header, &mut verdict)?,
        Scope::Projects => projects(reader, &mut verdict)?,
    };
    match broken {
        Some(broken) => verdict.broken(broken),
        None => verdict.valid = true,
    }
    verdict.complete = true;
    Ok(Checked { verdict, scope: header.scope })
}

/// A line after the first.
enum Line {
    Entry(Box<Record>),
    Trailer(Trailer),
}

/// An entry must stand there as it was written: in the one canonical form, so that no reader sees anything else in it.
fn parse(line: &[u8]) -> Option<Line> {
    if let Ok(record) = serde_json::from_slice::<Record>(line) {
        return (canonical(&record) == line).then(|| Line::Entry(Box::new(record)));
    }
    serde_json::from_slice::<Trailer>(line).ok().map(Line::Trailer)
}

fn trail(
    reader: &mut dyn BufRead,
    keys: &[PublicKey],
    known: Vec<(i64, Hash)>,
    header: &Header,
    verdict: &mut Verdict,
) -> Result<Option<Broken>, FileError> {
    let from = verdict.from_seq;
    let stated = header.previous_hash.as_deref().and_then(parse_hash);
    let pruned = header.pruned.as_ref().map(super::SignedView::read);
    let previous = match (&pruned, stated) {
        (Some(Some(pruned)), _) => {
            verdict.pruned_through = Some(pruned.seq);
            if let Some(broken) = untrusted(pruned, keys, Kind::Pruned, pruned.seq) {
                return Ok(Some(broken));
            }
            pruned.hash
        }
        (None, _) if from == 1 => START,
        (None, Some(stated)) => stated,
        _ => return Err(FileError::NoExport("the first line doesn't say after which entry it begins".to_owned())),
    };
    let mut walk = Walk::new(from, previous);
    let mut anchors = Anchors::new(keys, known, from);
    let (mut line, mut latest) = (Vec::new(), Timestamp::EPOCH);
    let (mut lines, mut trailer) = (0, None);
    let mut step = |walk: &mut Walk, anchors: &mut Anchors<'_>, record: Box<Record>| {
        let at = Timestamp::parse(&record.at).unwrap_or(latest);
        let seq = record.seq;
        walk.push(*record)?;
        if !walk.is_broken() {
            verdict.in_time(&mut latest, at, seq);
            anchors.compare(walk)?;
        }
        Ok::<(), Broken>(())
    };
    let mut broken = None;
    while broken.is_none() && read_line(reader, &mut line)? {
        if trailer.is_some() {
            broken = Some(Broken::new(walk.expected(), Reason::Inserted, "there are lines after the last"));
            break;
        }
        match parse(&line) {
            Some(Line::Entry(record)) => {
                lines += 1;
                broken = step(&mut walk, &mut anchors, record).err();
            }
            Some(Line::Trailer(last)) => trailer = Some(last),
            None => {
                // Behind a place that is broken already, that one counts.
                broken = walk.finish(0).err().or_else(|| {
                    let detail = format!("where entry {} should stand is no entry as it was written", walk.expected());
                    Some(Broken::new(walk.expected(), Reason::Changed, detail))
                });
            }
        }
    }
    verdict.to_seq = walk.expected() - 1;
    let broken = broken.or_else(|| at_the_end(&mut walk, &anchors, trailer.as_ref(), lines, verdict));
    verdict.checked = walk.checked();
    verdict.checkpoints = anchors.agreed;
    Ok(broken)
}

fn at_the_end(
    walk: &mut Walk,
    anchors: &Anchors<'_>,
    trailer: Option<&Trailer>,
    lines: u64,
    verdict: &mut Verdict,
) -> Option<Broken> {
    let Some(trailer) = trailer else {
        let detail = "the file ends before its last line".to_owned();
        return walk.finish(0).err().or(Some(Broken::new(walk.expected(), Reason::Truncated, detail)));
    };
    verdict.head.clone_from(&trailer.head);
    let Some(head) = trailer.head.as_ref().and_then(super::SignedView::read) else {
        return Some(Broken::new(walk.expected(), Reason::HeadMissing, "the last line names no place of the chain"));
    };
    if let Err(broken) = walk.finish(head.seq) {
        return Some(broken);
    }
    if trailer.entries != lines {
        let detail = format!("the last line speaks of {} entries, and there are {lines}", trailer.entries);
        return Some(Broken::new(walk.expected(), Reason::Truncated, detail));
    }
    let seq = anchors.vouched + 1;
    // A trail without entries has nothing to sign.
    if head.seq > 0 {
        if let Some(broken) = untrusted(&head, anchors.keys, Kind::Head, seq) {
            return Some(broken);
        }
        verdict.signed = !anchors.keys.is_empty();
    }
    if head.seq + 1 != walk.expected() || head.hash != walk.previous() {
        let detail = format!("the signed place, {}, is of another chain", head.seq);
        return Some(Broken::new(seq, Reason::Rewritten, detail));
    }
    None
}

/// Entries of some projects: each is checked alone.
fn projects(reader: &mut dyn BufRead, verdict: &mut Verdict) -> Result<Option<Broken>, FileError> {
    let (mut line, mut trailer) = (Vec::new(), None);
    let mut last = 0;
    while read_line(reader, &mut line)? {
        let changed = |detail| Ok(Some(Broken::new(last, Reason::Changed, detail)));
        match parse(&line) {
            Some(Line::Entry(record)) if trailer.is_none() => {
                last = record.seq;
                let is_whole = record
                    .stored_previous()
                    .is_some_and(|previous| record.stored_hash() == Some(record.digest(record.seq, &previous)));
                if !is_whole {
                    let detail = format!("entry {last} doesn't say what it said when it was sealed");
                    return Ok(Some(Broken::new(last, Reason::Changed, detail)));
                }
                verdict.checked += 1;
            }
            Some(Line::Trailer(found)) if trailer.is_none() => trailer = Some(found),
            Some(_) => return changed("there are lines after the last".to_owned()),
            None => return changed(format!("after entry {last} stands a line that is no entry as it was written")),
        }
    }
    verdict.from_seq = 0;
    verdict.to_seq = 0;
    let is_whole = trailer.is_some_and(|trailer| trailer.entries == verdict.checked);
    Ok((!is_whole).then(|| Broken::new(last, Reason::Truncated, "the file doesn't hold all of its entries")))
}
