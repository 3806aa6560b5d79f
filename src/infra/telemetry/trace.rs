//! A request's place in a trace: W3C Trace Context, and the decision whether it is recorded.

use std::sync::atomic::{AtomicU32, Ordering};

use http::HeaderValue;

use crate::base::masking::holds_secret;
use crate::base::rng::Rng;

/// The longest `tracestate` that is kept: what the standard (section 3.3.1.5) asks everybody to pass on.
const MAX_STATE: usize = 512;

/// Child spans that one request leaves at most; an import would leave a million.
const MAX_CHILDREN: u32 = 64;

/// Of 16 bytes, never all zero.
pub type TraceId = [u8; 16];

/// Of 8 bytes, never all zero.
pub type SpanId = [u8; 8];

/// What a valid `traceparent` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent<'a> {
    /// As it was sent: 32 lower-case hexadecimal digits.
    pub trace: &'a str,
    span: &'a str,
    flags: &'a str,
}

impl<'a> Parent<'a> {
    /// W3C Trace Context, section 3.2: `version-traceid-parentid-flags`, lower-case hexadecimal, no part all zero.
    #[must_use]
    pub fn parse(value: &'a HeaderValue) -> Option<Self> {
        let text = value.to_str().ok()?;
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let hex = |part: &str, len| part.len() == len && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let zero = |part: &str| part.bytes().all(|b| b == b'0');
        let valid = hex(version, 2)
            && version != "ff"
            && (version != "00" || parts.next().is_none())
            && hex(trace, 32)
            && hex(span, 16)
            && hex(flags, 2)
            && !zero(trace)
            && !zero(span);
        valid.then_some(Self { trace, span, flags })
    }

    /// Whether whoever calls records the trace: the lowest bit.
    fn is_sampled(&self) -> bool {
        matches!(self.flags.as_bytes().last(), Some(b'1' | b'3' | b'5' | b'7' | b'9' | b'b' | b'd' | b'f'))
    }
}

/// The share of traces that are recorded where no caller has decided, as a bound for the last 8 bytes of their ids
/// (OpenTelemetry's `TraceIdRatioBased`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(u64);

impl Share {
    /// From 0.0, none, to 1.0, all.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share needs no 64 exact bits, and `as` stops at the ends"
    )]
    pub fn new(share: f64) -> Self {
        Self((share.clamp(0.0, 1.0) * u64::MAX as f64) as u64)
    }

    fn takes(self, id: TraceId) -> bool {
        // The last eight bytes.
        let low = u128::from_be_bytes(id) & u128::from(u64::MAX);
        self.0 == u64::MAX || low < u128::from(self.0)
    }
}

/// A request's span.
#[derive(Debug)]
pub struct Trace {
    /// The trace.
    pub trace_id: TraceId,
    /// The request's own span.
    pub span_id: SpanId,
    /// The caller's span.
    pub parent: Option<SpanId>,
    /// Whether it is recorded: the caller's decision, or the share's.
    pub is_sampled: bool,
    /// The caller's `tracestate`, as it was sent.
    pub state: Option<String>,
    children: AtomicU32,
}

impl Trace {
    /// A request begins: within its caller's trace, or as the beginning of one.
    #[must_use]
    pub fn begin(parent: Option<&Parent<'_>>, state: Option<&HeaderValue>, share: Share, rng: &dyn Rng) -> Self {
        let (mut own, mut span_id): (TraceId, SpanId) = ([0; 16], [0; 8]);
        rng.fill(&mut span_id);
        span_id[0] = span_id[0].max(1);
        if let Some(caller) = parent {
            let (mut trace_id, mut span) = ([0; 16], [0; 8]);
            // Both are hexadecimal and of that length, as `Parent` has found.
            let _ = hex::decode_to_slice(caller.trace, &mut trace_id);
            let _ = hex::decode_to_slice(caller.span, &mut span);
            let is_sampled = caller.is_sampled();
            let state = state.filter(|_| is_sampled).and_then(|state| state.to_str().ok());
            let state = state.filter(|state| state.len() <= MAX_STATE && !holds_secret(state)).map(str::to_owned);
            return Self { trace_id, span_id, parent: Some(span), is_sampled, state, children: AtomicU32::new(0) };
        }
        rng.fill(&mut own);
        own[0] = own[0].max(1);
        let is_sampled = share.takes(own);
        Self { trace_id: own, span_id, parent: None, is_sampled, state: None, children: AtomicU32::new(0) }
    }

    /// Whether the caller has decided what is recorded.
    #[must_use]
    pub fn is_decided(&self) -> bool {
        self.parent.is_some()
    }

    /// The id of another span inside of this one; `None` if it isn't recorded or has enough of them.
    pub(super) fn child(&self) -> Option<SpanId> {
        if !self.is_sampled {
            return None;
        }
        let count = self.children.fetch_add(1, Ordering::Relaxed);
        // The span's own id is random, so these are as good: a bijection of it and the count (SplitMix64's step).
        let id =
            u64::from_be_bytes(self.span_id).wrapping_add(u64::from(count + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        (count < MAX_CHILDREN).then(|| id.max(1).to_be_bytes())
    }

    /// Child spans that were too many.
    pub(super) fn lost_children(&self) -> u32 {
        self.children.load(Ordering::Relaxed).saturating_sub(MAX_CHILDREN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::SystemRng;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn begin(header: &str, share: f64) -> Trace {
        let value = HeaderValue::from_str(header).unwrap();
        let state = HeaderValue::from_static("congo=t61rcWkgMzE");
        Trace::begin(Parent::parse(&value).as_ref(), Some(&state), Share::new(share), &SystemRng)
    }

    #[test]
    fn a_caller_decides() {
        for (flags, is_sampled) in [("00", false), ("01", true), ("02", false), ("03", true), ("ff", true)] {
            for share in [0.0, 1.0] {
                let trace = begin(&format!("00-{TRACE}-00f067aa0ba902b7-{flags}"), share);
                assert_eq!((hex::encode(trace.trace_id).as_str(), trace.is_sampled), (TRACE, is_sampled), "{flags}");
                assert_eq!(trace.parent.map(hex::encode).as_deref(), Some("00f067aa0ba902b7"));
                assert_eq!(trace.state.is_some(), is_sampled);
                assert!(trace.is_decided() && trace.span_id != [0; 8]);
            }
        }
    }

    #[test]
    fn what_cannot_be_read_is_no_caller() {
        for bad in [
            "",
            "x",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        ] {
            let trace = begin(bad, 0.0);
            assert!(!trace.is_decided() && !trace.is_sampled && trace.state.is_none(), "{bad}");
            assert_ne!(hex::encode(trace.trace_id), TRACE);
        }
        // A later version may say more.
        assert!(begin("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", 0.0).is_decided());
    }

    #[test]
    fn the_share_is_about_kept() {
        for (share, least, most) in [(0.0, 0, 0), (1.0, 4000, 4000), (0.25, 800, 1200)] {
            let taken = (0..4000).filter(|_| begin("", share).is_sampled).count();
            assert!((least..=most).contains(&taken), "{share}: {taken}");
        }
    }

    #[test]
    fn children_are_different_and_bounded() {
        let trace = begin("", 1.0);
        let ids: std::collections::HashSet<SpanId> = std::iter::from_fn(|| trace.child()).collect();
        assert_eq!((ids.len(), trace.lost_children()), (MAX_CHILDREN as usize, 1));
        assert!(!ids.contains(&trace.span_id) && begin("", 0.0).child().is_none());
    }
}
