#!/usr/bin/env bash
# usage: ci/docker-engine.sh up|down
# up: a Docker engine with compose and buildx, from Debian's packages, on a bare Debian machine, as root. It does nothing twice: where
# all three are there already, it prints their versions. down: stops the engine that up started; images and volumes stay.
set -euo pipefail
ci=$(cd "$(dirname "$0")" && pwd)

pidfile=/run/course-dockerd.pid # not dockerd's own, so that down cannot meet an engine that someone else started
log=/var/log/course-dockerd.log

# Debian 12 has neither plugin, but those of Debian 13 run there, put where the client looks whatever HOME is.
install_plugins_of_debian_13() (
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  "$ci/extract-packages.sh" trixie "$work" docker-compose docker-buildx
  install -D --mode 755 --target-directory /usr/local/lib/docker/cli-plugins "$work"/usr/libexec/docker/cli-plugins/*
)

start_engine() {
  # left by an engine that was killed; by now its number may be another process's, and dockerd would not start
  if [ -e "$pidfile" ] && [ "$(cat "/proc/$(< "$pidfile")/comm" 2> /dev/null)" != dockerd ]; then rm -f "$pidfile"; fi
  setsid dockerd --pidfile "$pidfile" --log-opt max-size=10m --log-opt max-file=3 > "$log" 2>&1 < /dev/null &
  local deadline=$((SECONDS + 60))
  until docker info > /dev/null 2>&1; do
    if ! kill -0 $! 2> /dev/null || [ "$SECONDS" -gt "$deadline" ]; then
      echo "$0: the engine did not start; the end of $log:" >&2
      tail -n 20 "$log" >&2
      exit 1
    fi
    sleep 0.2
  done
}

up() {
  if ! docker info > /dev/null 2>&1 && ! command -v dockerd > /dev/null; then
    "$ci/apt-install.sh" docker.io iptables
  fi
  if ! docker compose version > /dev/null 2>&1 || ! docker buildx version > /dev/null 2>&1; then
    if apt-cache show docker-buildx > /dev/null 2>&1; then
      "$ci/apt-install.sh" docker-cli docker-compose docker-buildx
    else
      install_plugins_of_debian_13
    fi
  fi
  docker info > /dev/null 2>&1 || start_engine
  docker version --format 'Docker engine {{.Server.Version}}, client {{.Client.Version}}'
  docker compose version
  docker buildx version
}

down() {
  [ -e "$pidfile" ] || return 0
  local pid
  pid=$(< "$pidfile")
  if [ "$(cat "/proc/$pid/comm" 2> /dev/null)" = dockerd ]; then
    kill "$pid"
    timeout 60 tail --pid "$pid" -f /dev/null
  fi
  rm -f "$pidfile"
}

case "${1:-}" in
  up | down) "$1" ;;
  *)
    sed -n 's/^# usage: /usage: /p' "$0" >&2
    exit 2
    ;;
esac
