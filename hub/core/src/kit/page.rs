//! Pages of lists: one rule for all of them.

/// Entries of a page where nothing is said, and at most: who asks for more gets so many.
const ENTRIES: (u32, u32) = (100, 1000);
/// Bytes of a page. Clients take answers of 4 MiB; one entry is far smaller.
const MAX_BYTES: usize = 1024 * 1024;

/// How many entries a page has at most, by what was asked for.
pub(crate) fn size(asked: u32) -> usize {
    (if asked == 0 { ENTRIES.0 } else { asked.min(ENTRIES.1) }) as usize
}

/// Makes a page of the entries that come next, and tells whether others follow it. It has one entry at least, so that every page goes on.
pub(crate) fn cut<T>(entries: &mut Vec<T>, size: usize, bytes: impl Fn(&T) -> usize) -> bool {
    let mut sum = 0_usize;
    let fits = entries.iter().take(size).take_while(|entry| {
        sum = sum.saturating_add(bytes(entry));
        sum <= MAX_BYTES
    });
    let fit = fits.count().max(1);
    let more = entries.len() > fit;
    entries.truncate(fit);
    more
}

/// What an entry takes: these texts, and what is said beside them.
pub(crate) fn bytes<'a>(texts: impl IntoIterator<Item = &'a String>) -> usize {
    const TEXT: usize = 8;
    const ENTRY: usize = 512;
    ENTRY + texts.into_iter().map(|text| TEXT + text.len()).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_ends_by_entries_and_by_bytes() {
        assert_eq!([0, 1, 1000, 1001, u32::MAX].map(size), [100, 1, 1000, 1000, 1000]);
        let page = |sizes: &[usize], size: usize| {
            let mut entries = sizes.to_vec();
            let more = cut(&mut entries, size, |bytes| *bytes);
            (entries.len(), more)
        };
        assert_eq!(page(&[], 3), (0, false));
        assert_eq!(page(&[1; 3], 3), (3, false));
        assert_eq!(page(&[1; 4], 3), (3, true));
        assert_eq!(page(&[MAX_BYTES / 2; 4], 9), (2, true));
        assert_eq!(page(&[2 * MAX_BYTES, 1], 9), (1, true));
        assert_eq!(page(&[2 * MAX_BYTES], 9), (1, false));
    }
}
