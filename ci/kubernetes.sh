#!/usr/bin/env bash
# usage: ci/kubernetes.sh build | up | load | down | stop NAME | start NAME | restart NAME
# A Kubernetes 1.20.2 of one node on a bare Debian 12 machine, as root, for tests.
# build: compiles it, once. up: starts an empty cluster, building it when needed, with the images that were loaded before, and
# writes /var/lib/course-kubernetes/admin.kubeconfig. load: brings the images of a `docker save` archive on stdin to the node.
# down: stops what up started; the build and the images stay. stop, start, restart: one program (kubelet...), as a fault.
set -euo pipefail
ci=$(cd "$(dirname "$0")" && pwd)

bin=/var/cache/course-kubernetes/1.20.2
home=/var/lib/course-kubernetes # also in ci/kubernetes/containerd.toml, bridge.conflist and kubelet.yaml, as are the addresses
log=/var/log/course-kubernetes
run=$home/run
pki=$home/pki
admin=$home/admin.kubeconfig
node=course-ci
bridge=course-k8s
address=10.244.0.1 # of the node, on the bridge of its pods
api=https://127.0.0.1:6443
# folders that are built into Kubernetes and its network plugins: dynamic volumes, logs, what is known of networks
fixed=(/tmp/hostpath_pv /var/log/pods /var/log/containers /var/lib/cni)
programs=(containerd etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy cluster_dns.py)

fail() {
  echo "$0: $1" >&2
  exit 1
}

kubectl() { command kubectl --kubeconfig "$admin" "$@"; }

export CONTAINERD_ADDRESS=$run/containerd.sock CONTAINERD_NAMESPACE=k8s.io # for ctr

# --- programs, by their pid files

# Is this program running? By now another process may have the number in its pid file. The kernel keeps 15 letters of a name.
running() { [ -e "$run/$1.pid" ] && grep --quiet "(${1:0:15}) [^Z]" "/proc/$(< "$run/$1.pid")/stat" 2> /dev/null; }

start() {
  ! running "$1" || return 0
  local features=TTLAfterFinished=true,BoundServiceAccountTokenVolume=true command
  case $1 in
    containerd) command=(containerd --config "$ci/kubernetes/containerd.toml") ;;
    etcd) command=(etcd --data-dir "$home/etcd" --unsafe-no-fsync) ;;
    kube-apiserver)
      command=("$bin/$1" --etcd-servers=http://127.0.0.1:2379 --advertise-address="$address" --service-cluster-ip-range=10.96.0.0/16
        --authorization-mode=RBAC --client-ca-file="$pki/ca.crt"
        --tls-cert-file="$pki/server.crt" --tls-private-key-file="$pki/server.key"
        --kubelet-client-certificate="$pki/admin.crt" --kubelet-client-key="$pki/admin.key" --kubelet-preferred-address-types=InternalIP
        --service-account-issuer=https://kubernetes.default.svc.cluster.local --service-account-key-file="$pki/tokens.key"
        --service-account-signing-key-file="$pki/tokens.key" --feature-gates="$features")
      ;;
    kube-controller-manager)
      command=("$bin/$1" --kubeconfig="$admin" --leader-elect=false --port=0 --bind-address=127.0.0.1 --root-ca-file="$pki/ca.crt"
        --service-account-private-key-file="$pki/tokens.key" --enable-hostpath-provisioner --pvclaimbinder-sync-period=1s
        --flex-volume-plugin-dir="$home/kubelet/volume-plugins" --feature-gates="$features")
      ;;
    kube-scheduler) command=("$bin/$1" --kubeconfig="$admin" --leader-elect=false --port=0 --bind-address=127.0.0.1) ;;
    kubelet)
      command=("$bin/$1" --config="$ci/kubernetes/kubelet.yaml" --kubeconfig="$admin" --hostname-override="$node" --node-ip="$address"
        --root-dir="$home/kubelet" --cert-dir="$pki" --container-runtime=remote
        --container-runtime-endpoint="unix://$run/containerd.sock")
      ;;
    kube-proxy)
      command=("$bin/$1" --kubeconfig="$admin" --hostname-override="$node" --cluster-cidr=10.244.0.0/16 --healthz-bind-address=127.0.0.1
        --conntrack-max-per-core=0 --conntrack-tcp-timeout-established=0 --conntrack-tcp-timeout-close-wait=0) # not this machine's
      ;;
    cluster_dns.py) command=("$ci/kubernetes/$1" "$address" "$api" "$pki") ;;
  esac
  (
    # the controller manager makes the folders of dynamic volumes, for pods of any user
    [ "$1" != kube-controller-manager ] || umask 0
    exec setsid "${command[@]}" > "$log/$1" 2>&1 < /dev/null
  ) &
  echo $! > "$run/$1.pid"
  disown # so that bash says nothing when it ends
  until running "$1" || ! kill -0 $! 2> /dev/null; do sleep 0.01; done
}

