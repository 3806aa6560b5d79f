# Keyward in a container: built with the project's own toolchain version, run by
# nobody in particular, on a system with nothing but its C library and the root
# certificates.

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin keyward

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 keyward \
    && useradd --uid 10001 --gid keyward --home-dir /data --shell /usr/sbin/nologin keyward \
    && install --directory --owner=keyward --group=keyward --mode=0750 /data
COPY --from=build /src/target/release/keyward /usr/local/bin/keyward

# A number, so that Kubernetes can see that it isn't root.
USER 10001:10001
# Without DATABASE_URL, the SQLite file is made here: mount a volume to keep it.
WORKDIR /data
ENV KEYWARD_HOST=0.0.0.0
# 8080: the API. 8000: metrics.
EXPOSE 8080 8000
STOPSIGNAL SIGTERM

# No HEALTHCHECK: the image has nothing to make a request with. Probe
# /health/live and /health/ready from outside.
ENTRYPOINT ["keyward"]
CMD ["serve"]
