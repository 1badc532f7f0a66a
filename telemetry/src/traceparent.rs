//! The parts of a W3C `traceparent`: `version-trace-parent-flags`.

/// The flag of a trace that is recorded.
const SAMPLED: u8 = 1;

/// Whether `traceparent` is of a trace that is recorded. What is no `traceparent` is not.
#[must_use]
pub fn is_sampled(traceparent: &str) -> bool {
    let flags = parts(traceparent).and_then(|(_, _, flags)| u8::from_str_radix(flags, 16).ok());
    flags.is_some_and(|flags| flags & SAMPLED != 0)
}

/// The id of the trace in `traceparent`.
#[must_use]
pub fn trace_id(traceparent: &str) -> Option<&str> {
    parts(traceparent).map(|(trace, ..)| trace)
}

/// Trace, parent and flags, of the length that they must have.
pub(crate) fn parts(traceparent: &str) -> Option<(&str, &str, &str)> {
    let mut parts = traceparent.split('-');
    let (_version, trace, parent, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    (trace.len() == 32 && parent.len() == 16 && flags.len() == 2).then_some((trace, parent, flags))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn the_last_flag_says_whether_a_trace_is_recorded() {
        let of = |flags: &str| is_sampled(&format!("00-{TRACE}-00f067aa0ba902b7-{flags}"));
        assert_eq!(
            [of("01"), of("03"), of("00"), of("02")],
            [true, true, false, false]
        );
        for other in ["", "00", "00-1-2-01", "00-x-y-z", "not one at all"] {
            assert!(!is_sampled(other), "{other}");
        }
    }

    #[test]
    fn a_trace_has_an_id() {
        let traceparent = format!("00-{TRACE}-00f067aa0ba902b7-01");
        assert_eq!(trace_id(&traceparent), Some(TRACE));
        assert_eq!(trace_id("00-1-2-01"), None);
    }
}
