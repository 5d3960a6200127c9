#!/usr/bin/env bash
# usage: ci/extract-packages.sh RELEASE FOLDER PACKAGE...
# Gets packages of another Debian release, and unpacks them below FOLDER instead of installing them. Programs that carry their
# libraries with them, as those written in Go do, run from there. The machine's own apt settings stay as they are.
set -euo pipefail
ci=$(cd "$(dirname "$0")" && pwd)
release=$1 folder=$2
shift 2

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{lists,archives}/partial
"$ci/debian-sources.sh" "$release" > "$work/sources.list"
apt=(apt-get -qq -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=- -o Dir::State::Lists="$work/lists"
  -o Dir::State::Status=/dev/null -o Dir::Cache="$work" -o APT::Sandbox::User=root)
"${apt[@]}" update # what is installed here has no say in which version is taken, hence the empty status
cd "$work"
"${apt[@]}" download "$@"
for package in ./*.deb; do dpkg-deb --extract "$package" "$folder"; done
