#!/usr/bin/env bash
# Runs the command; `redis-server` as the user redis, with its data in /data.
set -euo pipefail

case $1 in -*) set -- redis-server "$@" ;; esac # options alone, as the official image allows
if [ "$1" = redis-server ]; then
  # as in the official image: a container is reached from others only, and whether it asks for a password is the caller's affair
  case " $* " in
    *' --protected-mode '*) ;;
    *) set -- "$@" --protected-mode no ;;
  esac
  if [ "$(id -u)" -eq 0 ]; then
    find . ! -user redis -exec chown redis:redis {} +
    exec setpriv --reuid redis --regid redis --init-groups "$@"
  fi
fi
exec "$@"
