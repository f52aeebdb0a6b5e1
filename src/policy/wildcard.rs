//! Patterns in which `*` stands for any text, dots and the empty text included.

/// Whether all of `text` is what `pattern` describes. Takes time proportional to the product of
/// the two lengths at the worst, and no memory.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where the last `*` stands, and how far the text goes that it stands for.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(octet) if *octet == text[t] => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((at, taken)) = star else {
                    return false;
                };
                star = Some((at, taken + 1));
                (p, t) = (at + 1, taken + 1);
            }
        }
    }
    pattern[p..].iter().all(|octet| *octet == b'*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_star_stands_for_any_text_and_nothing_else_is_special() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("*.shop.svc", "*.billing.shop.svc", true),
            ("*.shop.svc", ".shop.svc", true),
            ("*.shop.svc", "shop.svc", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("a?c", "abc", false),
            ("a.c", "abc", false),
            ("**", "anything", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern:?} {text:?}");
        }
    }

    /// The same by definition: a `*` is nothing, or one character and then again a `*`.
    fn by_definition(pattern: &[char], text: &[char]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some(('*', rest)), None) => by_definition(rest, text),
            (Some(('*', rest)), Some((_, tail))) => {
                by_definition(rest, text) || by_definition(pattern, tail)
            }
            (Some((head, rest)), Some((first, tail))) => head == first && by_definition(rest, tail),
            (None, Some(_)) | (Some(_), None) => false,
        }
    }

    proptest! {
        #[test]
        fn matching_is_what_its_definition_says(pattern in "[ab*é]{0,9}", text in "[ab*é]{0,9}") {
            let (p, t): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
            prop_assert_eq!(matches(&pattern, &text), by_definition(&p, &t));
        }

        #[test]
        fn a_pattern_with_parts_of_the_text_replaced_by_stars_matches_it(
            parts in proptest::collection::vec("[a-z.é-]{0,5}", 1..6),
            stars in proptest::collection::vec(any::<bool>(), 6),
        ) {
            let pattern: String = parts
                .iter()
                .zip(&stars)
                .map(|(part, star)| if *star { "*" } else { part.as_str() })
                .collect();
            prop_assert!(matches(&pattern, &parts.concat()));
        }
    }
}
