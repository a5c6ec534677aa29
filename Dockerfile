# syntax=docker/dockerfile:1
#
# One image for every role: the command names it (`serve`, `api`, `worker`, `scheduler`, `migrate`, `job …`).
#
# Base images are pinned by tag. To pin one by digest, too, append what this prints to its tag; Dependabot then keeps both:
#   docker buildx imagetools inspect --format '@{{.Manifest.Digest}}' IMAGE

# The C that is compiled here (ring, SQLite, mimalloc) needs no more than this image's gcc: no cmake, no OpenSSL.
FROM rust:1.95.0-slim-bookworm AS chef
WORKDIR /src
# The toolchain is the one that this file names, also where the image brings another.
COPY rust-toolchain.toml ./
RUN rustup toolchain install && cargo install cargo-chef --locked --version 0.1.77

FROM chef AS plan
COPY . .
RUN cargo chef prepare

FROM chef AS build
# The macros read what they must know of Postgres from crates/psp-postgres/.sqlx.
ENV SQLX_OFFLINE=true
COPY --from=plan /src/recipe.json ./
# Dependencies are a layer of their own, which a change of the code leaves as it is. Cache mounts would do the same on a
# laptop, but GitHub's cache does not keep them.
RUN cargo chef cook --locked --release --package psp-cli
COPY . .
# What `psp --version` shows. Without them: the version of the crate, and no commit, because .git stays out of the context.
ARG PSP_VERSION
ARG PSP_COMMIT=unknown
RUN cargo build --locked --release --package psp-cli

# The binary alone, for `docker build --target binary --output DIR .`: releases are what the image holds.
FROM scratch AS binary
COPY --from=build /src/target/release/psp /

# The authorities of RDS, for `sslmode=verify-full&sslrootcert=/etc/ssl/rds/global-bundle.pem`. AWS adds to the file now and
# then, so its checksum (`sha256:…`) is asked for only where the build names one.
FROM scratch AS rds
# checkov:skip=CKV_DOCKER_4: ADD fetches the file and checks it, in a stage without curl.
ARG RDS_BUNDLE_CHECKSUM
ADD --chmod=444 --checksum=${RDS_BUNDLE_CHECKSUM} https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem /

# glibc, the authorities of the web, and no shell.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=rds /global-bundle.pem /etc/ssl/rds/
COPY --from=binary /psp /usr/local/bin/
ARG PSP_VERSION
ARG PSP_COMMIT=unknown
LABEL org.opencontainers.image.title="psp" \
      org.opencontainers.image.description="A payment service provider" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${PSP_VERSION}" \
      org.opencontainers.image.revision="${PSP_COMMIT}"
# Loopback would not be reached from outside the container.
ENV PSP_LISTEN=0.0.0.0:3000
EXPOSE 3000
USER 65532:65532
# Nothing is written on Postgres, so the root may be read-only; the database of a lone `serve` is in /home/nonroot.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["/usr/local/bin/psp", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/psp"]
CMD ["serve"]
