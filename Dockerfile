# syntax=docker/dockerfile:1
# One static program and the public certificate authorities, on nothing: no shell, no package, nobody to become root.
#   docker build -t cutover .
# What is in it is tested without Docker by `make image-check`: the same build, run in an empty root.
FROM rust:1.95.0-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cp "$(tests/image/build.sh)" /cutover

FROM scratch
LABEL org.opencontainers.image.title="cutover" \
      org.opencontainers.image.description="Moves the live users of one Supabase project to another, one percentage at a time" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /cutover /cutover
USER 65532:65532
EXPOSE 8000 8001
ENTRYPOINT ["/cutover"]
CMD ["serve", "--config", "/etc/cutover/config/config.toml"]
