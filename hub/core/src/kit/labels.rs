//! Bounds of names and metadata that callers give, one rule for all nouns.

use std::collections::BTreeMap;

use crate::fault::Fault;

/// Bytes of an idempotency key, a topic, a content type or a correlation id.
pub const MAX_NAME_BYTES: usize = 200;
/// Entries of the metadata.
pub const MAX_METADATA_ENTRIES: usize = 64;
/// Bytes of all metadata names and values.
pub const MAX_METADATA_BYTES: usize = 16 * 1024;

/// Refuses a name that is too long or has control characters. `what` names it in the message.
///
/// # Errors
/// `INVALID_ARGUMENT` with this reason.
pub fn check_name(reason: &'static str, what: &str, text: &str) -> Result<(), Fault> {
    if text.len() > MAX_NAME_BYTES || text.chars().any(char::is_control) {
        return Err(Fault::invalid(reason, format!("{what} must be at most {MAX_NAME_BYTES} bytes, without control characters")));
    }
    Ok(())
}

/// Refuses metadata that the store can't keep, and more than a page of a list could hold.
///
/// # Errors
/// `METADATA_INVALID`.
pub fn check_metadata(metadata: &BTreeMap<String, String>) -> Result<(), Fault> {
    let bytes = metadata_bytes(metadata);
    let nul = metadata.iter().any(|(name, value)| name.contains('\0') || value.contains('\0'));
    if nul || metadata.len() > MAX_METADATA_ENTRIES || bytes > MAX_METADATA_BYTES || metadata.contains_key("") {
        let rule = format!(
            "metadata takes at most {MAX_METADATA_ENTRIES} named entries of together {MAX_METADATA_BYTES} bytes, without NUL: put more into the payload"
        );
        return Err(Fault::invalid("METADATA_INVALID", rule));
    }
    Ok(())
}

/// Bytes of all names and values.
#[must_use]
pub fn metadata_bytes(metadata: &BTreeMap<String, String>) -> usize {
    metadata.iter().map(|(name, value)| name.len() + value.len()).sum()
}
