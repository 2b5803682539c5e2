//! HTTP: metrics for Prometheus, and probes for whoever watches over the process.

mod exposition;
mod limited;
mod process;

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;
use tokio::net::TcpListener;

use super::observed::{Health, Place};
use limited::LimitedListener;

/// Serves until `until` is ready, then lets the requests that are being answered finish.
pub async fn serve(listener: TcpListener, place: Arc<Place>, until: impl Future<Output = ()> + Send + 'static) {
    let server = axum::serve(LimitedListener::new(listener), router(place)).with_graceful_shutdown(until);
    if let Err(reason) = server.await {
        tracing::warn!(%reason, "the HTTP server ended");
    }
}

fn router(place: Arc<Place>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(place)
}

async fn metrics(State(place): State<Arc<Place>>) -> Response {
    match exposition::text(&*place) {
        Ok(text) => (
            [(CONTENT_TYPE, HeaderValue::from_static(prometheus::TEXT_FORMAT))],
            text,
        )
            .into_response(),
        Err(reason) => {
            tracing::warn!(%reason, "metrics cannot be exported");
            (StatusCode::INTERNAL_SERVER_ERROR, reason.to_string()).into_response()
        }
    }
}

async fn healthz(State(place): State<Arc<Place>>) -> Response {
    let health = place.health();
    probe(health.live, &health)
}

async fn readyz(State(place): State<Arc<Place>>) -> Response {
    let health = place.health();
    probe(health.live && health.ready, &health)
}

fn probe(is_good: bool, health: &Health) -> Response {
    let restores = health.restores.iter().map(
        |restore| json!({"task": restore.task.to_string(), "restored": restore.restored, "target": restore.target}),
    );
    let body = json!({
        "live": health.live,
        "ready": health.ready,
        "detail": health.detail,
        "restores": restores.collect::<Vec<_>>(),
    });
    let status = if is_good {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (
        status,
        [(CONTENT_TYPE, HeaderValue::from_static("application/json"))],
        body.to_string(),
    )
        .into_response()
}
