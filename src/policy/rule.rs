//! Validations in CEL: `self` is the value, `cr` has the `namespace` and the `name` of the request.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;

use kube_cel::KubeCelExt;
use kube_cel::cel::{Context, Program, Value};

use super::Request;

/// Longest rule: longer ones are programs, and the parser's work grows with them.
pub(super) const RULE_MAX_CHARS: usize = 1024;
/// Brackets that may be open at once. Parser and evaluation recurse, without optimization by up to
/// 200 KiB per bracket.
pub(super) const NESTING_MAX: usize = 16;
/// Operators and selections in one rule; each may cost 40 KiB of stack.
pub(super) const OPERATORS_MAX: usize = 64;
/// Walks over lists in one rule; nested ones multiply.
pub(super) const WALKS_MAX: usize = 2;
/// Stack for parser and evaluation.
const STACK_BYTES: usize = 16 << 20;
const _: () = assert!(NESTING_MAX * (200 << 10) + OPERATORS_MAX * (40 << 10) < STACK_BYTES / 2);
/// What walks over a list.
const WALKS: [&str; 5] = [".all(", ".exists(", ".exists_one(", ".map(", ".filter("];

/// A rule that has been compiled.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    program: Arc<Program>,
    text: String,
    message: Option<String>,
}

impl Rule {
    /// Compiles a rule; the error says what is wrong with it.
    pub(super) fn compile(text: &str, message: Option<&str>) -> Result<Self, String> {
        check_form(text)?;
        let compile = || Program::compile(text).map_err(|error| first_line(&error.to_string()));
        let program = with_stack(compile)??;
        Ok(Self {
            program: Arc::new(program),
            text: text.to_owned(),
            message: message.map(str::to_owned),
        })
    }

    /// Whether `value` satisfies the rule; the error says why not.
    pub(super) fn check(&self, value: &str, request: &Request) -> Result<(), String> {
        let found = with_stack(|| self.evaluate(value, request));
        match found.flatten() {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.broken()),
            Err(detail) => Err(format!(
                "rule `{}` cannot be evaluated: {detail}",
                self.text
            )),
        }
    }

    fn evaluate(&self, value: &str, request: &Request) -> Result<bool, String> {
        let mut context = Context::default().with_all();
        let cr = HashMap::from([
            ("namespace".to_owned(), request.namespace.clone()),
            ("name".to_owned(), request.name.clone()),
        ]);
        context.add_variable_from_value("self", value.to_owned());
        context.add_variable_from_value("cr", cr);
        match self.program.execute(&context) {
            Ok(Value::Bool(answer)) => Ok(answer),
            Ok(other) => Err(format!("it gives a {}, not true or false", other.type_of())),
            Err(error) => Err(first_line(&error.to_string())),
        }
    }

    fn broken(&self) -> String {
        let unsaid = || format!("failed rule: `{}`", self.text);
        self.message.clone().unwrap_or_else(unsaid)
    }
}

