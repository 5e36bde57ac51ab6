#!/bin/sh
# install-kubernetes.sh: a real kube-apiserver, kube-scheduler, kube-controller-manager and etcd for the tests.
#
# Compiles the control plane from Debian's own source package, once, into
# HANSE_KUBERNETES (default ~/.cache/hanse/kubernetes); what is there already is used again.
# Debian ships no binary package of these servers. Needs root for apt (Go, rsync, etcd-server).
#   HANSE_KUBERNETES          where bin/ goes
#   HANSE_KUBERNETES_JOBS     compilers at once (default: all cores)
set -eu
cache=${HANSE_KUBERNETES:-$HOME/.cache/hanse/kubernetes}
go=/usr/lib/go-1.19/bin
servers="kube-apiserver kube-scheduler kube-controller-manager"

ready() {
  for name in $servers etcd; do [ -x "$cache/bin/$name" ] || return 1; done
}

say() { printf '%s\n' "install-kubernetes: $*"; }

if ready; then
  say "found in $cache/bin"
  exit 0
fi
if ! command -v apt-get >/dev/null 2>&1; then
  say "apt-get is missing: on this system put $servers and etcd into $cache/bin"
  exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
  say "root is needed for apt; without it put $servers and etcd into $cache/bin"
  exit 1
fi
mkdir -p "$cache/bin"
work=$(mktemp -d "${TMPDIR:-/tmp}/hanse-kubernetes.XXXXXX")
trap 'rm -rf "$work"' EXIT INT TERM

# 1. Tools. A list of packages that is too old is refreshed once.
export DEBIAN_FRONTEND=noninteractive
tools="golang-1.19-go rsync make patch xz-utils etcd-server dpkg-dev openssl"
install_tools() {
  # shellcheck disable=SC2086  # a list of words
  apt-get install -y -qq --no-install-recommends $tools >"$work/apt.log" 2>&1
}
install_tools || { apt-get update -qq >"$work/update.log" 2>&1 && install_tools; } || {
  cat "$work/apt.log"
  exit 1
}

# 2. The source package, through a copy of the machine's own Debian sources that also names deb-src.
mkdir -p "$work/sources" "$work/lists/partial" "$work/source"
for file in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
  [ -f "$file" ] || continue
  case $file in
    *.sources) sed 's/^Types:.*/Types: deb-src/' "$file" >"$work/sources/debian.sources" ;;
    *) sed -n 's/^deb \(.*debian.*\)/deb-src \1/p' "$file" >"$work/sources/debian.list" ;;
  esac
done
set -- -o "Dir::Etc::sourcelist=/dev/null" -o "Dir::Etc::sourceparts=$work/sources" \
  -o "Dir::State::lists=$work/lists"
say "fetching the source package"
apt-get "$@" -o APT::Sandbox::User=root update -qq
(cd "$work/source" && apt-get "$@" -qq -o APT::Sandbox::User=root source --download-only kubernetes)

# 3. Unpack, with Debian's patches.
mkdir "$work/tree"
tar xzf "$work"/source/*.orig.tar.gz -C "$work/tree" --strip-components=1
tar xJf "$work"/source/*.debian.tar.xz -C "$work/tree"
cd "$work/tree"
while read -r name rest; do
  case $name in '' | '#'*) continue ;; esac
  patch -s -p1 <"debian/patches/$name"
done <debian/patches/series

# 4. Compile.
mkdir -p .go/src/k8s.io "$work/build-cache"
ln -s ../../.. .go/src/k8s.io/kubernetes
jobs=${HANSE_KUBERNETES_JOBS:-$(nproc)}
say "compiling with $jobs compilers; this takes some minutes"
what=
for name in $servers; do what="$what cmd/$name"; done
GOPATH=$work/tree/.go GO111MODULE=off GOPROXY=off CGO_ENABLED=0 GOMAXPROCS=$jobs \
  GOCACHE=$work/build-cache PATH=$go:$PATH \
  make GOFLAGS="-p=$jobs" KUBE_GIT_VERSION=v1.20.2 WHAT="$what" >"$work/make.log" 2>&1 || {
  tail -n 40 "$work/make.log"
  exit 1
}

# 5. Keep the programs only, each whole or not at all.
for name in $servers; do
  find _output -type f -name "$name" -path '*/bin/*' -exec cp {} "$cache/bin/$name.new" \;
  mv "$cache/bin/$name.new" "$cache/bin/$name"
done
cp "$(command -v etcd)" "$cache/bin/etcd.new"
mv "$cache/bin/etcd.new" "$cache/bin/etcd"
ready
say "installed into $cache/bin"
