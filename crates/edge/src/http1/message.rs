//! What heads of requests and of responses have in common.

/// A head with more headers is not read.
pub(crate) const HEADERS_MAX: usize = 100;

/// Appends the parts, one after the other.
pub(crate) fn put(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// A Content-Length: digits and nothing else.
pub(crate) fn length(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value).ok().filter(|_| digits)?.parse().ok()
}