/// Refuses what could exhaust the stack, take for ever, or be understood otherwise than written.
fn check_form(text: &str) -> Result<(), String> {
    if text.chars().count() > RULE_MAX_CHARS {
        return Err(format!("it is longer than {RULE_MAX_CHARS} characters"));
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
        if open > NESTING_MAX {
            return Err(format!("more than {NESTING_MAX} brackets are open at once"));
        }
        before = Some(character);
    }
    // `in` is an operator in letters.
    let words = bare.split(|c: char| !c.is_alphanumeric() && c != '_');
    operators += words.filter(|word| *word == "in").count();
    if operators > OPERATORS_MAX {
        return Err(format!(
            "it has more than {OPERATORS_MAX} operators and dots"
        ));
    }
    let dense: String = bare.split_whitespace().collect();
    let n_walks: usize = WALKS.iter().map(|walk| dense.matches(walk).count()).sum();
    if n_walks > WALKS_MAX {
        return Err(format!("it walks over lists more than {WALKS_MAX} times"));
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
fn with_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, String> {
    thread::scope(|scope| {
        let own = thread::Builder::new().stack_size(STACK_BYTES);
        let running = own
            .spawn_scoped(scope, work)
            .map_err(|error| format!("no thread for it: {error}"))?;
        running
            .join()
            .map_err(|_| "it made the evaluator panic".to_owned())
    })
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::tests::request;
    use super::*;

    fn check(rule: &str, value: &str) -> Result<(), String> {
        Rule::compile(rule, None)?.check(value, &request())
    }

    #[test]
    fn a_rule_sees_the_value_and_who_asks() {
        check(
            "self.endsWith(cr.namespace + '.svc')",
            "billing.treasury.svc",
        )
        .unwrap();
        check("self == cr.name", "billing-server-cert").unwrap();
        check("self.matches('^[a-z]+$')", "billing").unwrap();
        check("self.lowerAscii() == 'billing'", "BILLING").unwrap();
        check("ip(self).isLoopback()", "127.0.0.9").unwrap();
    }

    #[test]
    fn a_broken_rule_is_told_in_its_own_words_or_by_its_text() {
        let own = Rule::compile("self != 'x'", Some("x is taken")).unwrap();
        assert_eq!(own.check("x", &request()).unwrap_err(), "x is taken");
        assert_eq!(
            check("self != 'x'", "x").unwrap_err(),
            "failed rule: `self != 'x'`"
        );
    }

    #[test]
    fn what_is_neither_true_nor_false_allows_nothing() {
        assert!(
            check("size(self)", "x")
                .unwrap_err()
                .contains("it gives a int")
        );
        assert!(
            check("cr.colour == 'red'", "x")
                .unwrap_err()
                .contains("cannot be evaluated")
        );
        assert!(check("unknown(self)", "x").is_err());
        assert!(check("self ==", "x").is_err());
    }

    #[test]
    fn rules_that_would_exhaust_the_stack_are_refused() {
        assert!(
            check(&"(".repeat(900), "x")
                .unwrap_err()
                .contains("brackets")
        );
        assert!(
            check(&"1 in[1]".repeat(100), "x")
                .unwrap_err()
                .contains("operators")
        );
        let walks = "[1].all(a, [1].all (b, [1]. all(c, true)))";
        assert!(check(walks, "x").unwrap_err().contains("walks"));
        assert!(check(&"x".repeat(1025), "x").unwrap_err().contains("1024"));
    }

    #[test]
    fn what_the_parser_would_misunderstand_is_refused() {
        // `Program` takes `!!true` for `!true`; once it does not, the refusal can go.
        let double = Program::compile("!!true").unwrap();
        let answer = double.execute(&Context::default()).unwrap();
        assert!(matches!(answer, Value::Bool(false)));
        for rule in [
            "!!true",
            "! !true",
            "--1 == 1",
            "1 - -1 == 2",
            "true // !",
            "self == '''x'''",
        ] {
            assert!(Rule::compile(rule, None).is_err(), "{rule}");
        }
        check(
            "self.startsWith('xn--') && !(r'\\' == '!!') && '\\'!!' != \"--\"",
            "xn--x",
        )
        .unwrap();
    }

    #[test]
    fn the_largest_rules_that_are_let_through_do_no_harm() {
        let nested = format!("{}true{}", "(".repeat(NESTING_MAX), ")".repeat(NESTING_MAX));
        check(&nested, "x").unwrap();
        let sum = format!("1{} > 1", "+1".repeat(OPERATORS_MAX - 1));
        check(&sum, "x").unwrap();
        let open = |text: &str| text.repeat(NESTING_MAX);
        let equal = format!("{}1{} == []", open("["), open("]"));
        assert!(check(&equal, "x").is_err());
        let choice = format!("{}true", "self == 'y' ? true : ".repeat(OPERATORS_MAX / 3));
        check(&choice, "x").unwrap();
        let calls = format!("self{} == 'x'", ".lowerAscii()".repeat(OPERATORS_MAX - 2));
        check(&calls, "x").unwrap();
    }
}
