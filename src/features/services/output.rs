//! What a process says, line by line into the log: bounded, without control characters, and without secrets of Keyward's.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{ChildStderr, ChildStdout};

use crate::base::masking::mask_secrets;
use crate::ctx::Ctx;
use crate::infra::config::ServiceName;

/// The longest line, in bytes; what stands behind is left out.
const MAX_LINE: usize = 4096;
/// The most lines of a stream in a second; further ones are counted.
const MAX_LINES: u32 = 200;

/// Follows both streams until they end. They are read however much comes: the process never waits for the log.
pub(super) fn follow(ctx: &Ctx, name: &ServiceName, out: Option<ChildStdout>, err: Option<ChildStderr>) {
    if let Some(out) = out {
        tokio::spawn(read(ctx.clone(), name.clone(), "stdout", out));
    }
    if let Some(err) = err {
        tokio::spawn(read(ctx.clone(), name.clone(), "stderr", err));
    }
}

async fn read(ctx: Ctx, name: ServiceName, stream: &'static str, mut from: impl AsyncRead + Unpin) {
    let mut lines = Lines::default();
    let mut bounds = Bounds::default();
    let mut buffer = vec![0; 8192];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        let chunk = buffer.get(..read).unwrap_or_default();
        let mut say = |line: &[u8]| {
            let (admitted, dropped) = bounds.admit(ctx.clock.monotonic());
            if dropped > 0 {
                tracing::warn!(service = %name, stream, dropped, "a service says more than is logged");
            }
            if admitted {
                tracing::info!(service = %name, stream, "{}", clean(line));
            }
        };
        if read == 0 {
            lines.end(&mut say);
            return;
        }
        lines.push(chunk, &mut say);
    }
}

fn clean(line: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(line)
        .chars()
        .map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c })
        .collect();
    mask_secrets(&text).into_owned()
}

/// Cuts what comes into lines.
#[derive(Default)]
struct Lines {
    line: Vec<u8>,
    is_cut: bool,
}

impl Lines {
    fn push(&mut self, mut chunk: &[u8], say: &mut impl FnMut(&[u8])) {
        while let Some(end) = chunk.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = chunk.split_at(end);
            self.keep(line);
            self.end(say);
            chunk = rest.get(1..).unwrap_or_default();
        }
        self.keep(chunk);
    }

    fn keep(&mut self, part: &[u8]) {
        let room = MAX_LINE - self.line.len();
        self.is_cut |= part.len() > room;
        self.line.extend_from_slice(part.get(..room).unwrap_or(part));
    }

    fn end(&mut self, say: &mut impl FnMut(&[u8])) {
        if self.line.last() == Some(&b'\r') {
            self.line.pop();
        }
        if self.is_cut {
            self.line.extend_from_slice("…".as_bytes());
        }
        if !self.line.is_empty() {
            say(&self.line);
        }
        self.line.clear();
        self.is_cut = false;
    }
}

/// How many lines have come in this second.
#[derive(Default)]
struct Bounds {
    second: u64,
    lines: u32,
    dropped: u64,
}

impl Bounds {
    /// Whether one more is admitted, and how many weren't in the second before, told once.
    fn admit(&mut self, now: Duration) -> (bool, u64) {
        let mut told = 0;
        if now.as_secs() != self.second {
            told = std::mem::take(&mut self.dropped);
            (self.second, self.lines) = (now.as_secs(), 0);
        }
        if self.lines < MAX_LINES {
            self.lines += 1;
            (true, told)
        } else {
            self.dropped += 1;
            (false, told)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&str]) -> Vec<String> {
        let mut found = Vec::new();
        let mut lines = Lines::default();
        let mut say = |line: &[u8]| found.push(clean(line));
        for chunk in chunks {
            lines.push(chunk.as_bytes(), &mut say);
        }
        lines.end(&mut say);
        found
    }

    #[test]
    fn lines_are_cut_out_of_what_comes() {
        assert_eq!(lines(&["a\nb", "c\r\n\n", "d"]), ["a", "bc", "d"]);
        assert_eq!(lines(&["\x1b[31mred\x07\tend\n"]), ["\u{fffd}[31mred\u{fffd}\tend"]);
        let long = "x".repeat(3 * MAX_LINE);
        assert_eq!(lines(&[&long, &long, "\nshort\n"]), [format!("{}…", "x".repeat(MAX_LINE)), "short".to_owned()]);
    }

    #[test]
    fn no_secret_comes_through() {
        let token = format!("kws_{}", "a".repeat(43));
        let said = lines(&[&format!("token={token}\n")]);
        assert!(!said[0].contains(&token) && said[0].starts_with("token="), "{said:?}");
    }

    #[test]
    fn a_flood_is_counted() {
        let mut bounds = Bounds::default();
        let now = Duration::from_secs(1);
        assert_eq!((0..MAX_LINES + 5).filter(|_| bounds.admit(now).0).count(), MAX_LINES as usize);
        assert_eq!(bounds.admit(Duration::from_secs(2)), (true, 5));
        assert_eq!(bounds.admit(Duration::from_secs(2)), (true, 0));
    }
}
