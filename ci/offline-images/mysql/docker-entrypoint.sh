#!/usr/bin/env bash
# Runs the command as the user mysql. Before the first `mysqld`, makes a data directory from
#   MYSQL_ROOT_PASSWORD, MYSQL_ROOT_PASSWORD_FILE or MYSQL_RANDOM_ROOT_PASSWORD (one is required; a random password is told to nobody)
#   MYSQL_DATABASE, MYSQL_USER, MYSQL_PASSWORD or MYSQL_PASSWORD_FILE (a user who may do anything in that database)
set -euo pipefail
# shellcheck source=ci/offline-images/first-start.sh
. /usr/local/lib/first-start.sh
trap 'exit 143' INT TERM # a shell that is PID 1 would ignore them

data=/var/lib/mysql

string() { # as an SQL string
  local text=${1//\\/\\\\}
  printf "'%s'" "${text//\'/\'\'}"
}

identifier() { # as an SQL identifier
  echo "\`${1//\`/\`\`}\`"
}

accounts() { # the SQL that makes them, a statement a line
  # mariadb-install-db leaves root without a password, under several hosts
  echo "DELETE FROM mysql.global_priv WHERE User IN ('', 'root');"
  echo 'DELETE FROM mysql.proxies_priv;'
  echo 'FLUSH PRIVILEGES;' # --bootstrap starts without accounts: now there are some
  local host
  for host in localhost %; do
    echo "CREATE USER root@$(string "$host") IDENTIFIED BY $(string "$MYSQL_ROOT_PASSWORD");"
    echo "GRANT ALL ON *.* TO root@$(string "$host") WITH GRANT OPTION;"
  done
  if [ -n "${MYSQL_DATABASE:-}" ]; then echo "CREATE DATABASE $(identifier "$MYSQL_DATABASE");"; fi
  if [ -n "${MYSQL_USER:-}" ]; then
    echo "CREATE USER $(string "$MYSQL_USER")@'%' IDENTIFIED BY $(string "$MYSQL_PASSWORD");"
    # in GRANT an underscore stands for any character
    if [ -n "${MYSQL_DATABASE:-}" ]; then
      echo "GRANT ALL ON $(identifier "${MYSQL_DATABASE//_/\\_}").* TO $(string "$MYSQL_USER")@'%';"
    fi
  fi
}

# No server listens while the data directory is made, so no health check can take it for ready.
make_data() {
  if [ -n "${MYSQL_RANDOM_ROOT_PASSWORD:-}" ]; then MYSQL_ROOT_PASSWORD=$(head -c 24 /dev/urandom | base64); fi
  [ -n "${MYSQL_ROOT_PASSWORD:-}" ] ||
    fail "MYSQL_ROOT_PASSWORD, MYSQL_ROOT_PASSWORD_FILE or MYSQL_RANDOM_ROOT_PASSWORD must be set for the first start"
  [ -z "${MYSQL_USER:-}" ] || [ -n "${MYSQL_PASSWORD:-}" ] || fail "MYSQL_USER needs MYSQL_PASSWORD or MYSQL_PASSWORD_FILE"
  [ "${MYSQL_USER:-}" != root ] || fail "MYSQL_USER is for another user than root, whose password is MYSQL_ROOT_PASSWORD"
  mariadb-install-db --datadir="$1" --skip-test-db --auth-root-authentication-method=normal > /dev/null
  accounts | mariadbd --datadir="$1" --bootstrap
}

case $1 in -*) set -- mysqld "$@" ;; esac # options alone, as the official image allows
if [ "$1" = mysqld ] || [ "$1" = mariadbd ]; then
  read_secret MYSQL_ROOT_PASSWORD # as root, who may read any file
  read_secret MYSQL_PASSWORD
  if [ "$(id -u)" -eq 0 ]; then
    find "$data" ! -user mysql -exec chown mysql:mysql {} +
    exec setpriv --reuid mysql --regid mysql --init-groups "$0" "$@"
  fi
  fill_once "$data" mysql make_data
  unset MYSQL_ROOT_PASSWORD MYSQL_PASSWORD
fi
exec "$@"
