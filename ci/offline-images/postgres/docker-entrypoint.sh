#!/usr/bin/env bash
# Runs the command as the user postgres. Before the first `postgres`, makes a database cluster in $PGDATA from
#   POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE (required), POSTGRES_USER (postgres), POSTGRES_DB (the user's name)
set -euo pipefail
# shellcheck source=ci/offline-images/first-start.sh
. /usr/local/lib/first-start.sh
trap 'exit 143' INT TERM # a shell that is PID 1 would ignore them

# No server runs while the cluster is made, so no health check can take it for ready.
make_cluster() {
  local user=${POSTGRES_USER:-postgres} database
  [ -n "${POSTGRES_PASSWORD:-}" ] || fail "POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE must be set for the first start"
  initdb --pgdata "$1" --username "$user" --pwfile <(printf '%s\n' "$POSTGRES_PASSWORD") --encoding UTF8 --locale C.UTF-8 \
    --auth-local trust --auth-host scram-sha-256 --set listen_addresses='*'
  echo 'host all all all scram-sha-256' >> "$1/pg_hba.conf"
  database=${POSTGRES_DB:-$user}
  [ "$database" = postgres ] ||
    postgres --single -D "$1" -c exit_on_error=on postgres <<< "CREATE DATABASE \"${database//\"/\"\"}\""
}

case $1 in -*) set -- postgres "$@" ;; esac # options alone, as the official image allows
if [ "$1" = postgres ]; then
  read_secret POSTGRES_PASSWORD # as root, who may read any file
  if [ "$(id -u)" -eq 0 ]; then
    install -d -o postgres -g postgres -m 700 "$PGDATA"
    find "$PGDATA" ! -user postgres -exec chown postgres:postgres {} +
    exec setpriv --reuid postgres --regid postgres --init-groups "$0" "$@"
  fi
  fill_once "$PGDATA" PG_VERSION make_cluster
  unset POSTGRES_PASSWORD
fi
exec "$@"
