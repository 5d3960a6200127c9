#!/usr/bin/env bash
# usage: ci/kubernetes/build.sh FOLDER
# Compiles Kubernetes from the source package of Debian 12, as root, into FOLDER, whose name is the version and which is there whole
# or not at all.
# Debian ships no server of Kubernetes, but its own compiler builds one.
set -euo pipefail
ci=$(cd "$(dirname "$0")/.." && pwd)
folder=$1
version=${folder##*/}
programs=(kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet)

[ ! -e "$folder" ] || exit 0
exec 9> /run/lock/course-kubernetes-build # whoever comes second waits, and finds it built
flock 9
[ ! -e "$folder" ] || exit 0
step() { printf '%4d s  %s\n' "$SECONDS" "$*"; }

step "installing the compiler"
"$ci/apt-install.sh" dpkg-dev golang-1.19-go golang-github-modern-go-reflect2-dev

step "getting the source of Kubernetes $version"
mkdir -p "$(dirname "$folder")"
work=$(mktemp -d "$folder.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{lists,archives}/partial "$work"/go/src/k8s.io "$work"/programs
"$ci/debian-sources.sh" bookworm | sed 's/^deb /deb-src /' > "$work/sources.list"
apt=(apt-get -qq -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=- -o Dir::State::Lists="$work/lists"
  -o Dir::Cache="$work" -o APT::Sandbox::User=root)
"${apt[@]}" update
(cd "$work" && "${apt[@]}" source kubernetes) > "$work/source.log" 2>&1 || { cat "$work/source.log" >&2 && exit 1; }
mv "$work"/kubernetes-*/ "$work/go/src/k8s.io/kubernetes"
cd "$work/go/src/k8s.io/kubernetes"
# Go 1.18 changed how maps are laid out: reflect2 1.0.1, the copy in this source, then reads them wrongly. 1.0.2 knows both.
rm -r vendor/github.com/modern-go/reflect2
cp -rL /usr/share/gocode/src/github.com/modern-go/reflect2 vendor/github.com/modern-go/

# Dynamic volumes are folders of the node that root alone may write, and no pod of ours is root: open them to every user.
sed -i 's/\(os.MkdirAll(pv.Spec.HostPath.Path, \)0750/\10777/' pkg/volume/hostpath/host_path.go
grep --quiet '(pv.Spec.HostPath.Path, 0777' pkg/volume/hostpath/host_path.go

export GOGC=400 # more memory for less time: 2 GB at the most
export PATH=/usr/lib/go-1.19/bin:$PATH GOPATH=$work/go GOCACHE=$work/cache GO111MODULE=off GOFLAGS='' CGO_ENABLED=0

step "generating the OpenAPI definitions, which the source package leaves out"
go build -o "$work/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
packages=$(grep --dereference-recursive --files-with-matches --include='*.go' '+k8s:openapi-gen=' cmd pkg plugin vendor/k8s.io |
  grep --invert-match -E '^vendor/k8s.io/(code-generator|gengo|kube-openapi|sample-[a-z]+)/|/testdata/|/_|_test\.go$' |
  xargs dirname | sort --unique | sed 's|^|k8s.io/kubernetes/|' | paste --serial --delimiters=,)
"$work/openapi-gen" --input-dirs "$packages" --output-package k8s.io/kubernetes/pkg/generated/openapi --report-filename "$work/violations" \
  --output-file-base zz_generated.openapi --go-header-file vendor/k8s.io/code-generator/hack/boilerplate.go.txt

step "compiling ${programs[*]}"
flags='-s -w'
for package in component-base/version client-go/pkg/version; do
  for value in gitVersion=v$version gitMajor=1 gitMinor=20 gitTreeState=archive; do
    flags+=" -X k8s.io/kubernetes/vendor/k8s.io/$package.$value"
  done
done
# without the providers of clouds and without Docker as a runtime, neither of which a node of ours has, it takes half as long
go build -v -tags providerless,dockerless -ldflags "$flags" -o "$work/programs/" "${programs[@]/#/./cmd/}" 2>&1 |
  awk '/^[^ :#]+$/ { if (++n % 250 == 0) { print "       ", n, "packages"; fflush() } next } { print }'
mv --no-target-directory "$work/programs" "$folder"
step "built $folder, $(du -sh "$folder" | cut -f 1)"
