//! What was done, when, and as part of which trace: for whoever collects traces. Nothing here knows how they are collected.

use std::{fmt, sync::Arc};

use time::OffsetDateTime;

/// A span of a trace, as W3C's `traceparent` names it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// Which trace.
    pub trace: [u8; 16],
    /// Which span of it.
    pub span: [u8; 8],
    /// Whether its caller collects it.
    pub sampled: bool,
}

impl TraceParent {
    /// From the text of the header. `None`: it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let [version, trace, span, flags] = [(); 4].map(|()| parts.next().unwrap_or_default());
        let (version, [flags]) = (bytes::<1>(version)?, bytes::<1>(flags)?);
        let of = Self { trace: bytes(trace)?, span: bytes(span)?, sampled: flags & 1 == 1 };
        // A later version may have more; this one has not.
        let fits = version != [0xff] && (version != [0] || parts.next().is_none());
        (fits && of.trace != [0; 16] && of.span != [0; 8]).then_some(of)
    }
}

impl fmt::Debug for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        write!(f, "{}-{}-{}", hex(&self.trace), hex(&self.span), u8::from(self.sampled))
    }
}

fn bytes<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let digits = hex.as_bytes();
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    if digits.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// Whose part a span is, as OpenTelemetry has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// Answering a call.
    Server,
    /// Taking a message.
    Producer,
    /// Handing a message to whom it is for.
    Consumer,
}

/// Something that was done.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// What, such as `publish orders`.
    pub name: String,
    /// Whose part.
    pub kind: SpanKind,
    /// What it is part of.
    pub parent: Option<TraceParent>,
    /// When it began.
    pub began: OffsetDateTime,
    /// When it was done.
    pub ended: OffsetDateTime,
    /// By OpenTelemetry's conventions.
    pub attributes: Vec<(&'static str, String)>,
    /// Why it failed.
    pub failed: Option<String>,
}

/// Who collects spans.
pub trait SpanSink: Send + Sync + 'static {
    /// Takes one. It neither waits nor fails.
    fn take(&self, span: Span);
}

/// Where spans go. Clones lead to the same place; the default to none.
#[derive(Clone, Default)]
pub struct Spans(Option<Arc<dyn SpanSink>>);

impl Spans {
    /// They go there.
    #[must_use]
    pub fn new(sink: Arc<dyn SpanSink>) -> Self {
        Self(Some(sink))
    }

    /// Whether anybody collects them.
    #[must_use]
    pub fn are_collected(&self) -> bool {
        self.0.is_some()
    }

    /// Hands on what was done, where anybody collects it: what is not collected is not even made.
    pub fn tell(&self, span: impl FnOnce() -> Span) {
        if let Some(sink) = &self.0 {
            sink.take(span());
        }
    }

    /// The same as part of what this text names, where its caller collects that.
    pub fn tell_part(&self, traceparent: &str, span: impl FnOnce(TraceParent) -> Span) {
        if let Some(sink) = &self.0
            && let Some(parent) = TraceParent::parse(traceparent).filter(|parent| parent.sampled)
        {
            sink.take(span(parent));
        }
    }
}

impl fmt::Debug for Spans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Spans").field(&self.0.is_some()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_by_the_rules_of_w3c() {
        let parsed = TraceParent::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").unwrap();
        assert_eq!(format!("{parsed:?}"), "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1");
        assert!(!TraceParent::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00").unwrap().sampled);
        assert!(TraceParent::parse("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more").is_some());
        for wrong in [
            "",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-éf7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(TraceParent::parse(wrong), None, "{wrong}");
        }
    }
}
