#!/bin/bash
# Build kube-apiserver and kube-controller-manager, and take Debian's etcd, for the tests with a real API server.
# About 14 CPU minutes, once. Nothing is installed, and nothing is written into the clone.
#   make kubernetes            into ~/.cache/gravingdock-kubernetes/bin
#   KUBERNETES_BIN=DIR make kubernetes
set -euo pipefail
version=${KUBERNETES_VERSION:-1.36.3}
bin=${KUBERNETES_BIN:-${XDG_CACHE_HOME:-$HOME/.cache}/gravingdock-kubernetes/bin}
work=$(dirname "$bin")/build
mkdir -p "$bin" "$work"

if ! command -v go > /dev/null; then
  echo "gravingdock: Go is needed to build kube-apiserver (1.26 or later). Install it, then run this again." >&2
  exit 3
fi

if [ ! -x "$bin/etcd" ]; then
  # Unpacked, not installed: the package would start a service.
  (cd "$work" && apt-get download etcd-server && dpkg-deb -x etcd-server_*.deb etcd)
  install -m 755 "$work/etcd/usr/bin/etcd" "$bin/etcd"
fi

missing=()
for name in kube-apiserver kube-controller-manager; do
  [ -x "$bin/$name" ] || missing+=("k8s.io/kubernetes/cmd/$name")
done
if [ ${#missing[@]} -gt 0 ]; then
  cd "$work"
  source=$(go mod download -json "k8s.io/kubernetes@v$version" | sed -n 's/^\t"GoMod": "\(.*\)",*$/\1/p')
  # Kubernetes' own go.mod replaces its libraries by folders of its repository; outside they have a version of their own.
  {
    echo "module kapi"
    sed -n '/^go /p; /^godebug /p; /^godebug (/,/^)/p' "$source"
    echo "require k8s.io/kubernetes v$version"
    sed -n "s|^\s*\(k8s.io/[a-z0-9-]*\) => ./staging/.*|replace \1 => \1 v0.${version#1.}|p" "$source"
  } > go.mod
  printf '//go:build tools\n\npackage tools\n\nimport (\n\t_ "k8s.io/kubernetes/cmd/kube-apiserver"\n\t_ "k8s.io/kubernetes/cmd/kube-controller-manager"\n)\n' > tools.go
  go mod tidy -e
  GOFLAGS="-buildvcs=false -mod=mod" nice go build -p 2 -trimpath \
    -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=v$version" -o "$bin/" "${missing[@]}"
fi
echo "Built in $bin. The tests find it there, or in KUBERNETES_BIN."
