#!/bin/sh
# usage: install.sh ARGUMENT...
# Installs into /opt/venv what the arguments say, as `pip install` does, with uv. What is set for pip counts: uv does not read pip.conf.
set -eu

UV_DEFAULT_INDEX=$(/opt/uv/bin/pip config get global.index-url 2> /dev/null || true)
[ ! -s /run/secrets/ca ] || export SSL_CERT_FILE=/run/secrets/ca
export UV_DEFAULT_INDEX UV_LINK_MODE=copy # the cache is on another file system
exec /opt/uv/bin/uv pip install --quiet --python /opt/venv --compile-bytecode "$@"
