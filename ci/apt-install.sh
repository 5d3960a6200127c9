#!/usr/bin/env bash
# usage: ci/apt-install.sh PACKAGE...
# Installs those of the packages that are missing, as root, and starts none of the daemons that they bring.
set -euo pipefail

missing=()
for package; do
  [ "$(dpkg-query --show --showformat '${db:Status-Status}' "$package" 2> /dev/null)" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get > /dev/null; then
  echo "$0: needs Debian and root to install ${missing[*]}" >&2
  exit 1
fi
# one at a time: apt waits for itself in some places, and gives up in others
exec 9> /run/lock/course-apt
flock 9
policy=/usr/sbin/policy-rc.d # with this file, a package's script that asks to start a service is told no
if [ ! -e "$policy" ]; then
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' > "$policy"
  chmod +x "$policy"
fi
apt-get -qq update
DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" > /dev/null
