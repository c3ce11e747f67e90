#!/bin/sh
# Makes docker/.env: the secrets of one installation, which only its owner can read, and its settings.
# Does nothing if it is there: PostgreSQL and RustFS keep what they were first given.
#
#     docker/secrets.sh [FILE]
set -eu

file=${1:-$(dirname "$0")/.env}
if [ -e "$file" ]; then
    echo "$file is there already" >&2
    exit 0
fi
random() { # as many bytes, as hexadecimal digits
    od -An -tx1 -N"$1" /dev/urandom | tr -d ' \n'
}
made=$(mktemp "$file.XXXXXX")
trap 'rm -f "$made"' EXIT
trap 'exit 1' HUP INT TERM
{
    echo "COMPOSE_PROJECT_NAME=masksweep"
    echo "POSTGRES_PASSWORD=$(random 24)"
    echo "RAY_AUTH_TOKEN=$(random 32)"
    echo "MLFLOW_AUTH_ADMIN_PASSWORD=$(random 24)"
    echo "MLFLOW_FLASK_SERVER_SECRET_KEY=$(random 32)"
    echo "RUSTFS_ACCESS_KEY=$(random 10)"
    echo "RUSTFS_SECRET_KEY=$(random 24)"
    cat <<'END'
# cpu: workers without cards; gpu: one with all cards
COMPOSE_PROFILES=cpu
# each worker offers Ray all CPUs of the machine (0), or as many as are said here, which it must for
# several workers, or for both profiles, or trials would share CPUs and be timed wrongly
#WORKERS=1
#WORKER_CPUS=0
#WORKER_MEMORY=8g
#GPU_WORKER_MEMORY=32g
#HEAD_MEMORY=6g
#MLFLOW_PORT=5000
#DASHBOARD_PORT=8265
#BASE_IMAGE=python:3.11-slim-bookworm
#MASKSWEEP_TAG=cpu
#MASKSWEEP_GPU_TAG=gpu
END
} >"$made"
# whole or not at all, and never over one that was made meanwhile
ln "$made" "$file"
echo "$file holds the secrets of this installation: keep it, and keep it to yourself" >&2
