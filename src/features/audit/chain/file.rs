//! Verifying an export, without the database: line by line, in constant memory.

use std::io::{self, BufRead, Read as _};

use crate::base::clock::Timestamp;
use crate::infra::audit_key::PublicKey;

use super::Trust;
use super::anchors::{Anchors, untrusted};
use super::export::{Header, Scope, Trailer};
use super::rules::{Hash, Kind, Record, START, canonical, parse_hash};
use super::verify::Verdict;
use super::walk::{Broken, Reason, Walk};

/// The longest line that is read, in bytes.
const MAX_LINE: u64 = 32 * 1024 * 1024;
/// The last place that JSON can name exactly.
const MAX_SEQ: i64 = 9_007_199_254_740_991;

/// What came of it.
#[derive(Debug)]
pub struct Checked {
    /// The verdict: valid only where a good signature vouches for all of the file.
    pub verdict: Verdict,
    /// What the file holds.
    pub scope: Scope,
}

impl Checked {
    /// Whether something isn't as it was sealed. What isn't broken may still be unproven: whatever nobody signed, anybody
    /// could have made.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.verdict.reason.is_some()
    }
}

/// Why nothing was verified.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It isn't an export.
    #[error("{0}")]
    NoExport(String),
    /// Without a key nothing can be proven.
    #[error("there is no public key to verify it by")]
    NoKey,
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
/// The file can't be read, isn't an export, or there is no key. A broken chain is a verdict, not an error.
pub fn verify(reader: &mut dyn BufRead, keys: &[PublicKey], known: Vec<(i64, Hash)>) -> Result<Checked, FileError> {
    if keys.is_empty() {
        return Err(FileError::NoKey);
    }
    let mut line = Vec::new();
    read_line(reader, &mut line)?;
    let header: Header = serde_json::from_slice(&line)
        .map_err(|error| FileError::NoExport(format!("the first line isn't that of an export: {error}")))?;
    if header.kind != "header" {
        return Err(FileError::NoExport("the first line isn't that of an export".to_owned()));
    }
    if header.version != 1 {
        return Err(FileError::NoExport(format!("version {} isn't known here", header.version)));
    }
    let mut verdict = Verdict::start(0, 0);
    let broken = match header.scope {
        Scope::Trail => trail(reader, keys, known, &header, &mut verdict)?,
        Scope::Projects => projects(reader, known, &header, &mut verdict)?,
    };
    match broken {
        Some(broken) => verdict.broken(broken),
        // Nothing else proves anything: hashes alone anybody can make.
        None => verdict.valid = verdict.signed,
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
    serde_json::from_slice::<Trailer>(line).ok().filter(|trailer| trailer.kind == "trailer").map(Line::Trailer)
}

/// Where the file begins, and after which hash; what vouches for that is good.
fn beginning(header: &Header, keys: &[PublicKey], verdict: &mut Verdict) -> Result<Result<Hash, Broken>, FileError> {
    let missing = || FileError::NoExport("the first line doesn't say after which entry it begins".to_owned());
    let from = header.first_seq.ok_or_else(missing)?;
    let stated = header.previous_hash.as_deref().and_then(parse_hash).ok_or_else(missing)?;
    if !(1..=MAX_SEQ).contains(&from) {
        let detail = format!("the file says that it begins with entry {from}, and no trail has that place");
        return Ok(Err(Broken::new(from, Reason::Inserted, detail)));
    }
    (verdict.from_seq, verdict.to_seq) = (from, from - 1);
    if let Some(pruned) = &header.pruned {
        let pruned = pruned.read().ok_or_else(missing)?;
        verdict.pruned_through = Some(pruned.seq);
        if let Some(broken) = untrusted(&pruned, keys, Kind::Pruned, pruned.seq) {
            return Ok(Err(broken));
        }
        if (pruned.seq, pruned.hash) != (from - 1, stated) {
            let detail = format!("what was pruned doesn't end before entry {from}, with which the file begins");
            return Ok(Err(Broken::new(from, Reason::Changed, detail)));
        }
    } else if from == 1 && stated != START {
        return Ok(Err(Broken::new(1, Reason::Changed, "the first line names an entry before the first")));
    }
    Ok(Ok(stated))
}

/// What is known of the entry before the first: what the file says of that one must agree. Says how many do.
fn before(known: &[(i64, Hash)], from: i64, previous: &Hash) -> Result<u64, Broken> {
    let mut agreed = 0;
    for (seq, hash) in known.iter().filter(|(seq, _)| *seq == from - 1) {
        if hash != previous {
            let detail = format!("entry {seq} is known from elsewhere with another hash than the file begins after");
            return Err(Broken::new(from, Reason::Rewritten, detail));
        }
        agreed += 1;
    }
    Ok(agreed)
}

fn trail(
    reader: &mut dyn BufRead,
    keys: &[PublicKey],
    known: Vec<(i64, Hash)>,
    header: &Header,
    verdict: &mut Verdict,
) -> Result<Option<Broken>, FileError> {
    let previous = match beginning(header, keys, verdict)? {
        Ok(previous) => previous,
        Err(broken) => return Ok(Some(broken)),
    };
    let from = verdict.from_seq;
    let agreed = match before(&known, from, &previous) {
        Ok(agreed) => agreed,
        Err(broken) => return Ok(Some(broken)),
    };
    let is_known = !known.is_empty();
    let mut walk = Walk::new(from, previous);
    let mut anchors = Anchors::new(keys, known, from);
    anchors.agreed = agreed;
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
    let broken = broken.or_else(|| {
        let may_be_empty = from == 1 && header.pruned.is_none() && !is_known;
        at_the_end(&mut walk, &anchors, trailer.as_ref(), (lines, may_be_empty), verdict)
    });
    verdict.checked = walk.checked();
    verdict.checkpoints = anchors.agreed;
    Ok(broken)
}

fn at_the_end(
    walk: &mut Walk,
    anchors: &Anchors<'_>,
    trailer: Option<&Trailer>,
    (lines, may_be_empty): (u64, bool),
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
    // A trail without entries has nothing to sign: that is no proof, and must not hide entries that are known.
    let is_start = lines == 0 && walk.expected() == 1 && (head.seq, head.hash) == (0, START);
    if is_start && head.trust(anchors.keys, Kind::Head) == Trust::Unsigned {
        if may_be_empty {
            return None;
        }
        return Some(Broken::new(1, Reason::Truncated, "entries are known from elsewhere, and the file holds none"));
    }
    if let Some(broken) = untrusted(&head, anchors.keys, Kind::Head, seq) {
        return Some(broken);
    }
    verdict.signed = true;
    if head.seq != walk.expected() - 1 || head.hash != walk.previous() {
        let detail = format!("the signed place, {}, is of another chain", head.seq);
        return Some(Broken::new(seq, Reason::Rewritten, detail));
    }
    let next = walk.expected();
    anchors.known.last().filter(|(seq, _)| *seq >= next).map(|(seq, _)| {
        let detail = format!("entry {seq} is known from elsewhere, and the file ends with {}", next - 1);
        Broken::new(next, Reason::Truncated, detail)
    })
}

/// Entries of some projects: each is checked alone, and by what is known of it from elsewhere. Nothing here is signed.
fn projects(
    reader: &mut dyn BufRead,
    mut known: Vec<(i64, Hash)>,
    header: &Header,
    verdict: &mut Verdict,
) -> Result<Option<Broken>, FileError> {
    // A trail whose first line was changed, so that its signature doesn't count.
    let renamed =
        || Broken::new(0, Reason::Changed, "the file says that it is of projects, and names places of the trail");
    if header.first_seq.is_some() || header.previous_hash.is_some() || header.pruned.is_some() {
        return Ok(Some(renamed()));
    }
    known.sort_unstable();
    let (mut line, mut trailer) = (Vec::new(), None);
    let mut last = 0;
    while read_line(reader, &mut line)? {
        let changed = |detail| Ok(Some(Broken::new(last, Reason::Changed, detail)));
        match parse(&line) {
            Some(Line::Entry(record)) if trailer.is_none() => {
                last = record.seq;
                match alone(&record, &known) {
                    Ok(agreed) => verdict.checkpoints += agreed,
                    Err(broken) => return Ok(Some(broken)),
                }
                verdict.checked += 1;
            }
            Some(Line::Trailer(found)) if trailer.is_none() => trailer = Some(found),
            Some(_) => return changed("there are lines after the last".to_owned()),
            None => return changed(format!("after entry {last} stands a line that is no entry as it was written")),
        }
    }
    if trailer.as_ref().is_some_and(|trailer| trailer.head.is_some()) {
        return Ok(Some(renamed()));
    }
    let is_whole = trailer.is_some_and(|trailer| trailer.entries == verdict.checked);
    Ok((!is_whole).then(|| Broken::new(last, Reason::Truncated, "the file doesn't hold all of its entries")))
}

/// Whether an entry agrees with its own hash, and with all that is known of its place, in the order of the chain. Says how
/// much that is.
fn alone(record: &Record, known: &[(i64, Hash)]) -> Result<u64, Broken> {
    let (seq, stored) = (record.seq, record.stored_hash());
    let digest = record.stored_previous().map(|previous| record.digest(seq, &previous));
    if seq < 1 || stored.is_none() || stored != digest {
        let detail = format!("entry {seq} doesn't say what it said when it was sealed");
        return Err(Broken::new(seq, Reason::Changed, detail));
    }
    let mut agreed = 0;
    let first = known.partition_point(|(place, _)| *place < seq);
    for (_, hash) in known.iter().skip(first).take_while(|(place, _)| *place == seq) {
        if stored != Some(*hash) {
            let detail = format!("entry {seq} is known from elsewhere with another hash");
            return Err(Broken::new(seq, Reason::Rewritten, detail));
        }
        agreed += 1;
    }
    Ok(agreed)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use ring::signature::{Ed25519KeyPair, KeyPair as _};

    use super::super::rules::message;
    use super::super::rules::tests::record;
    use super::super::{Signed, SignedView};
    use super::*;

    fn pair() -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap()
    }

    fn public() -> PublicKey {
        PublicKey(pair().public_key().as_ref().try_into().unwrap())
    }

    fn signed(kind: Kind, seq: i64, hash: Hash) -> SignedView {
        let at = Timestamp::EPOCH;
        let signature = Some(pair().sign(&message(kind, seq, &hash, at)).as_ref().to_vec());
        Signed { seq, hash, at: Some(at), key_id: Some(public().id()), signature }.view()
    }

    fn unsigned(seq: i64, hash: Hash) -> SignedView {
        Signed { seq, hash, at: None, key_id: None, signature: None }.view()
    }

    struct Export {
        header: Header,
        entries: Vec<Record>,
        trailer: Trailer,
    }

    impl Export {
        fn check(&self, known: &[(i64, Hash)]) -> Result<Checked, FileError> {
            let entries = self.entries.iter().map(canonical);
            // The canonical form turns large numbers into fractions, which a forger needn't do.
            let header = serde_json::to_vec(&self.header).unwrap();
            let lines: Vec<_> = [header].into_iter().chain(entries).collect();
            let text = [lines.join(&b'\n'), canonical(&self.trailer)].join(&b'\n');
            verify(&mut Cursor::new(text), &[public()], known.to_vec())
        }

        fn reason(&self, known: &[(i64, Hash)]) -> Option<Reason> {
            let verdict = self.check(known).unwrap().verdict;
            assert!(!verdict.valid, "{verdict:?}");
            verdict.reason
        }

        fn hash(&self, at: usize) -> Hash {
            self.entries[at].stored_hash().unwrap()
        }

        /// As the header of an export of projects is.
        fn of_projects(mut self) -> Self {
            self.header =
                Header { scope: Scope::Projects, first_seq: None, previous_hash: None, pruned: None, ..self.header };
            self.trailer.head = None;
            self
        }
    }

    /// A run of a chain, hashed as anybody can do it, and signed.
    fn run(first: i64, length: i64) -> Export {
        let mut previous = START;
        let mut entries = Vec::new();
        for seq in first..first + length {
            let mut entry = Record { seq, previous_hash: hex::encode(previous), ..record(seq, "ada") };
            previous = entry.digest(seq, &previous);
            entry.hash = Some(hex::encode(previous));
            entries.push(entry);
        }
        Export {
            header: Header {
                kind: "header".to_owned(),
                version: 1,
                scope: Scope::Trail,
                exported_at: Timestamp::EPOCH,
                first_seq: Some(first),
                previous_hash: Some(hex::encode(START)),
                pruned: None,
            },
            trailer: Trailer {
                kind: "trailer".to_owned(),
                entries: entries.len() as u64,
                head: Some(signed(Kind::Head, first + length - 1, previous)),
                key_id: None,
                public_key: None,
            },
            entries,
        }
    }

    #[test]
    fn a_signed_run_is_proven() {
        let export = run(1, 4);
        let found = export.check(&[(2, export.hash(1)), (4, export.hash(3))]).unwrap().verdict;
        assert!(found.valid && found.signed, "{found:?}");
        assert_eq!((found.checked, found.checkpoints), (4, 2));
    }

    #[test]
    fn what_stands_before_the_first_entry_is_no_trail() {
        let mut forged = run(-2, 3);
        forged.trailer.head = Some(unsigned(0, forged.hash(2)));
        assert_eq!(forged.reason(&[]), Some(Reason::Inserted));
        assert_eq!(forged.reason(&[(1, [1; 32])]), Some(Reason::Inserted));
        for first in [i64::MIN, 0, i64::MAX] {
            let mut forged = run(1, 0);
            forged.header.first_seq = Some(first);
            assert_eq!(forged.reason(&[]), Some(Reason::Inserted), "{first}");
        }
        let mut forged = run(1, 2);
        forged.header.first_seq = None;
        assert!(forged.check(&[]).is_err());
    }

    #[test]
    fn only_a_good_signature_is_a_proof() {
        let mut forged = run(1, 3);
        let last = forged.hash(2);
        forged.trailer.head = Some(unsigned(3, last));
        assert_eq!(forged.reason(&[]), Some(Reason::Unsigned));
        forged.trailer.head = Some(signed(Kind::Pruned, 3, last));
        assert_eq!(forged.reason(&[]), Some(Reason::Signature));
        // A place that no entry has.
        let mut forged = run(1, 0);
        forged.trailer.head = Some(unsigned(0, [1; 32]));
        assert_eq!(forged.reason(&[]), Some(Reason::Unsigned));
        forged.trailer.head = Some(unsigned(-1, START));
        assert_eq!(forged.reason(&[]), Some(Reason::Unsigned));
        // By nobody's key.
        let text = canonical(&forged.header);
        assert!(verify(&mut Cursor::new(text), &[], Vec::new()).is_err());
    }

    #[test]
    fn an_empty_trail_proves_nothing() {
        let mut empty = run(1, 0);
        empty.trailer.head = Some(unsigned(0, START));
        assert_eq!(empty.reason(&[]), None, "there is nothing to verify");
        assert_eq!(empty.reason(&[(1, [1; 32])]), Some(Reason::Truncated));
        assert_eq!(empty.reason(&[(0, START)]), Some(Reason::Truncated));
    }

    #[test]
    fn a_checkpoint_outside_of_the_file_counts() {
        let export = run(1, 3);
        assert_eq!(export.reason(&[(3, export.hash(2)), (4, [1; 32])]), Some(Reason::Truncated));
        // The entry before the first: what the file says of it is compared.
        let later = run(5, 3);
        assert_eq!(later.reason(&[(4, [1; 32])]), Some(Reason::Rewritten));
        let found = later.check(&[(4, START)]).unwrap().verdict;
        assert!(found.valid && found.checkpoints == 1, "{found:?}");
    }

    #[test]
    fn the_first_and_the_last_line_say_what_they_are() {
        let mut forged = run(1, 3);
        forged.header.kind = "trailer".to_owned();
        assert!(forged.check(&[]).is_err());
        let mut forged = run(1, 3);
        forged.trailer.kind = "header".to_owned();
        assert_eq!(forged.reason(&[]), Some(Reason::Changed));
        let mut forged = run(1, 3);
        forged.header.previous_hash = Some(hex::encode([1; 32]));
        assert_eq!(forged.reason(&[]), Some(Reason::Changed));
        // What was pruned ends where the file begins.
        let mut pruned = run(5, 3);
        pruned.header.pruned = Some(signed(Kind::Pruned, 4, START));
        assert!(pruned.check(&[]).unwrap().verdict.valid);
        pruned.header.pruned = Some(signed(Kind::Pruned, 3, START));
        assert_eq!(pruned.reason(&[]), Some(Reason::Changed));
    }

    #[test]
    fn entries_of_projects_prove_nothing_and_agree_with_checkpoints() {
        let (real, forged) = (run(1, 3), run(1, 3).of_projects());
        assert_eq!(forged.reason(&[]), None, "nothing is broken, and nothing proven");
        assert_eq!(forged.reason(&[(2, real.hash(1)), (9, [1; 32])]), None);
        assert_eq!(forged.check(&[(2, real.hash(1)), (9, [1; 32])]).unwrap().verdict.checkpoints, 1);
        // Edited, and hashed anew.
        let mut edited = run(1, 3).of_projects();
        edited.entries[1].action = "key.delete".to_owned();
        let hash = edited.entries[1].digest(2, &real.hash(0));
        edited.entries[1].hash = Some(hex::encode(hash));
        assert_eq!(edited.reason(&[]), None);
        let found = edited.check(&[(9, [1; 32]), (2, real.hash(1))]).unwrap().verdict;
        assert_eq!((found.valid, found.first_broken_seq, found.reason), (false, Some(2), Some(Reason::Rewritten)));
        // The same place twice.
        let mut twice = run(1, 3).of_projects();
        twice.entries.push(edited.entries[1].clone());
        twice.trailer.entries = 4;
        assert_eq!(twice.reason(&[(2, real.hash(1))]), Some(Reason::Rewritten));
        // A trail that only calls itself something else.
        let mut renamed = run(1, 3);
        renamed.header.scope = Scope::Projects;
        assert_eq!(renamed.reason(&[]), Some(Reason::Changed));
        let mut renamed = run(1, 3).of_projects();
        renamed.trailer.head = real.trailer.head.clone();
        assert_eq!(renamed.reason(&[]), Some(Reason::Changed));
        let mut outside = run(0, 2).of_projects();
        outside.trailer.head = None;
        assert_eq!(outside.reason(&[]), Some(Reason::Changed));
    }
}
