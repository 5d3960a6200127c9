#!/usr/bin/env bash
# Installs MariaDB and PostgreSQL from Debian's packages, for the tests of movielens-store, which start servers of their own.
set -euo pipefail
"$(dirname "$0")/apt-install.sh" mariadb-server postgresql
mariadbd --version
