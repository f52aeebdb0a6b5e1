//! `GET pods/{name}/log`: answered by whoever runs the pods.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::Stream;
use futures::future::BoxFuture;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use serde_json::Value;

use super::ApiServer;
use super::call::Call;
use super::error::ApiError;

/// What part of which log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogRequest {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// The container; one that the pod has.
    pub container: String,
    /// Go on with new lines until the container ends.
    pub follow: bool,
    /// The log of the run before this one.
    pub previous: bool,
    /// Each line begins with its time.
    pub timestamps: bool,
    /// The last lines only.
    pub tail_lines: Option<usize>,
    /// Not more than this.
    pub limit_bytes: Option<u64>,
    /// Lines of the last seconds only.
    pub since_seconds: Option<u64>,
}

/// The bytes of a log. It ends, or for a followed log goes on.
pub type LogStream = Pin<Box<dyn Stream<Item = std::io::Result<Bytes>> + Send>>;

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The container has not run yet, or its log is gone.
    #[error("container {container:?} in pod {pod:?} is not available: {why}")]
    NotThere {
        /// Container.
        container: String,
        /// Pod.
        pod: String,
        /// What it is waiting for.
        why: String,
    },
    /// The log cannot be read.
    #[error("cannot read the log of {pod}")]
    Read {
        /// Pod.
        pod: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// Whoever runs the pods.
pub trait PodLogs: Send + Sync + fmt::Debug {
    /// Opens a log.
    fn open(&self, request: LogRequest) -> BoxFuture<'_, Result<LogStream, LogError>>;
}

impl ApiServer {
    /// Lets `logs` answer requests for logs. The first call counts.
    pub fn serve_logs_from(&self, logs: Arc<dyn PodLogs>) {
        let _ = self.inner.logs.set(logs);
    }

    pub(super) async fn log(&self, call: &Call) -> Result<Response, ApiError> {
        let pod = self.object(call)?;
        let query = &call.query;
        let request = LogRequest {
            namespace: call.namespace.clone(),
            pod: call.name()?.to_owned(),
            container: container(&pod, call)?,
            follow: query.follow(),
            previous: query.previous(),
            timestamps: query.timestamps(),
            tail_lines: query.tail_lines,
            limit_bytes: query.limit_bytes,
            since_seconds: query.since_seconds,
        };
        let logs = self.inner.logs.get().ok_or_else(|| {
            ApiError::Unavailable("nothing runs pods here, so there are no logs".to_owned())
        })?;
        let stream = logs.open(request).await.map_err(|error| match error {
            LogError::NotThere { .. } => ApiError::BadRequest(error.to_string()),
            LogError::Read { ref source, .. } => ApiError::Internal(format!("{error}: {source}")),
        })?;
        let mut response = Body::from_stream(stream).into_response();
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        Ok(response)
    }
}

/// The container that is meant: the one named, or the only one.
fn container(pod: &Value, call: &Call) -> Result<String, ApiError> {
    let names = |list: &str| -> Vec<String> {
        let list = pod["spec"][list].as_array();
        let names = list
            .into_iter()
            .flatten()
            .filter_map(|container| container["name"].as_str());
        names.map(ToOwned::to_owned).collect()
    };
    let (mains, inits) = (names("containers"), names("initContainers"));
    let pod = call.name()?;
    match call
        .query
        .container
        .as_deref()
        .filter(|name| !name.is_empty())
    {
        Some(name) if mains.iter().chain(&inits).any(|known| known == name) => Ok(name.to_owned()),
        Some(name) => Err(ApiError::BadRequest(format!(
            "container {name} is not valid for pod {pod}"
        ))),
        None => match mains.as_slice() {
            [only] => Ok(only.clone()),
            many => Err(ApiError::BadRequest(format!(
                "a container name must be specified for pod {pod}, choose one of: [{}]",
                many.join(" ")
            ))),
        },
    }
}
