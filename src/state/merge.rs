//! Range scans over several layers: overlays from newest to oldest, then the backend.

use super::overlay::OverlayRange;

/// Calls `visit` for each entry of the overlays before `until` (`None`: all of them), newest layer first.
///
/// Advances the ranges past what was visited. Answers false if `visit` did.
fn visit_before(
    layers: &mut [OverlayRange<'_>],
    until: Option<&[u8]>,
    visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
) -> bool {
    loop {
        let smallest = layers.iter().filter_map(|layer| layer.peek()).map(|(key, _)| key).min();
        let Some(key) = smallest.filter(|key| until.is_none_or(|until| *key < until)) else {
            return true;
        };
        let newest = take(layers, key);
        if let Some(Some(value)) = newest
            && !visit(key, value)
        {
            return false;
        }
    }
}

/// What the newest layer that has `key` says about it; advances every layer past it.
fn take<'a>(layers: &mut [OverlayRange<'a>], key: &[u8]) -> Option<Option<&'a [u8]>> {
    let mut newest = None;
    for layer in layers {
        if let Some((found, value)) = layer.peek()
            && found == key
        {
            newest.get_or_insert(value);
            layer.advance();
        }
    }
    newest
}

/// Merges what `scan` brings from the backend with the overlays above it, which hide and delete its entries.
///
/// # Errors
/// Whatever `scan` answers.
pub(super) fn merge_scan<E>(
    layers: &mut [OverlayRange<'_>],
    scan: impl FnOnce(&mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), E>,
    visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
) -> Result<(), E> {
    let mut goes_on = true;
    scan(&mut |key, value| {
        goes_on = visit_before(layers, Some(key), visit);
        if goes_on {
            goes_on = match take(layers, key) {
                None => visit(key, value),
                Some(None) => true,
                Some(Some(newer)) => visit(key, newer),
            };
        }
        goes_on
    })?;
    if goes_on {
        visit_before(layers, None, visit);
    }
    Ok(())
}
