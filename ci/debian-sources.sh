#!/usr/bin/env bash
# usage: ci/debian-sources.sh CODENAME
# Prints the lines of apt's sources.list for another release of Debian, served by the mirrors that this machine uses for its own.
set -euo pipefail

# shellcheck disable=SC2016 # apt-get fills in the names
suites() { apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' 'Origin: Debian' | sort -u; }

[ -n "$(suites)" ] || apt-get -qq update
own=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
suites | sed -n "s|^\([^ ]*\) $own|deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] \1 $1|p" | sed 's/$/ main/' | grep . || {
  echo "$0: apt has no sources of Debian $own on this machine" >&2
  exit 1
}
