#!/usr/bin/env bash
# Install what building and testing need on Debian 12: only what is missing, as root.
set -euo pipefail

declare -A package_of=(
  [cc]=build-essential [make]=make [curl]=curl [jq]=jq [openssl]=openssl [ip]=iproute2 [ping]=iputils-ping
  [iptables]=iptables [openvpn]=openvpn [wg]=wireguard-tools [wireguard-go]=wireguard-go [dockerd]=docker.io
  [redis-server]=redis-server [nginx]=nginx-light [prometheus]=prometheus [rsyslogd]=rsyslog
  [prometheus-alertmanager]=prometheus-alertmanager
  [busybox]=busybox-static [useradd]=passwd [python3]=python3 [unshare]=util-linux [lintian]=lintian [systemd-analyze]=systemd [systemd-socket-activate]=systemd [setpriv]=util-linux
  [strip]=binutils [docker-registry]=docker-registry [softhsm2-util]=softhsm2
)
missing=()
for program in "${!package_of[@]}"; do
  PATH="$PATH:/usr/sbin:/sbin" command -v "$program" >/dev/null || missing+=("${package_of[$program]}")
done
# These have no program in PATH, or another package's of the same name would do for it.
for package in busybox-static postgresql libnginx-mod-stream rsyslog-elasticsearch; do
  dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
done
if ((${#missing[@]})); then
  echo "installing: ${missing[*]}" >&2
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

rustup target list --installed | grep -qx wasm32-wasip2 || rustup target add wasm32-wasip2
# Pinned: it packs the tests' programs of the dev profile, which later ones may refuse.
cargo deb --version >/dev/null 2>&1 || cargo install --locked cargo-deb@3.8.0
cargo nextest --version >/dev/null 2>&1 || cargo install --locked cargo-nextest
