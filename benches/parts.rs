//! What the parts of a verification cost, and the whole of it through the router without a socket.
//!
//! Figures are comparable within one run alone: machines and moments differ.

#![expect(clippy::unwrap_used, reason = "a benchmark that can't go on fails")]

use std::hint::black_box;
use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use criterion::{Criterion, criterion_group, criterion_main};
use keyward::base::clock::SystemClock;
use keyward::base::rng::{Rng as _, SystemRng};
use keyward::ctx::Ctx;
use keyward::features::audit::By;
use keyward::features::keys::create::{self, Making, NewKey};
use keyward::features::keys::format::{NewSecret, PresentedKey};
use keyward::features::projects;
use keyward::features::scopes::Scopes;
use keyward::infra::config::{Config, Loaded};
use keyward::infra::db::{self, Db};
use keyward::server::Service;
use keyward::worker::Workers;
use tokio::runtime::Runtime;

fn parts(c: &mut Criterion) {
    let key = NewSecret::generate("sk", &SystemRng);
    let text = key.secret.expose();
    let wrong = text.replace("sk_", "sl_");
    c.bench_function("key: form and checksum", |b| b.iter(|| PresentedKey::parse(black_box(text)).is_ok()));
    c.bench_function("key: a wrong checksum", |b| b.iter(|| PresentedKey::parse(black_box(&wrong)).is_err()));
    c.bench_function("key: with its hash", |b| b.iter(|| PresentedKey::parse(black_box(text)).map(|key| key.hash())));

    let held = Scopes::new(["orders:*", "users:read", "billing:invoices:read"].map(|scope| scope.parse().unwrap()));
    c.bench_function("scopes: one of three", |b| b.iter(|| held.cover(black_box("billing:invoices:read"))));

    let mut bytes = vec![0; 1024 * 1024];
    c.bench_function("random: 32 bytes", |b| b.iter(|| SystemRng.fill(&mut bytes[..32])));
    c.bench_function("random: 1 MiB", |b| b.iter(|| SystemRng.fill(&mut bytes)));
}

/// A key of the system project that may verify, on SQLite.
async fn service(directory: &std::path::Path) -> (Service, String, Workers) {
    let url = format!("sqlite://{}", directory.join("bench.db").display());
    let settings = [("DATABASE_URL", url.as_str()), ("KEYWARD_DEFAULT_RATE_LIMIT", "1000000000")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = Config::parse(&Loaded::load(None, settings, []).unwrap()).unwrap();
    let db = Db::open(&config.database).await.unwrap();
    db::migrate(&db).await.unwrap();
    let ctx = Ctx::new(db, Arc::new(SystemClock::new()), Arc::new(SystemRng), config).unwrap();
    projects::ensure_system(&ctx).await.unwrap();
    let project = projects::store::system(ctx.db.reader().await.unwrap().conn()).await.unwrap().unwrap();
    let making =
        Making { by: &By::system("bench", &ctx), caller: None, project, responsible: None, idempotency_key: None };
    let scopes = Scopes::new(["keyward:keys:verify".parse().unwrap()]);
    let new = NewKey { name: Some("bench".to_owned()), scopes: Some(scopes), ..NewKey::default() };
    let created = create::create(&ctx, &making, new).await.unwrap();
    let workers = Workers::start(&ctx).await.unwrap();
    (Service::new(&ctx), created.secret.expose().to_owned(), workers)
}

fn whole(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (service, key, workers) = runtime.block_on(service(directory.path()));
    let call = |request: Request<Body>| {
        let answer = runtime.block_on(service.call(None, request));
        assert_eq!(answer.status(), 200);
    };
    let verify = |asked: &str| {
        Request::post("/v1/keys/verify")
            .header("x-api-key", &key)
            .header("content-type", "application/json")
            .body(Body::from(format!("{{\"key\":\"{asked}\"}}")))
            .unwrap()
    };
    c.bench_function("route: health", |b| b.iter(|| call(Request::get("/health").body(Body::empty()).unwrap())));
    c.bench_function("route: 32 random bytes", |b| {
        b.iter(|| call(Request::get("/key/32").body(Body::empty()).unwrap()));
    });
    c.bench_function("route: verify", |b| b.iter(|| call(verify(&key))));
    c.bench_function("route: verify, malformed", |b| b.iter(|| call(verify("sk_malformed"))));
    runtime.block_on(workers.stop());
}

criterion_group!(benches, parts, whole);
criterion_main!(benches);
