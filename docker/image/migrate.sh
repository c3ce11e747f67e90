#!/bin/sh
# Migrates MLflow's tables, and those of its accounts, to the version of this image. Runs once, before
# a server starts: two servers that start on an empty database would both create the tables.
set -eu

database=postgresql+psycopg2:///mlflow
waited=0
until python3 -c 'import psycopg2; psycopg2.connect(dbname="mlflow").close()' 2>/dev/null; do
    waited=$((waited + 1))
    if [ "$waited" -gt 60 ]; then
        echo "migrate: no database mlflow answers at ${PGHOST:-localhost} as ${PGUSER:-nobody}" >&2
        exit 1
    fi
    sleep 1
done
mlflow db upgrade "$database"
python3 -m mlflow.server.auth db upgrade --url "$database"
