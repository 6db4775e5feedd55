#!/usr/bin/env bash
# Bundles and repositories, checked by programs that know nothing of ours: python's
# securesystemslib, in-toto-attestation and tuf, openssl, tough, and the schema of SBOMs. Each must also refuse a
# forgery, and whatever python-tuf refuses of a repository, ours refuses.
set -euo pipefail
cd "$(dirname "$0")/../.."
bin=$(realpath "${VIWORKS_BIN:-target/debug}")
venv=target/interop-venv
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if ! "$venv/bin/python" -c 'import tuf, cyclonedx' 2>/dev/null; then
  python3 -m venv "$venv" || { apt-get install -y -qq python3-venv && python3 -m venv "$venv"; }
  "$venv/bin/pip" install --quiet 'securesystemslib[crypto]==1.6.0' 'in-toto-attestation==0.9.3' 'tuf==7.0.1' \
    'cyclonedx-python-lib[json-validation]==11.12.0'
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

make --silent sbom
"$venv/bin/python" tests/interop/sbom.py target/sbom/*.cdx.json
echo "interop: the SBOMs are CycloneDX 1.5"

# A repository of ours, for python-tuf and tough.
keys=()
roles=()
for role in root targets security revocation snapshot timestamp; do
  "$bin/viworks-sign" keygen --out "$work/$role" >/dev/null
  keys+=(--key "file:$work/$role.key.pem")
done
for role in root targets revocation snapshot timestamp; do roles+=(--role "$role=$work/$role.pub.pem"); done
"$bin/viworks-sign" repo init "$work/repo" "${roles[@]}" --role "releases=$work/release.pub.pem,$work/security.pub.pem" \
  --threshold root=1 --threshold targets=1 "${keys[@]}" --key "file:$work/release.key.pem"
"$bin/viworks-sign" repo add "$work/repo" "$work/health.wasm" "${keys[@]}" --key "file:$work/release.key.pem"
"$venv/bin/python" tests/interop/repository.py "$bin/viworks-sign" "$work/repo" "$work"

(cd tests/interop/tough && cargo build --locked --quiet --target-dir ../../../target/interop-tough)
tough=target/interop-tough/debug/viworks-interop-tough
"$tough" "$work/repo" "$work/repo/metadata/1.root.json"
printf ' ' >>"$work/repo/metadata/timestamp.json"
sed -i 's/"version": 2/"version": 3/' "$work/repo/metadata/timestamp.json"
if "$tough" "$work/repo" "$work/repo/metadata/1.root.json" >/dev/null 2>&1; then
  echo "tough accepted a changed timestamp" >&2
  exit 1
fi
echo "interop: python-tuf and tough agree"
