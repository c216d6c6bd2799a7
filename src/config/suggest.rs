//! "Did you mean …?": the known name nearest to an unknown one.

/// The candidate nearest to `word`, if it is near enough to be what was meant. The first of several equally near.
///
/// Case, `-` and `_` do not count, so `maxAttempts` finds `max_attempts`; for the rest, about one slip in four
/// characters is allowed, and three at most.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = folded(word);
    let slips_max = (word.len().div_ceil(4)).min(3);
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let other = folded(candidate);
            // Length alone rules most candidates out, and keeps a very long unknown key from costing anything.
            if word.is_empty() || word.len().abs_diff(other.len()) > slips_max {
                return None;
            }
            Some((slips(&word, &other), candidate)).filter(|(slips, _)| *slips <= slips_max)
        })
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, candidate)| candidate)
}

/// What is called by `word` elsewhere, and by one of `names` here.
pub(super) fn meant(word: &str, names: &[&'static str]) -> Option<&'static str> {
    const OTHER_WORDS: &[(&str, &str)] = &[("mariadb", "mysql"), ("pgsql", "postgres"), ("psql", "postgres")];
    let word = word.to_ascii_lowercase();
    let (_, name) = OTHER_WORDS.iter().find(|(other, _)| *other == word)?;
    names.iter().copied().find(|known| known == name)
}

fn folded(word: &str) -> Vec<char> {
    word.chars().filter(|c| !matches!(c, '-' | '_')).flat_map(char::to_lowercase).collect()
}

/// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b` (optimal string alignment
/// distance). Three rows of the table are enough.
fn slips(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = vec![0; b.len() + 1];
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, &from) in a.iter().enumerate() {
        let mut row: Vec<usize> = vec![i + 1];
        for (j, &to) in b.iter().enumerate() {
            let replaced = above[j] + usize::from(from != to);
            let mut best = replaced.min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && from == b[j - 1] && a[i - 1] == to {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        let slips = |a: &str, b: &str| slips(&folded(a), &folded(b));
        assert_eq!(slips("", ""), 0);
        assert_eq!(slips("", "abc"), 3);
        assert_eq!(slips("abc", ""), 3);
        assert_eq!(slips("attempts", "attempts"), 0);
        assert_eq!(slips("attempt", "attempts"), 1);
        assert_eq!(slips("atetmpts", "attempts"), 1);
        assert_eq!(slips("kitten", "sitting"), 3);
        assert_eq!(slips("ca", "abc"), 3);
    }

    #[test]
    fn only_what_is_near_is_suggested() {
        let known = ["max_attempts", "max_ban_time", "port", "path"];
        assert_eq!(nearest("max_attempt", known), Some("max_attempts"));
        assert_eq!(nearest("maxAttempts", known), Some("max_attempts"));
        assert_eq!(nearest("MAX-ATTEMPTS", known), Some("max_attempts"));
        assert_eq!(nearest("max_bantime", known), Some("max_ban_time"));
        assert_eq!(nearest("prot", known), Some("port"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest("x", known), None);
        assert_eq!(nearest("", known), None);
        assert_eq!(nearest("_", known), None);
        assert_eq!(nearest(&"max_attempts".repeat(1000), known), None);
    }
}
