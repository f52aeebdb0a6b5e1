//! What the API server answers when it refuses: `Status` objects in Kubernetes' words.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::kinds::Resource;
use super::schema::errors::{FieldError, invalid_message};
use crate::local::store::StoreError;

/// Seconds a client waits before it asks again for an eviction or a busy object.
const RETRY_AFTER_S: u32 = 1;

/// The object an error is about, as `Status.details` names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// API group.
    pub group: String,
    /// Plural resource, or kind where Kubernetes names the kind.
    pub kind: String,
    /// Object name.
    pub name: String,
}

impl About {
    /// Names `name` of `resource`.
    pub fn object(resource: &Resource, name: &str) -> Self {
        Self {
            group: resource.group.clone(),
            kind: resource.plural.clone(),
            name: name.to_owned(),
        }
    }

    /// `pgbouncers.kubedb.com "billing"`.
    fn phrase(&self) -> String {
        if self.name.is_empty() {
            return self.kind.clone() + if self.group.is_empty() { "" } else { "." } + &self.group;
        }
        if self.group.is_empty() {
            format!("{} {:?}", self.kind, self.name)
        } else {
            format!("{}.{} {:?}", self.kind, self.group, self.name)
        }
    }
}

/// A refused request.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No token, or one that is nobody's.
    #[error("Unauthorized")]
    Unauthorized,
    /// The path names nothing that is served.
    #[error("the server could not find the requested resource")]
    NoSuchPath,
    /// The object is not there.
    #[error("{} not found", .0.phrase())]
    NotFound(About),
    /// The object is there already.
    #[error("{} already exists", .0.phrase())]
    AlreadyExists(About),
    /// The object changed, or a precondition does not hold.
    #[error("Operation cannot be fulfilled on {}: {why}", about.phrase())]
    Conflict {
        /// The object.
        about: About,
        /// What does not fit.
        why: String,
    },
    /// Fields of a server-side apply belong to other managers.
    #[error("{message}")]
    ApplyConflict {
        /// The whole message.
        message: String,
        /// One cause per field.
        causes: Vec<Value>,
    },
    /// The object is not valid.
    #[error("{}", invalid_message(group, kind, name, errors))]
    Invalid {
        /// API group.
        group: String,
        /// Kind.
        kind: String,
        /// Object name.
        name: String,
        /// What is wrong, field by field.
        errors: Vec<FieldError>,
    },
    /// The request cannot be understood.
    #[error("{0}")]
    BadRequest(String),
    /// The request is understood and not allowed in this state.
    #[error("{} is forbidden: {why}", about.phrase())]
    Forbidden {
        /// The object.
        about: About,
        /// Why not.
        why: String,
        /// Machine-readable cause.
        cause: Option<Box<Value>>,
    },
    /// The revision is older than the kept history.
    #[error("{0}")]
    Expired(String),
    /// The resource does not have this verb.
    #[error("the server does not allow this method on the requested resource")]
    MethodNotAllowed,
    /// The body's content type is not read.
    #[error("the body of the request was in an unknown format - accepted media types include: {0}")]
    UnsupportedMediaType(&'static str),
    /// None of the accepted content types is offered.
    #[error("only the following media types are accepted: application/json")]
    NotAcceptable,
    /// The body is over the limit.
    #[error("Request entity too large: limit is {0}")]
    TooLarge(usize),
    /// A patch would make the object too large, or is too much work.
    #[error("{0}")]
    PatchTooLarge(String),
    /// The user has as many connections, or as much work under way, as one user may have.
    #[error("too many requests of {user}: {why}")]
    Busy {
        /// The user, or the namespace whose accounts share a bound.
        user: String,
        /// Which bound is reached.
        why: &'static str,
    },
    /// An eviction would break a disruption budget.
    #[error("{message}")]
    TooManyRequests {
        /// Kubernetes' sentence.
        message: String,
        /// Machine-readable cause.
        cause: Box<Value>,
    },
    /// The work took too long.
    #[error("the request did not complete within {0} s")]
    Timeout(u64),
    /// The client has gone before its answer.
    #[error("the request was cancelled by its client")]
    Cancelled,
    /// A revision that is still to come.
    #[error("Too large resource version: {asked}, current: {current}")]
    FutureRevision {
        /// What was asked for.
        asked: u64,
        /// What there is.
        current: u64,
    },
    /// The store failed.
    #[error("Internal error occurred: the object store failed")]
    Store(#[source] Box<StoreError>),
    /// Something of ours failed.
    #[error("Internal error occurred: {0}")]
    Internal(String),
    /// The part of the platform that answers this is not running.
    #[error("the server is currently unable to handle the request: {0}")]
    Unavailable(String),
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Gone { asked, oldest } => {
                Self::Expired(format!("too old resource version: {asked} ({oldest})"))
            }
            other => Self::Store(Box::new(other)),
        }
    }
}