# As a crash does: the API server would wait for a minute for clients that watch, and all that a program has to keep is on the disk.
stop() {
  local name
  for name; do
    ! running "$name" || kill -KILL "$(< "$run/$name.pid")"
  done
  for name; do
    while running "$name"; do sleep 0.01; done
    rm -f "$run/$name.pid"
  done
}

# Waits until a command succeeds, for as long as the program that it depends on lives.
await() {
  local program=$1 deadline=$((SECONDS + 60))
  shift
  until "$@" > "$run/await" 2>&1; do
    if ! running "$program" || [ "$SECONDS" -gt "$deadline" ]; then
      cat "$run/await" >&2
      tail -n 20 "$log/$program" >&2
      fail "$program does not work; above, the end of $log/$program"
    fi
    sleep 0.1
  done
}

# --- what the programs need

make_certificates() (
  mkdir "$pki"
  cd "$pki"
  certificate() {
    local name=$1
    shift
    openssl req -config "$ci/kubernetes/openssl.cnf" -x509 -days 365 -extensions "$name" -newkey ec -pkeyopt ec_paramgen_curve:P-256 \
      -nodes -keyout "$name.key" -out "$name.crt" "$@" 2> /dev/null
  }
  certificate ca -subj "/CN=$node"
  certificate server -subj /CN=kube-apiserver -CA ca.crt -CAkey ca.key
  certificate admin -subj /O=system:masters/CN=admin -CA ca.crt -CAkey ca.key
  openssl ecparam -name prime256v1 -genkey -noout -out tokens.key
)

write_kubeconfig() {
  cat > "$admin" << YAML
apiVersion: v1
kind: Config
current-context: $node
contexts: [{name: $node, context: {cluster: $node, user: $node-admin}}]
clusters: [{name: $node, cluster: {server: "$api", certificate-authority-data: $(base64 -w 0 "$pki/ca.crt")}}]
users:
- name: $node-admin
  user: {client-certificate-data: $(base64 -w 0 "$pki/admin.crt"), client-key-data: $(base64 -w 0 "$pki/admin.key")}
YAML
}

make_network() {
  modprobe --all --quiet br_netfilter overlay 2> /dev/null || true # built into some kernels
  ip link add "$bridge" type bridge
  ip address add "$address/16" dev "$bridge"
  ip link set "$bridge" up
  ip route add 10.96.0.0/16 dev "$bridge" # for the machine's own way to Services where it has no default route
  # the kernel settings that the programs below and Kubernetes change
  sysctl net.ipv4.ip_forward net.bridge.bridge-nf-call-iptables net.ipv4.conf.all.route_localnet kernel.panic kernel.panic_on_oops \
    kernel.keys.root_maxbytes kernel.keys.root_maxkeys vm.overcommit_memory vm.panic_on_oom > "$run/sysctl"
  sysctl --quiet net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1
  # Docker drops what it does not know. Pods may reach pods; beyond the machine nobody would know the way back to them, so that
  # a pod that calls out is refused at once here, instead of after minutes.
  iptables --wait --insert FORWARD --in-interface "$bridge" --out-interface "$bridge" --jump ACCEPT
  local outside
  outside=$(ip -json route show default | sed -n 's/.*"dev":"\([^"]*\)".*/\1/p')
  [ -z "$outside" ] || iptables --wait --insert FORWARD --in-interface "$bridge" --out-interface "$outside" --jump REJECT
  install -D --mode 644 "$ci/kubernetes/bridge.conflist" "$home/cni/bridge.conflist"
}

# One image from Debian's static busybox: pods are built around it, and it serves tests. No image registry is needed.
import_busybox() (
  ! ctr images ls --quiet | grep --quiet --line-regexp docker.io/course/busybox:1.35 || exit 0
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  cd "$work"
  mkdir --mode 755 root root/bin root/etc
  mkdir --mode 1777 root/tmp
  cp /bin/busybox root/bin
  for applet in $(busybox --list); do [ "$applet" = busybox ] || ln -s busybox "root/bin/$applet"; done
  echo 'root:x:0:0:root:/tmp:/bin/sh' > root/etc/passwd
  tar --create --file layer.tar --directory root --owner 0 --group 0 .
  cat > config.json << JSON
{"architecture": "$(dpkg --print-architecture)", "os": "linux", "config": {"Cmd": ["/bin/sleep", "2147483647"]},
 "rootfs": {"type": "layers", "diff_ids": ["sha256:$(sha256sum layer.tar | cut -d ' ' -f 1)"]}}
JSON
  echo '[{"Config": "config.json", "RepoTags": ["course/busybox:1.35"], "Layers": ["layer.tar"]}]' > manifest.json
  tar --create config.json layer.tar manifest.json | ctr images import -
)

