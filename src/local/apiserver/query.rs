//! Query parameters of the Kubernetes API.

use serde::Deserialize;

use super::error::ApiError;

/// Everything a client may say behind the question mark. What is not known is ignored, as
/// Kubernetes does.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Query {
    /// Labels an object must have.
    pub label_selector: Option<String>,
    /// Fields an object must have.
    pub field_selector: Option<String>,
    /// Page size.
    pub limit: Option<usize>,
    /// Where the next page starts.
    #[serde(rename = "continue")]
    pub continue_token: Option<String>,
    /// The revision to start from.
    pub resource_version: Option<String>,
    /// How [`Query::resource_version`] is meant.
    pub resource_version_match: Option<String>,
    watch: Option<String>,
    follow: Option<String>,
    force: Option<String>,
    allow_watch_bookmarks: Option<String>,
    send_initial_events: Option<String>,
    timestamps: Option<String>,
    previous: Option<String>,
    /// When a watch ends.
    pub timeout_seconds: Option<u64>,
    dry_run: Option<String>,
    /// Who writes.
    pub field_manager: Option<String>,
    /// What happens to fields nobody knows.
    pub field_validation: Option<String>,
    /// How much a table row carries.
    pub include_object: Option<String>,
    /// Deletion: seconds until the kill.
    pub grace_period_seconds: Option<i64>,
    /// Deletion: what happens to dependents.
    pub propagation_policy: Option<String>,
    /// Logs: which container.
    pub container: Option<String>,
    /// Logs: the last lines only.
    pub tail_lines: Option<usize>,
    /// Logs: only this much.
    pub limit_bytes: Option<u64>,
    /// Logs: not older than this.
    pub since_seconds: Option<u64>,
}

impl Query {
    /// Reads the part behind the question mark.
    pub fn parse(uri: &http::Uri) -> Result<Self, ApiError> {
        axum::extract::Query::<Self>::try_from_uri(uri)
            .map(|query| query.0)
            .map_err(|error| ApiError::BadRequest(error.body_text()))
    }

    /// `watch=true`.
    pub fn watch(&self) -> bool {
        truthy(self.watch.as_deref())
    }

    /// `follow=true`.
    pub fn follow(&self) -> bool {
        truthy(self.follow.as_deref())
    }

    /// `force=true`.
    pub fn force(&self) -> bool {
        truthy(self.force.as_deref())
    }

    /// `timestamps=true`.
    pub fn timestamps(&self) -> bool {
        truthy(self.timestamps.as_deref())
    }

    /// `previous=true`.
    pub fn previous(&self) -> bool {
        truthy(self.previous.as_deref())
    }

    /// `allowWatchBookmarks=true`.
    pub fn bookmarks(&self) -> bool {
        truthy(self.allow_watch_bookmarks.as_deref())
    }

    /// `sendInitialEvents`, where it is said.
    pub fn initial_events(&self) -> Option<bool> {
        self.send_initial_events
            .as_deref()
            .map(|text| truthy(Some(text)))
    }

    /// `dryRun=All`; any other value is refused.
    pub fn dry_run(&self) -> Result<bool, ApiError> {
        match self.dry_run.as_deref() {
            None | Some("") => Ok(false),
            Some("All") => Ok(true),
            Some(other) => Err(ApiError::BadRequest(format!(
                "dryRun: Unsupported value: {other:?}: supported values: \"All\""
            ))),
        }
    }

    /// The revision asked for; absent and `0` both mean "whatever is newest".
    pub fn revision(&self) -> Result<Option<u64>, ApiError> {
        match self.resource_version.as_deref() {
            None | Some("" | "0") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| {
                ApiError::BadRequest(format!("resourceVersion: Invalid value: {text:?}"))
            }),
        }
    }
}

/// Go's reading of a boolean parameter: present without a value counts as true.
fn truthy(text: Option<&str>) -> bool {
    matches!(text, Some("" | "1" | "t" | "T" | "true" | "TRUE" | "True"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query::parse(&format!("http://x/?{text}").parse().unwrap()).unwrap()
    }

    #[test]
    fn revision_zero_and_none_are_the_same() {
        assert_eq!(query("resourceVersion=0").revision().unwrap(), None);
        assert_eq!(query("").revision().unwrap(), None);
        assert_eq!(query("resourceVersion=17").revision().unwrap(), Some(17));
        assert!(query("resourceVersion=abc").revision().is_err());
    }

    #[test]
    fn a_dry_run_is_all_or_an_error() {
        assert!(query("dryRun=All").dry_run().unwrap());
        assert!(query("dryRun=Some").dry_run().is_err());
        assert!(!query("watch=1&limit=3").dry_run().unwrap());
        assert!(query("watch=1").watch() && !query("watch=false").watch());
    }
}
