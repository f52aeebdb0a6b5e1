//! What has to hold before the `cel` crate sees an expression, and the stack on which it runs.
//!
//! Its parser and its evaluation recurse without a limit, and it reads `!!x` as `!x` (cel 0.13).
//! Whoever takes expressions from others asks [`check_form`] first and works inside [`with_stack`].

use std::thread;

/// Stack that one open bracket may cost, without optimization.
const BRACKET_BYTES: usize = 200 << 10;
/// Stack that one operator or selection may cost.
const OPERATOR_BYTES: usize = 40 << 10;
/// What walks over a list.
const WALKS: [&str; 5] = [".all(", ".exists(", ".exists_one(", ".map(", ".filter("];

/// How large an expression may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest expression: longer ones are programs, and the parser's work grows with them.
    pub chars: usize,
    /// Brackets that may be open at once.
    pub nesting: usize,
    /// Operators and selections.
    pub operators: usize,
    /// Walks over lists; nested ones multiply.
    pub walks: usize,
}

impl Limits {
    /// Twice what parser and evaluation need at most.
    pub const fn stack_bytes(&self) -> usize {
        2 * (self.nesting * BRACKET_BYTES + self.operators * OPERATOR_BYTES) + (1 << 20)
    }
}

/// Refuses what could exhaust the stack, take for ever, or be understood otherwise than written.
///
/// # Errors
///
/// Says what is wrong with the expression, for the one who wrote it.
pub fn check_form(text: &str, limits: &Limits) -> Result<(), String> {
    let Limits {
        chars,
        nesting,
        operators: most,
        walks,
    } = *limits;
    if text.chars().count() > chars {
        return Err(format!("it is longer than {chars} characters"));
    }
    let bare = without_strings(text)?;
    let (mut open, mut operators) = (0_usize, 0_usize);
    let mut before = None;
    for character in bare.chars().filter(|c| !c.is_whitespace()) {
        match character {
            // The parser takes two of them for one (cel 0.13).
            '!' | '-' if before == Some(character) => {
                return Err(format!("{character} stands twice: leave both out"));
            }
            '(' | '[' | '{' => open += 1,
            ')' | ']' | '}' => open = open.saturating_sub(1),
            _ => {}
        }
        operators += usize::from("!-+*/%?&|<>=.[".contains(character));
        if open > nesting {
            return Err(format!("more than {nesting} brackets are open at once"));
        }
        before = Some(character);
    }
    // `in` is an operator in letters.
    let words = bare.split(|c: char| !c.is_alphanumeric() && c != '_');
    operators += words.filter(|word| *word == "in").count();
    if operators > most {
        return Err(format!("it has more than {most} operators and dots"));
    }
    let dense: String = bare.split_whitespace().collect();
    let n_walks: usize = WALKS.iter().map(|walk| dense.matches(walk).count()).sum();
    if n_walks > walks {
        return Err(format!("it walks over lists more than {walks} times"));
    }
    Ok(())
}

/// The rule with the contents of its strings left out.
fn without_strings(text: &str) -> Result<String, String> {
    if text.contains("\"\"\"") || text.contains("'''") {
        return Err("strings in three quotes are not understood here".to_owned());
    }
    let mut bare = String::new();
    let mut characters = text.chars();
    let mut before = ' ';
    while let Some(character) = characters.next() {
        if (before, character) == ('/', '/') {
            return Err("comments are not understood here".to_owned());
        }
        bare.push(character);
        if matches!(character, '"' | '\'') {
            let is_raw = matches!(before, 'r' | 'R');
            while let Some(inner) = characters.next() {
                if inner == character {
                    bare.push(inner);
                    break;
                }
                if inner == '\\' && !is_raw {
                    characters.next();
                }
            }
        }
        before = character;
    }
    Ok(bare)
}

/// Runs the parser or an evaluation on a stack of its own, so that neither depends on how much of
/// the caller's is left; if it panics, that is an error of the rule.
///
/// # Errors
///
/// Says what was in the way, for the one who wrote the expression.
pub fn with_stack<T: Send>(limits: &Limits, work: impl FnOnce() -> T + Send) -> Result<T, String> {
    thread::scope(|scope| {
        let own = thread::Builder::new().stack_size(limits.stack_bytes());
        let running = own
            .spawn_scoped(scope, work)
            .map_err(|error| format!("no thread for it: {error}"))?;
        running
            .join()
            .map_err(|_| "it made the evaluator panic".to_owned())
    })
}