dns_answers() {
  exec 3<> "/dev/udp/$address/53"
  # a query for the address of kubernetes.default.svc.cluster.local; in the fourth byte of the answer, 0 means that there is one
  printf '\0\1\1\0\0\1\0\0\0\0\0\0\12kubernetes\7default\3svc\7cluster\5local\0\0\1\0\1' | cat >&3
  [ "$(timeout 2 head --bytes 4 <&3 | od --address-radix n --format u1 | awk '{ print $4 % 16 }')" = 0 ]
}

# The kubectl of Debian 13, as a learner would have it: the one of 1.20 builds none of the overlays in k8s/.
install_kubectl() (
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  "$ci/extract-packages.sh" trixie "$work" kubectl
  install --mode 755 "$work/usr/bin/kubectl" /usr/local/bin/kubectl
)

# --- commands

build() { "$ci/kubernetes/build.sh" "$bin"; }

up() {
  [ "$(id -u)" -eq 0 ] || fail "needs root"
  "$ci/apt-install.sh" busybox-static conntrack containerd containernetworking-plugins etcd-server iproute2 iptables openssl procps \
    python3 runc
  build
  type -P kubectl > /dev/null || install_kubectl
  if ! running containerd; then # the cluster is down, or was killed
    down
    local folder
    for folder in "${fixed[@]}"; do
      [ ! -e "$folder" ] || fail "there is $folder: does another Kubernetes run on this machine?"
    done
    umask 077
    mkdir -p "$run" "$log" "${fixed[@]}"
    make_certificates
    write_kubeconfig
    make_network
    umask 022
  fi
  local program
  for program in "${programs[@]}"; do
    start "$program"
    case $program in
      containerd) await containerd ctr version && import_busybox > "$log/import" ;;
      kube-apiserver) await kube-apiserver kubectl get --raw /readyz ;;
    esac
  done
  kubectl apply --filename "$ci/kubernetes/storage-class.yaml" > /dev/null
  await kubelet kubectl wait --for condition=Ready "node/$node" --timeout 1s
  await kube-controller-manager kubectl get serviceaccount default
  await kube-proxy kubectl --server https://10.96.0.1 get --raw /readyz
  await cluster_dns.py dns_answers
  kubectl get nodes
}

load() {
  running containerd || fail "no cluster is running; ci/kubernetes.sh up starts one"
  ctr images import -
}

# the rules and chains of Kubernetes and of the bridge, without a touch to those of Docker
remove_firewall_rules() {
  local family
  for family in iptables ip6tables; do
    "$family-save" 2> /dev/null | awk -v bridge="$bridge" '
      /^[*]/ { print }
      /^:KUBE-/ { chain = substr($1, 2); chains[chain]; print "-F", chain }
      /^-A/ && !/^-A KUBE-/ && (/KUBE-/ || index($0, bridge)) { sub("-A", "-D"); print }
      /^COMMIT/ { for (chain in chains) print "-X", chain; delete chains; print }' | "$family-restore" --wait --noflush
  done
}

remove_pods() {
  ctr tasks ls --quiet | xargs --no-run-if-empty ctr tasks rm --force &&
    ctr containers ls --quiet | xargs --no-run-if-empty ctr containers rm
}

down() {
  [ -e "$run" ] || return 0
  stop "${programs[@]:1}"
  start containerd
  await containerd ctr version
  await containerd remove_pods # fails for a pod whose containers end while it looks at them
  stop containerd
  awk -v home="$home/" 'index($2, home) == 1 { print $2 }' /proc/mounts | sort --reverse | xargs --no-run-if-empty umount --lazy
  remove_firewall_rules
  ip link delete "$bridge" 2> /dev/null || true
  if [ -e "$run/sysctl" ]; then
    # an engine of Docker that was started after the cluster counts on these two
    [ ! -e /sys/class/net/docker0 ] || sed -i '/ip_forward\|bridge-nf-call/d' "$run/sysctl"
    sysctl --quiet --load "$run/sysctl"
  fi
  find /sys/fs/cgroup -depth -type d -path '*/kubepods*' -exec rmdir {} +
  rm -rf "$home"/{admin.kubeconfig,cni,etcd,kubelet,pki} "$home"/containerd/io.containerd.grpc.v1.cri "${fixed[@]}"
  rm -rf "$run" # last: while it is there, there is something to clean up
}

one() { # a program of the cluster, by its name
  [[ " ${programs[*]} " = *" ${1:-} "* ]] || fail "which of ${programs[*]}?"
  [ -e "$run" ] || fail "no cluster is running; ci/kubernetes.sh up starts one"
}

case "${1:-}" in
  build | up | load | down) "$1" ;;
  stop | start) one "${2:-}" && "$1" "$2" ;;
  restart) one "${2:-}" && stop "$2" && start "$2" ;;
  *)
    sed -n 's/^# usage: /usage: /p' "$0" >&2
    exit 2
    ;;
esac
