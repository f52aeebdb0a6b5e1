# A static binary on nothing: no shell, no libc, no CA certificates but those that come with the pod
# (the API server's) or with an issuer (caBundle).
#
#   docker build -t bouncert --build-arg SOURCE_DATE_EPOCH="$(git log -1 --format=%ct)" .
#
# Reproducible: the lock file, the toolchain's version and remapped paths decide what is in it; give
# the base image by digest where that has to hold across its updates, and write the image with
# `--output type=image,rewrite-timestamp=true`. SBOM: `docker buildx build --sbom=true`; everything
# inside is in Cargo.lock, and `cargo metadata --locked --filter-platform x86_64-unknown-linux-gnu`
# lists it with versions, checksums and licences.
ARG RUST=1.90-slim-bookworm
FROM rust:${RUST} AS build
ARG SOURCE_DATE_EPOCH=0
# glibc is linked statically; since 2.34 its resolver is part of it, so that names are resolved too.
ENV RUSTFLAGS="-C target-feature=+crt-static -C strip=symbols --remap-path-prefix=/src=bouncert" \
    CARGO_INCREMENTAL=0 SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH}
# For jemalloc, which comes as C and a Makefile.
RUN apt-get update && apt-get install --yes --no-install-recommends make && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY .cargo .cargo
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY benches benches
COPY tests/it/main.rs tests/it/main.rs
COPY policies policies
COPY deploy deploy
# A target has to be named, or the flags would also be for build scripts.
RUN cargo build --locked --release --bin bouncert --target "$(rustc -vV | sed -n 's/host: //p')" \
 && mv target/*/release/bouncert /bouncert \
 && ldd /bouncert 2>&1 | grep -E 'statically linked|not a dynamic executable'

FROM scratch
COPY --from=build /bouncert /bouncert
USER 65532:65532
EXPOSE 9180
ENTRYPOINT ["/bouncert"]
CMD ["run"]