impl ApiError {
    /// The conflict of optimistic concurrency.
    pub fn modified(about: About) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version \
                   and try again";
        Self::Conflict {
            about,
            why: why.to_owned(),
        }
    }

    /// One invalid field.
    pub fn invalid(resource: &Resource, name: &str, error: FieldError) -> Self {
        Self::invalid_fields(resource, name, vec![error])
    }

    /// Several invalid fields.
    pub fn invalid_fields(resource: &Resource, name: &str, errors: Vec<FieldError>) -> Self {
        Self::Invalid {
            group: resource.group.clone(),
            kind: resource.kind.clone(),
            name: name.to_owned(),
            errors,
        }
    }

    /// HTTP code and `Status.reason`.
    pub const fn code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "Unauthorized"),
            Self::NoSuchPath | Self::NotFound(_) => (StatusCode::NOT_FOUND, "NotFound"),
            Self::AlreadyExists(_) => (StatusCode::CONFLICT, "AlreadyExists"),
            Self::Conflict { .. } | Self::ApplyConflict { .. } => {
                (StatusCode::CONFLICT, "Conflict")
            }
            Self::Invalid { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "Invalid"),
            Self::BadRequest(_) => (StatusCode::BAD_REQUEST, "BadRequest"),
            Self::Forbidden { .. } => (StatusCode::FORBIDDEN, "Forbidden"),
            Self::Expired(_) => (StatusCode::GONE, "Expired"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
            Self::UnsupportedMediaType(_) => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType")
            }
            Self::NotAcceptable => (StatusCode::NOT_ACCEPTABLE, "NotAcceptable"),
            Self::TooLarge(_) | Self::PatchTooLarge(_) => {
                (StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge")
            }
            Self::Busy { .. } | Self::TooManyRequests { .. } => {
                (StatusCode::TOO_MANY_REQUESTS, "TooManyRequests")
            }
            // Nothing reads it.
            Self::Cancelled | Self::Timeout(_) | Self::FutureRevision { .. } => {
                (StatusCode::GATEWAY_TIMEOUT, "Timeout")
            }
            Self::Store(_) | Self::Internal(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "InternalError")
            }
            Self::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable"),
        }
    }

    /// The `Status` object.
    pub fn status(&self) -> Value {
        let (code, reason) = self.code();
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.to_string(), "reason": reason, "code": code.as_u16(),
        });
        if let Some(details) = self.details() {
            status["details"] = details;
        }
        status
    }

    fn details(&self) -> Option<Value> {
        match self {
            Self::NotFound(about) | Self::AlreadyExists(about) | Self::Conflict { about, .. } => {
                Some(described(about))
            }
            Self::ApplyConflict { causes, .. } => Some(json!({ "causes": causes })),
            Self::Invalid {
                group,
                kind,
                name,
                errors,
            } => {
                let about = About {
                    group: group.clone(),
                    kind: kind.clone(),
                    name: name.clone(),
                };
                let mut details = described(&about);
                details["causes"] = errors.iter().map(FieldError::cause).collect();
                Some(details)
            }
            Self::Forbidden { about, cause, .. } => {
                let mut details = described(about);
                if let Some(cause) = cause {
                    details["causes"] = json!([cause]);
                }
                Some(details)
            }
            Self::TooManyRequests { cause, .. } => {
                Some(json!({ "causes": [cause], "retryAfterSeconds": RETRY_AFTER_S }))
            }
            Self::Busy { .. } => Some(json!({ "retryAfterSeconds": RETRY_AFTER_S })),
            Self::FutureRevision { .. } => Some(json!({
                "causes": [{ "reason": "ResourceVersionTooLarge", "message": "Too large resource version" }],
                "retryAfterSeconds": RETRY_AFTER_S,
            })),
            Self::Unauthorized
            | Self::NoSuchPath
            | Self::BadRequest(_)
            | Self::Expired(_)
            | Self::MethodNotAllowed
            | Self::UnsupportedMediaType(_)
            | Self::NotAcceptable
            | Self::TooLarge(_)
            | Self::PatchTooLarge(_)
            | Self::Cancelled
            | Self::Timeout(_)
            | Self::Store(_)
            | Self::Internal(_)
            | Self::Unavailable(_) => None,
        }
    }
}

fn described(about: &About) -> Value {
    let mut details = json!({ "name": about.name, "kind": about.kind });
    if !about.group.is_empty() {
        details["group"] = Value::String(about.group.clone());
    }
    details
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (code, _) = self.code();
        if code.is_server_error() && !matches!(self, Self::Cancelled) {
            let error: &dyn std::error::Error = &self;
            tracing::error!(error, "request failed");
        }
        let mut response = (code, axum::Json(self.status())).into_response();
        if matches!(
            self,
            Self::TooManyRequests { .. } | Self::Busy { .. } | Self::FutureRevision { .. }
        ) {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
        }
        response
    }
}
