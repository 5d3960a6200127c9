#!/usr/bin/env bash
# Installs MariaDB and PostgreSQL from Debian's packages, for the tests of movielens-store. They start servers of their own,
# so the packages must start none. Needs root. Does nothing twice.
set -euo pipefail
if ! command -v mariadbd > /dev/null || ! ls /usr/lib/postgresql/*/bin/postgres > /dev/null 2>&1; then
  printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d # invoke-rc.d then starts nothing
  chmod +x /usr/sbin/policy-rc.d
  trap 'rm -f /usr/sbin/policy-rc.d' EXIT
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq update
  apt-get -qq install -y --no-install-recommends mariadb-server postgresql > /dev/null
fi
mariadbd --version
