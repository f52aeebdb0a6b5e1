//! From an HTTP request to the function that answers it.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Json, body::Body};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::{Value, json};

use super::ApiServer;
use super::access;
use super::body;
use super::call::{Call, Written};
use super::delete::{DeleteOptions, Deleted, success};
use super::error::ApiError;
use super::path::{self, Path};
use super::present::Form;
use super::query::Query;
use super::reviews::Review;

/// Longest time for anything but a watch or a followed log: a write takes one disk sync, so this is
/// reached only where the disk hangs.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The router's only handler.
pub(super) async fn dispatch(State(server): State<ApiServer>, request: Request) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = handle(server, request)
        .await
        .unwrap_or_else(IntoResponse::into_response);
    tracing::trace!(%method, path, code = response.status().as_u16(), "request answered");
    response
}

async fn handle(server: ApiServer, request: Request) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let path = path::parse(parts.uri.path()).ok_or(ApiError::NoSuchPath)?;
    let identity = access::identity_of(&parts)?;
    let Path::Objects(target) = path else {
        return server.discover(&path, &parts.method, &parts.headers);
    };
    let query = Query::parse(&parts.uri)?;
    let attributes = access::attributes(&parts.method, &target, &query);
    let review = Review::find(&target.group, &target.version, &target.resource);
    if !review.is_some_and(Review::is_about_oneself) {
        server.authorize(&identity, &attributes)?;
    }
    if let (&Method::POST, Some(review)) = (&parts.method, review) {
        let answer = async {
            let _leave = server.inner.shares.leave(&identity).await?;
            let media_type = body::media_type(&parts.headers);
            let asked = body::object(&media_type, &body::read(body).await?)?;
            server.review(review, &asked, &identity)
        };
        let answer = within_bound(answer).await?;
        return Ok((StatusCode::CREATED, Json(answer)).into_response());
    }
    let resource = server
        .registry()
        .find(&target.group, &target.version, &target.resource)
        .ok_or(ApiError::NoSuchPath)?;
    let watch = query.watch() || target.watch;
    let call = Call::new(resource, target, query, &parts.headers)?.by(identity);
    if parts.method == Method::GET {
        return server.read(&call, &parts.headers, watch).await;
    }
    within_bound(server.write(call, parts.method, &parts.headers, body)).await
}

async fn within_bound<T>(work: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
    tokio::time::timeout(REQUEST_TIMEOUT, work)
        .await
        .map_err(|_| ApiError::Timeout(REQUEST_TIMEOUT.as_secs()))?
}

impl ApiServer {
    async fn read(
        &self,
        call: &Call,
        headers: &HeaderMap,
        watch: bool,
    ) -> Result<Response, ApiError> {
        let form = Form::negotiate(headers, call.query.include_object.as_deref());
        if watch && call.subresource.is_none() {
            let form = form?;
            return self
                .beside(call, move |server, call| server.watch(call, form))
                .await;
        }
        if call.name.is_none() {
            let form = form?;
            let list = move |server: &Self, call: &Call| {
                Ok(Json(server.list(call, form)?).into_response())
            };
            return self.beside(call, list).await;
        }
        match call.subresource.as_deref() {
            None | Some("status") => {
                let object = self.object(call)?;
                let now = self.inner.options.clock.now();
                Ok(Json(form?.object(&call.resource, &object, now)).into_response())
            }
            Some("scale") => Ok(Json(self.scale(call)?).into_response()),
            Some("log") => self.log(call).await,
            Some(_) => Err(ApiError::MethodNotAllowed),
        }
    }

    /// Works on a read of many objects beside the async threads. It stops when the client has gone.
    async fn beside(
        &self,
        call: &Call,
        work: impl FnOnce(&Self, &Call) -> Result<Response, ApiError> + Send + 'static,
    ) -> Result<Response, ApiError> {
        let (server, call) = (self.clone(), call.clone());
        let _cancel = call.cancel_on_drop();
        within_bound(async move {
            let _leave = server.inner.shares.leave(&call.identity).await?;
            let work = {
                let server = server.clone();
                move || work(&server, &call)
            };
            tokio::task::spawn_blocking(work)
                .await
                .map_err(|error| ApiError::Internal(format!("the request's task ended: {error}")))?
        })
        .await
    }

