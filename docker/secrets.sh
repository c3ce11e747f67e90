#!/bin/sh
# Creates docker/.env, with the secrets and settings of one installation. Only its owner can read it.
# Does nothing if the file exists: PostgreSQL and RustFS keep the first password they are given.
#
#     docker/secrets.sh [FILE]
set -eu

file=${1:-$(dirname "$0")/.env}
if [ -e "$file" ]; then
    echo "$file is there already" >&2
    exit 0
fi
random() { # prints the given number of random bytes as hexadecimal digits
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
# cpu: workers without GPUs; gpu: one worker with all GPUs
COMPOSE_PROFILES=cpu
# WORKER_CPUS: CPUs that each worker offers to trials; 0: all of the machine. Set it for several
# workers, or for both profiles: otherwise trials share CPUs, and their timings are wrong
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
# atomic; ln does not replace a file that was created meanwhile
ln "$made" "$file"
echo "$file holds the secrets of this installation: keep it, and keep it to yourself" >&2
