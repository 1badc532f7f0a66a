# Two stages: build with Rust, run as an unprivileged user on a small Debian.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin tidelog

FROM debian:bookworm-slim
# curl is what the health checks ask with.
RUN apt-get update && apt-get install -y --no-install-recommends curl && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home tidelog
COPY --from=build /src/target/release/tidelog /usr/local/bin/tidelog
USER 10001
ENTRYPOINT ["tidelog"]
CMD ["serve"]
