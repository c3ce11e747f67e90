#!/bin/sh
# Makes docker/.env, the secrets of one installation, which only its owner can read. Does nothing if
# it is there: PostgreSQL and RustFS keep what they were first given.
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
{
    echo "COMPOSE_PROJECT_NAME=masksweep"
    echo "POSTGRES_PASSWORD=$(random 24)"
    echo "RAY_AUTH_TOKEN=$(random 32)"
    echo "MLFLOW_AUTH_ADMIN_PASSWORD=$(random 24)"
    echo "MLFLOW_FLASK_SERVER_SECRET_KEY=$(random 32)"
    echo "RUSTFS_ACCESS_KEY=$(random 10)"
    echo "RUSTFS_SECRET_KEY=$(random 24)"
} >"$made"
# whole or not at all, and never over one that was made meanwhile
ln "$made" "$file"
rm "$made"
echo "$file holds the secrets of this installation: keep it, and keep it to yourself" >&2
