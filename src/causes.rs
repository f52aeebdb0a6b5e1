//! An error and its causes in one line, for conditions, events and messages.

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
    fn causes_follow_each_other_and_none_is_told_twice() {
        let seen = Trouble::Seen(Box::new(Trouble::Shut));
        assert_eq!(chain(&seen), "the till is shut");
        let outer = Trouble::NoChange(Box::new(seen));
        assert_eq!(chain(&outer), "no change is given: the till is shut");
    }
}
