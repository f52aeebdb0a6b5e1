//! Validations in CEL: `self` is the value, `cr` has the `namespace` and the `name` of the request,
//! `issuer` the `kind`, `group` and `name` of the issuer that is to sign, and `usages` is the list of
//! what the key may be used for.

use std::sync::Arc;

use super::Request;
use super::expression::Expression;

/// A rule that has been compiled.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    expression: Arc<Expression>,
    text: String,
    message: Option<String>,
}

impl Rule {
    /// Compiles a rule; the error says what is wrong with it.
    pub(super) fn compile(text: &str, message: Option<&str>) -> Result<Self, String> {
        Ok(Self {
            expression: Arc::new(Expression::compile(text)?),
            text: text.to_owned(),
            message: message.map(str::to_owned),
        })
    }

    /// Whether `value` satisfies the rule; the error says why not.
    pub(super) fn check(&self, value: &str, request: &Request) -> Result<(), String> {
        match self.expression.holds(value, request) {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.broken()),
            Err(detail) => Err(format!(
                "rule `{}` cannot be evaluated: {detail}",
                self.text
            )),
        }
    }

    fn broken(&self) -> String {
        let unsaid = || format!("failed rule: `{}`", self.text);
        self.message.clone().unwrap_or_else(unsaid)
    }
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
        check("issuer.kind + '/' + issuer.name == self", "Issuer/vault").unwrap();
        check("issuer.group == self", "cert-manager.io").unwrap();
        check("self in usages && size(usages) == 3", "client auth").unwrap();
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
}
