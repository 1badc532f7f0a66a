//! The query of a URL: whatever is in it is understood as something of the view's, or refused with a problem.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidelog_query::store::conformance::a_request_is_understood_or_refused;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        a_request_is_understood_or_refused(text);
    }
});
