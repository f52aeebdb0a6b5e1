//! Validations in CEL: `self` is the value, `cr` has the `namespace` and the `name` of the request,
//! `issuer` the `kind`, `group` and `name` of the issuer that is to sign, and `usages` is the list of
//! what the key may be used for.

use std::collections::HashMap;
use std::sync::Arc;

use kube_cel::KubeCelExt;
use kube_cel::cel::{Context, Program, Value};

use super::Request;
use crate::cel::{self, Limits};

/// How large a rule may be.
const LIMITS: Limits = Limits {
    chars: 1024,
    nesting: 16,
    operators: 64,
    walks: 2,
};

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
        cel::check_form(text, &LIMITS)?;
        let compile = || Program::compile(text).map_err(|error| first_line(&error.to_string()));
        let program = cel::with_stack(&LIMITS, compile)??;
        Ok(Self {
            program: Arc::new(program),
            text: text.to_owned(),
            message: message.map(str::to_owned),
        })
    }

    /// Whether `value` satisfies the rule; the error says why not.
    pub(super) fn check(&self, value: &str, request: &Request) -> Result<(), String> {
        let found = cel::with_stack(&LIMITS, || self.evaluate(value, request));
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
        let issuer = &request.issuer;
        let issuer = HashMap::from([
            ("kind".to_owned(), issuer.kind.clone()),
            ("group".to_owned(), issuer.group().to_owned()),
            ("name".to_owned(), issuer.name.clone()),
        ]);
        context.add_variable_from_value("cr", cr);
        context.add_variable_from_value("issuer", issuer);
        context.add_variable_from_value("usages", request.usages.clone());
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
        check("issuer.kind + '/' + issuer.name == self", "Issuer/vault").unwrap();
        check("issuer.group == self", "cert-manager.io").unwrap();
        check("self in usages && size(usages) == 4", "client auth").unwrap();
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
        let nested = format!(
            "{}true{}",
            "(".repeat(LIMITS.nesting),
            ")".repeat(LIMITS.nesting)
        );
        check(&nested, "x").unwrap();
        let sum = format!("1{} > 1", "+1".repeat(LIMITS.operators - 1));
        check(&sum, "x").unwrap();
        let open = |text: &str| text.repeat(LIMITS.nesting);
        let equal = format!("{}1{} == []", open("["), open("]"));
        assert!(check(&equal, "x").is_err());
        let choice = format!(
            "{}true",
            "self == 'y' ? true : ".repeat(LIMITS.operators / 3)
        );
        check(&choice, "x").unwrap();
        let calls = format!(
            "self{} == 'x'",
            ".lowerAscii()".repeat(LIMITS.operators - 2)
        );
        check(&calls, "x").unwrap();
    }
}
