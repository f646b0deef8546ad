# What compose.yaml asks of the official image: a server for POSTGRES_USER and its password, kept in its volume.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends postgresql >/dev/null \
    && ln -sf /usr/lib/postgresql/*/bin/* /usr/local/bin/
COPY tests/images/stand_ins/postgres-entrypoint /usr/local/bin/entrypoint
ENV PGDATA=/var/lib/postgresql/data
ENTRYPOINT ["entrypoint"]
