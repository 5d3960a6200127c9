#!/usr/bin/env bash
# usage: ci/offline-images/base.sh build|inputs CODENAME
# build writes the file system of the base image, which no registry has to serve: a minimal Debian with Python, used as the official
# python:3.13-slim is. What this machine uses to reach its packages, builds use too: its mirrors, apt's network settings, and the
# certificates it trusts. inputs writes all that the file system is made from.
set -euo pipefail
cd "$(dirname "$0")"

certificates=/etc/ssl/certs/ca-certificates.crt

network_settings() { apt-config dump | grep -E '^Acquire::(https?::|Check-)' || true; }

# force-unsafe-io, as in the official Debian images: a build that is cut short leaves nothing, so dpkg need not sync each file
# shellcheck disable=SC2016 # in a hook, $1 is the new root
build() {
  ../apt-install.sh mmdebstrap
  ../debian-sources.sh "$1" | mmdebstrap --quiet --variant=minbase --include=ca-certificates,python3,python3-venv \
    --aptopt=<(network_settings) \
    --dpkgopt=force-unsafe-io \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --customize-hook="upload $certificates $certificates" \
    --customize-hook='ln -s python3 "$1/usr/bin/python"' \
    --customize-hook='rm -f "$1"/var/cache/apt/*.bin' \
    --customize-hook="upload $PWD/base-apt.conf /etc/apt/apt.conf.d/90images" \
    "$1" - -
}

inputs() {
  cat base.sh base-apt.conf "$certificates"
  network_settings
  ../debian-sources.sh "$1"
}

case "${1:-}" in
  build | inputs) "$1" "$2" ;;
  *)
    sed -n 's/^# usage: /usage: /p' base.sh >&2
    exit 2
    ;;
esac
