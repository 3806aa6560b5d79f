//! `keyward keys import` and `keyward keys export`.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::pin::pin;

use futures_util::StreamExt as _;
use indicatif::{ProgressBar, ProgressStyle};

use crate::base::id::{ProjectId, UserId};
use crate::ctx::Ctx;
use crate::features::audit::By;
use crate::features::keys::moving::import::{self, CHUNK, ImportError, Importing};
use crate::features::keys::moving::report::Report;
use crate::features::keys::moving::{export, line};

use super::args::{Format, ImportKeys};
use super::{Failure, keys, output};

/// Bytes after which a batch is full, however few lines it has.
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// Errors that are told one by one.
const TOLD: usize = 20;

/// Reads a file in batches, each a transaction, and takes its keys over.
pub(super) async fn import(
    ctx: &Ctx,
    args: &ImportKeys,
    (project, responsible): (ProjectId, Option<UserId>),
    format: Format,
) -> Result<(), Failure> {
    let (mut reader, length) = open(&args.file)?;
    let by = By::system("cli", ctx);
    // On standard error, and only if that is a terminal.
    let bar = match length {
        Some(length) => ProgressBar::new(length).with_style(style("{bar:40} {percent}% {msg} ({eta} left)")?),
        None => ProgressBar::new_spinner().with_style(style("{spinner} {msg}")?),
    };
    let mut total = Report { dry_run: args.dry_run, ..Report::default() };
    let mut lines = 0;
    let ended = loop {
        let batch = read_batch(&mut reader)?;
        if batch.lines == 0 {
            break Ok(());
        }
        let importing = Importing {
            by: &by,
            caller: None,
            project,
            responsible,
            dry_run: args.dry_run,
            partial: args.partial,
            revive: args.deleted,
            first_line: lines + 1,
            first_index: total.total_processed,
        };
        lines += batch.lines;
        match import::import(ctx, &importing, batch.text.into()).await {
            Ok(report) => total.add(report),
            Err(ImportError::Refused(report)) => {
                total.add(report);
                break Err(
                    "the lines from the batch with the first error on are not imported; mend them and run this again"
                        .to_owned(),
                );
            }
            Err(error) => break Err(format!("{error}; run this again to go on")),
        }
        bar.inc(batch.bytes);
        bar.set_message(format!("{} keys", total.total_processed));
    };
    bar.finish_and_clear();
    if total.created > 0 && !args.dry_run {
        import::settle(ctx, &total).await;
        keys::obeyed().await;
    }
    tell(&args.file, &total, format)?;
    match ended {
        Err(text) => Err(Failure::Refused(text)),
        Ok(()) if total.failed > 0 => {
            Err(Failure::Refused(format!("{} of {} lines are wrong", total.failed, total.total_processed)))
        }
        Ok(()) => Ok(()),
    }
}

fn style(template: &str) -> Result<ProgressStyle, Failure> {
    ProgressStyle::with_template(template).map_err(|error| Failure::Refused(error.to_string()))
}

/// A file, or standard input; and how long it is, if that is known.
fn open(name: &str) -> Result<(Box<dyn BufRead>, Option<u64>), Failure> {
    if name == "-" {
        return Ok((Box::new(io::stdin().lock()), None));
    }
    let file = File::open(name).map_err(|error| Failure::Refused(format!("can't open {name}: {error}")))?;
    let length = file.metadata()?;
    Ok((Box::new(BufReader::new(file)), length.is_file().then_some(length.len())))
}

/// Whole lines.
#[derive(Debug, Default)]
struct Batch {
    text: Vec<u8>,
    lines: u64,
    /// How much of the file.
    bytes: u64,
}

/// Reads the next lines. Of one that is too long only so much is kept that it is refused.
fn read_batch(reader: &mut dyn BufRead) -> io::Result<Batch> {
    let mut batch = Batch::default();
    while batch.lines < CHUNK && batch.text.len() < BATCH_BYTES {
        let read = io::Read::take(&mut *reader, line::MAX_LINE as u64 + 2).read_until(b'\n', &mut batch.text)?;
        if read == 0 {
            break;
        }
        batch.lines += 1;
        batch.bytes += read as u64;
        if !batch.text.ends_with(b"\n") {
            batch.bytes += skip_line(reader)?;
            batch.text.push(b'\n');
        }
    }
    Ok(batch)
}

/// Reads to the end of a line, and says how much that was.
fn skip_line(reader: &mut dyn BufRead) -> io::Result<u64> {
    let mut skipped = 0;
    loop {
        let there = reader.fill_buf()?;
        let (length, is_end) = match there.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (there.len(), there.is_empty()),
        };
        reader.consume(length);
        skipped += length as u64;
        if is_end {
            return Ok(skipped);
        }
    }
}

fn tell(file: &str, report: &Report, format: Format) -> Result<(), Failure> {
    for error in report.errors.iter().take(TOLD) {
        output::complain(&format!("{file}:{}: {}: {}", error.line, error.error.field, error.error.message));
    }
    let lines: std::collections::BTreeSet<u64> = report.errors.iter().take(TOLD).map(|error| error.line).collect();
    let untold = report.failed.saturating_sub(lines.len() as u64);
    if untold > 0 {
        output::complain(&format!("and {untold} more lines are wrong"));
    }
    match format {
        Format::Json => output::json(report),
        Format::Table => {
            let Report { created, skipped, failed, .. } = report;
            let would = if report.dry_run { "would be " } else { "" };
            output::say(&format!("{created} {would}imported, {skipped} skipped, {failed} wrong"));
            Ok(())
        }
    }
}

/// Writes a project's keys to a file that isn't there yet, or to standard output.
pub(super) async fn export(ctx: &Ctx, project: ProjectId, file: Option<&Path>) -> Result<(), Failure> {
    let Some(path) = file else {
        return write(ctx, project, &mut io::stdout().lock()).await;
    };
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file =
        options.open(path).map_err(|error| Failure::Refused(format!("can't write {}: {error}", path.display())))?;
    let written = write(ctx, project, &mut file).await.and_then(|()| Ok(file.sync_all()?));
    if written.is_err() {
        // A part would look like the whole.
        drop(std::fs::remove_file(path));
    }
    written
}

async fn write(ctx: &Ctx, project: ProjectId, to: &mut impl Write) -> Result<(), Failure> {
    let by = By::system("cli", ctx);
    export::begin(ctx, &by, project).await?;
    let mut to = BufWriter::new(to);
    let mut lines = pin!(export::lines(ctx.clone(), by, project));
    while let Some(part) = lines.next().await {
        to.write_all(&part?)?;
    }
    Ok(to.flush()?)
}
