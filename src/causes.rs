//! An error and its causes in one line, for conditions, events and messages.

use std::borrow::Cow;
use std::error::Error;

/// An error with its causes, outermost first.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        // A transparent error says what its source says.
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = cause.source();
    }
    text
}

/// At most so many bytes of a text, cut between two characters, with a mark where something is missing.
pub fn shortened(text: &str, bytes_max: usize) -> Cow<'_, str> {
    const MARK: &str = " … (cut)";
    if text.len() <= bytes_max {
        return Cow::Borrowed(text);
    }
    let mut end = bytes_max.saturating_sub(MARK.len());
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    let kept = text.get(..end).unwrap_or_default();
    Cow::Owned(format!("{kept}{MARK}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Trouble {
        #[error("the till is shut")]
        Shut,
        #[error(transparent)]
        Seen(Box<Self>),
        #[error("no change is given")]
        NoChange(#[source] Box<Self>),
    }

    #[test]
    fn a_long_text_is_cut_between_characters_and_says_so() {
        assert_eq!(shortened("short", 5), "short");
        for max in 20..40 {
            let cut = shortened("ünïcödé-ünïcödé-ünïcödé-ünïcödé-ünïcödé", max).into_owned();
            assert!(cut.len() <= max && cut.ends_with("… (cut)"), "{cut}");
        }
    }

    #[test]
    fn causes_follow_each_other_and_none_is_told_twice() {
        let seen = Trouble::Seen(Box::new(Trouble::Shut));
        assert_eq!(chain(&seen), "the till is shut");
        let outer = Trouble::NoChange(Box::new(seen));
        assert_eq!(chain(&outer), "no change is given: the till is shut");
    }
}
