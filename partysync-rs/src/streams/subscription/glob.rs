//! Patterns over stream paths (section 6.2): `*` is one segment, `**` any number of them.

/// Whether a path fits a pattern. A `*` beside other characters stands for any part of a segment.
pub(super) fn fits(pattern: &str, path: &str) -> bool {
    let segments: Vec<&str> = path.split('/').collect();
    // Which beginnings of the path the pattern fits so far: steps, not guesses, so that no
    // pattern takes longer than its length times the path's.
    let mut fitting = vec![false; segments.len() + 1];
    if let Some(first) = fitting.first_mut() {
        *first = true;
    }
    for part in pattern.split('/') {
        let mut next = vec![false; fitting.len()];
        let mut any = false;
        for (index, fits) in fitting.iter().enumerate() {
            any |= *fits;
            if part == "**" {
                if let Some(slot) = next.get_mut(index) {
                    *slot = any;
                }
            } else if *fits
                && segments.get(index).is_some_and(|segment| fits_segment(part, segment))
                && let Some(slot) = next.get_mut(index + 1)
            {
                *slot = true;
            }
        }
        fitting = next;
    }
    fitting.last().copied().unwrap_or(false)
}

fn fits_segment(pattern: &str, segment: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = segment.strip_prefix(first) else { return false };
    let mut last = None;
    for part in parts {
        if let Some(before) = last.replace(part) {
            match rest.split_once(before) {
                Some((_, behind)) => rest = behind,
                None => return false,
            }
        }
    }
    last.map_or(rest.is_empty(), |last| rest.ends_with(last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_fit_as_the_protocol_says() {
        for (pattern, path) in [
            ("events/*", "events/a"),
            ("**", "a/b/c"),
            ("**/c", "c"),
            ("a/**", "a"),
            ("a/**/c", "a/c"),
            ("a/**/c", "a/b/b/c"),
            ("*", "a"),
            ("user-*", "user-1"),
            ("*-x-*", "a-x-b"),
            ("a/*/c/**", "a/b/c"),
        ] {
            assert!(fits(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("events/*", "events/a/b"),
            ("events/*", "events"),
            ("*", "a/b"),
            ("a/**/c", "a/b"),
            ("user-*", "users"),
            ("*a*a", "ba"),
            ("a", "b"),
            ("", "a"),
        ] {
            assert!(!fits(pattern, path), "{pattern} {path}");
        }
    }

    /// As the words say it, however long it takes.
    fn simple(pattern: &[&str], path: &[&str]) -> bool {
        match (pattern.split_first(), path.split_first()) {
            (None, None) => true,
            (Some((&"**", rest)), _) => (0..=path.len()).any(|skip| simple(rest, &path[skip..])),
            (Some((part, rest)), Some((segment, behind))) => {
                (*part == "*" || part == segment) && simple(rest, behind)
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn it_is_what_the_words_say(pattern in "(\\*|\\*\\*|a|b)(/(\\*|\\*\\*|a|b)){0,5}", path in "[ab](/[ab]){0,5}") {
            let split = |text: &'static str| text.split('/').collect::<Vec<_>>();
            let (p, s) = (split(pattern.clone().leak()), split(path.clone().leak()));
            prop_assert_eq!(fits(&pattern, &path), simple(&p, &s));
        }
    }
}
