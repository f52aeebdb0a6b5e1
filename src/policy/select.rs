//! Which requests a policy is for.

use super::Request;
use super::schema::Selector;
use super::wildcard::matches;

impl Selector {
    /// Whether the policy is for `request`: every part that is given has to match.
    pub(super) fn selects(&self, request: &Request) -> bool {
        self.selects_issuer(request) && self.selects_namespace(request)
    }

    /// Whether it looks at the labels of a namespace.
    pub(super) fn reads_labels(&self) -> bool {
        let namespace = self.namespace.as_ref();
        namespace.is_some_and(|namespace| !namespace.match_labels.is_empty())
    }

    fn selects_issuer(&self, request: &Request) -> bool {
        let Some(wanted) = &self.issuer_ref else {
            return true;
        };
        let issuer = &request.issuer;
        [
            (&wanted.name, issuer.name.as_str()),
            (&wanted.kind, issuer.kind.as_str()),
            (&wanted.group, issuer.group()),
        ]
        .into_iter()
        .all(|(pattern, found)| pattern.as_ref().is_none_or(|p| matches(p, found)))
    }

    fn selects_namespace(&self, request: &Request) -> bool {
        let Some(wanted) = &self.namespace else {
            return true;
        };
        let mut names = wanted.match_names.iter();
        let is_named =
            wanted.match_names.is_empty() || names.any(|name| matches(name, &request.namespace));
        is_named
            && wanted
                .match_labels
                .iter()
                .all(|(key, value)| request.namespace_labels.get(key) == Some(value))
    }
}
