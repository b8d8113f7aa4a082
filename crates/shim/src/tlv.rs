//! Tagged fields: one byte of tag, four bytes of length (little-endian), the bytes.
//!
//! Everything that crosses the shim's border is made of these. A shim lives for weeks and talks to a control that was
//! upgraded meanwhile, so fields can be added without the other side minding. serde would have done it as well,
//! at the price of most of the shim's size.

/// The bytes are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Malformed {}

pub(crate) fn put(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("no field is near 4 GiB");
    out.push(tag);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
}

pub(crate) fn put_u64(out: &mut Vec<u8>, tag: u8, value: u64) {
    put(out, tag, &value.to_le_bytes());
}

pub(crate) fn put_i32(out: &mut Vec<u8>, tag: u8, value: i32) {
    put(out, tag, &value.to_le_bytes());
}

/// The fields in `bytes`, one after the other.
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u8, &'a [u8]), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let (tag, rest) = self.rest.split_first()?;
        let field = rest.split_first_chunk::<4>().and_then(|(length, rest)| {
            let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
            rest.split_at_checked(length)
        });
        let Some((field, rest)) = field else {
            self.rest = &[];
            return Some(Err(Malformed("a field is cut short")));
        };
        self.rest = rest;
        Some(Ok((*tag, field)))
    }
}

pub(crate) fn number(bytes: &[u8]) -> Result<u64, Malformed> {
    bytes.try_into().map(u64::from_le_bytes).map_err(|_ignored| Malformed("a number is not 8 bytes long"))
}

pub(crate) fn small(bytes: &[u8]) -> Result<i32, Malformed> {
    bytes.try_into().map(i32::from_le_bytes).map_err(|_ignored| Malformed("a number is not 4 bytes long"))
}

pub(crate) fn unsigned(bytes: &[u8]) -> Result<u32, Malformed> {
    bytes.try_into().map(u32::from_le_bytes).map_err(|_ignored| Malformed("a number is not 4 bytes long"))
}

pub(crate) fn text(bytes: &[u8]) -> Result<String, Malformed> {
    String::from_utf8(bytes.to_vec()).map_err(|_ignored| Malformed("a text is not UTF-8"))
}

/// A text that the system takes as a path.
pub(crate) fn path(bytes: &[u8]) -> Result<String, Malformed> {
    text(bytes)
        .and_then(|text| if text.contains('\0') { Err(Malformed("a path holds a NUL")) } else { Ok(text) })
}
