#!/bin/sh
# Refuses secrets that are missing, short, or well known, before any service starts: PostgreSQL and
# RustFS keep the first password that they are given.
set -eu

for name in POSTGRES_PASSWORD RAY_AUTH_TOKEN MLFLOW_AUTH_ADMIN_PASSWORD \
    MLFLOW_FLASK_SERVER_SECRET_KEY RUSTFS_ACCESS_KEY RUSTFS_SECRET_KEY; do
    value=$(printenv "$name" || true)
    case $(printf %s "$value" | tr '[:upper:]' '[:lower:]') in
    '') why='is not set' ;;
    *password* | *changeme* | *secret* | *admin* | *default* | *example* | *masksweep*)
        why='is one that others would guess' ;;
    *) [ "${#value}" -ge 20 ] && continue; why='is shorter than 20 characters' ;;
    esac
    echo "check-secrets: $name $why: docker/secrets.sh makes good ones" >&2
    exit 2
done
