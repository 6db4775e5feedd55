#!/usr/bin/env bash
# A release bundle, checked by programs that know nothing of ours: python's
# securesystemslib and in-toto-attestation, and openssl. Each must also refuse a forgery.
set -euo pipefail
cd "$(dirname "$0")/../.."
bin=$(realpath "${VIWORKS_BIN:-target/debug}")
venv=target/interop-venv
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ ! -x "$venv/bin/python" ]; then
  python3 -m venv "$venv" || { apt-get install -y -qq python3-venv && python3 -m venv "$venv"; }
  "$venv/bin/pip" install --quiet 'securesystemslib[crypto]==1.6.0' 'in-toto-attestation==0.9.3'
fi

"$bin/viworks-sign" keygen --out "$work/release"
"$bin/viworks-sign" keygen --out "$work/other"
"$bin/viworks-sign" sign plugins/target/wasm32-wasip2/release/viworks_plugin_health.wasm \
  --manifest plugins/health/plugin.toml --wit wit --wit plugins/health/wit \
  --key "file:$work/release.key.pem" --out "$work" \
  --builder https://ci.example.com/runner --material plugins/Cargo.lock \
  --source git+https://git.example.com/plugins@0123456789abcdef0123456789abcdef01234567
"$bin/viworks-sign" keygen --out "$work/reviewer"
"$bin/viworks-sign" review "$work/health.wasm" --plugin health --release-key "$work/release.pub.pem" \
  --key "file:$work/reviewer.key.pem"

"$venv/bin/python" tests/interop/verify.py "$work/health.wasm" "$work/release.pub.pem" "$work/other.pub.pem" "$work" \
  "$work/reviewer.pub.pem"

openssl pkeyutl -verify -pubin -inkey "$work/release.pub.pem" -rawin -in "$work/pae" -sigfile "$work/sig"
if openssl pkeyutl -verify -pubin -inkey "$work/other.pub.pem" -rawin -in "$work/pae" -sigfile "$work/sig" >/dev/null 2>&1; then
  echo "openssl accepted a stranger's key" >&2
  exit 1
fi
# The private key is readable by openssl too: its public half is the one that verifies.
openssl pkey -in "$work/release.key.pem" -pubout | cmp - "$work/release.pub.pem"
echo "interop: securesystemslib, in-toto-attestation and openssl agree"
