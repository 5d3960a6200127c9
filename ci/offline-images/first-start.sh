# What the database images share. Their entry points source it.
# shellcheck shell=bash

fail() {
  echo "$(basename "$0"): $*" >&2
  exit 1
}

# read_secret NAME: exports NAME, and where NAME_FILE is set, takes its value from that file. A secret is one line.
read_secret() {
  local file=${1}_FILE
  if [ -n "${!file:-}" ]; then
    [ -z "${!1:-}" ] || fail "set $1 or $file, not both"
    [ -r "${!file}" ] || fail "$file names ${!file}, which cannot be read"
    printf -v "$1" %s "$(< "${!file}")"
    unset "$file"
  fi
  case ${!1:-} in *$'\n'*) fail "$1 has more than one line" ;; esac
  export "${1?}"
}

# fill_once FOLDER LAST MAKE: unless FOLDER/LAST is there, calls `MAKE NEW` to fill a new folder within FOLDER, and moves what it
# made up into FOLDER, LAST last. FOLDER is a volume, so it cannot be replaced whole. Whenever a start is killed, the next one goes on.
fill_once() {
  local folder=$1 last=$2 make=$3 unfinished=$1/.unfinished finished=$1/.finished
  if [ ! -e "$folder/$last" ] && [ ! -d "$finished" ]; then
    rm -rf "$unfinished"
    [ -z "$(ls -A --ignore lost+found "$folder")" ] || fail "$folder holds files, but not the data of a database"
    mkdir -m 700 "$unfinished"
    "$make" "$unfinished"
    mv "$unfinished" "$finished"
  fi
  if [ -d "$finished" ]; then
    find "$finished" -mindepth 1 -maxdepth 1 ! -name "$last" -exec mv -t "$folder" {} +
    [ ! -e "$finished/$last" ] || mv "$finished/$last" "$folder"
    rmdir "$finished"
  fi
}