    /// Everything that changes something runs beside the async threads, because it waits for the
    /// disk.
    async fn write(
        &self,
        call: Call,
        method: Method,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Response, ApiError> {
        let form = Form::negotiate(headers, call.query.include_object.as_deref())?;
        // Before the body: a user's bodies are in memory only as far as they are worked on.
        let leave = self.inner.shares.leave(&call.identity).await?;
        let bytes = body::read(body).await?;
        let _cancel = call.cancel_on_drop();
        let server = self.clone();
        let work = move || {
            let _leave = leave;
            server.perform(&call, &method, &bytes, form)
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| ApiError::Internal(format!("the request's task ended: {error}")))?
    }

    fn perform(
        &self,
        call: &Call,
        method: &Method,
        bytes: &[u8],
        form: Form,
    ) -> Result<Response, ApiError> {
        if let Some(subresource) = call.subresource.as_deref()
            && !matches!(subresource, "status" | "finalize")
        {
            return self.perform_on_part(call, subresource, method, bytes);
        }
        let object = || body::object(&call.media_type, bytes);
        let written = match (method, &call.name) {
            (&Method::POST, None) => self.create(call, object()?)?,
            (&Method::PUT, Some(_)) => self.replace(call, object()?)?,
            (&Method::PATCH, Some(_)) => self.patch(call, bytes)?,
            (&Method::DELETE, _) if call.subresource.is_none() => {
                return self.perform_delete(call, bytes, form);
            }
            _ => return Err(ApiError::MethodNotAllowed),
        };
        let now = self.inner.options.clock.now();
        let answer = form.object(&call.resource, &written.object, now);
        Ok(answered(&written, answer))
    }

    fn perform_delete(&self, call: &Call, bytes: &[u8], form: Form) -> Result<Response, ApiError> {
        let options = DeleteOptions::parse(call, bytes)?;
        let now = self.inner.options.clock.now();
        if call.name.is_none() {
            let deleted = self.delete_collection(call, &options)?;
            let metadata = json!({ "resourceVersion": self.inner.store.revision().to_string() });
            return Ok(Json(form.list(&call.resource, &deleted, &metadata, now)).into_response());
        }
        let answer = match self.delete(call, &options)? {
            Deleted::Gone(object) => success(call, &object),
            Deleted::Marked(object) => form.object(&call.resource, &object, now),
        };
        Ok(Json(answer).into_response())
    }

    fn perform_on_part(
        &self,
        call: &Call,
        subresource: &str,
        method: &Method,
        bytes: &[u8],
    ) -> Result<Response, ApiError> {
        let object = || body::object(&call.media_type, bytes);
        match (subresource, method) {
            ("scale", &Method::PUT) => {
                let wanted = object()?;
                let scale = self.rescale(call, |scale| {
                    scale["spec"] = wanted["spec"].clone();
                    scale["metadata"]["resourceVersion"] =
                        wanted["metadata"]["resourceVersion"].clone();
                    Ok(())
                })?;
                Ok(Json(scale).into_response())
            }
            ("scale", &Method::PATCH) => Ok(Json(self.patch_scale(call, bytes)?).into_response()),
            ("eviction", &Method::POST) => {
                let status = self.evict(call, &object()?)?;
                Ok((StatusCode::CREATED, Json(status)).into_response())
            }
            ("token", &Method::POST) => {
                let token = self.give_token(call, &object()?)?;
                Ok((StatusCode::CREATED, Json(token)).into_response())
            }
            ("binding", &Method::POST) => {
                let written = self.bind(call, &object()?)?;
                let answer = success(call, &written.object);
                Ok((StatusCode::CREATED, Json(answer)).into_response())
            }
            _ => Err(ApiError::MethodNotAllowed),
        }
    }
}

fn answered(written: &Written, answer: Value) -> Response {
    let code = if written.created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let mut response = (code, Json(answer)).into_response();
    for warning in &written.warnings {
        // 299 is "miscellaneous persistent warning" of RFC 7234.
        if let Ok(value) = HeaderValue::from_str(&format!("299 - {warning:?}")) {
            response.headers_mut().append(http::header::WARNING, value);
        }
    }
    response
}
