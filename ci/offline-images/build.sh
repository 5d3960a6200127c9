#!/usr/bin/env bash
# usage: ci/offline-images/build.sh
# Builds the base image and the service images of the course from Debian's packages, without any registry. An image whose inputs
# have not changed since it was built is left alone.
set -euo pipefail
cd "$(dirname "$0")"

codename=trixie
base=course/base:$codename
services=(course/{postgres:17,redis:8.0,mysql:11.8,registry:2.8,haproxy:3.0})

digest() { sha256sum | cut -d ' ' -f 1; }

# Is there an image of this name, made from inputs of this digest?
built() { [ "$(docker image inspect --format '{{index .Config.Labels "course.inputs"}}' "$1" 2> /dev/null)" = "$2" ]; }

build_base() {
  local inputs id
  inputs=$(./base.sh inputs "$codename" | digest)
  built "$base" "$inputs" && return
  echo "building $base"
  id=$(./base.sh build "$codename" | docker import --change "LABEL course.inputs=$inputs" --change 'CMD ["python3"]' \
    --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8' \
    --change 'ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt' -)
  docker tag "$id" "$base" # only now: the pipe's first half has succeeded too
}

build_service() {
  local image=$1 folder inputs
  folder=${image#course/}
  folder=${folder%:*}
  inputs=$({
    docker image inspect --format '{{.Id}}' "$base"
    tar -c --sort=name --mtime=@0 --owner=0 --group=0 "$folder" first-start.sh
  } | digest)
  built "$image" "$inputs" && return
  echo "building $image"
  DOCKER_BUILDKIT=1 docker build --progress plain --build-arg BASE_IMAGE="$base" --label "course.inputs=$inputs" \
    --tag "$image" --file "$folder/Dockerfile" . > "$logs/$folder" 2>&1 || {
    cat "$logs/$folder" >&2
    return 1
  }
}

docker info > /dev/null 2>&1 || {
  echo "$0: no Docker engine answers; ci/docker-engine.sh up starts one" >&2
  exit 1
}
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

build_base
builds=()
for image in "${services[@]}"; do
  build_service "$image" &
  builds+=($!)
done
status=0
for build in "${builds[@]}"; do wait "$build" || status=1; done
[ "$status" -eq 0 ] || exit 1

images=("$base" "${services[@]}")
docker image ls --format 'table {{.Repository}}:{{.Tag}}\t{{.Size}}' "${images[@]/#/--filter=reference=}"
