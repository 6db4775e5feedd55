#!/usr/bin/env bash
# The demo: a backend, one gateway, a throwaway PKI and the six classic verbs, all in
# target/demo/. Harmless to this host: accounts live under a prefix root, the WireGuard
# server is a file, and containers count only with the label viworks.demo=1.
#
# DEMO_API_PORT (8080), DEMO_AGENT_PORT (8081) and DEMO_BIN (target/release) can be set.
# Stays up until Ctrl-C on a terminal; elsewhere it ends by itself.
set -euo pipefail
cd "$(dirname "$0")/../.."

api_port=${DEMO_API_PORT:-8080}
agent_port=${DEMO_AGENT_PORT:-8081}
bin=$(realpath "${DEMO_BIN:-target/release}")
demo=$PWD/target/demo
agent=demo-01
pids=()

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }

stop() {
  for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
}
trap stop EXIT
trap 'exit 130' INT TERM

# Wait up to 30 s until a command succeeds; give up at once when a program of ours died.
until_true() {
  local what=$1; shift
  for _ in $(seq 300); do
    "$@" >/dev/null 2>&1 && return 0
    for pid in "${pids[@]}"; do
      kill -0 "$pid" 2>/dev/null || { tail -n 20 "$demo"/*.log >&2; fail "a program ended while waiting for $what"; }
    done
    sleep 0.1
  done
  tail -n 20 "$demo"/*.log >&2
  fail "$what did not happen within 30 s"
}

for program in viworks viworks-sign viworks-backend viworks-gateway; do
  [ -x "$bin/$program" ] || fail "$bin/$program is missing: run 'make build' first"
done
for port in "$api_port" "$agent_port"; do
  ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || fail "port $port is taken: set DEMO_API_PORT and DEMO_AGENT_PORT"
done
rm -rf "$demo"
mkdir -p "$demo"/{keys,plugins,backend,gateway,wireguard,scripts}
chmod 700 "$demo"

say "A throwaway PKI and keys"
"$bin/viworks" pki init --out "$demo/pki" --name "ViWorkS demo"
"$bin/viworks" pki issue backend --dir "$demo/pki" --dns localhost --ip 127.0.0.1
"$bin/viworks" pki issue agent --dir "$demo/pki" "$agent"
"$bin/viworks-sign" keygen --out "$demo/keys/release"

say "The plugins, signed"
for dir in plugins/*/; do
  name=$(basename "$dir")
  [ -f "$dir/plugin.toml" ] || continue
  "$bin/viworks-sign" sign "plugins/target/wasm32-wasip2/release/viworks_plugin_$name.wasm" \
    --manifest "$dir/plugin.toml" --wit wit --wit "$dir/wit" \
    --key "file:$demo/keys/release.key.pem" --out "$demo/plugins"
done

say "The release repository"
# Throwaway keys, one a role. In earnest root and targets are two of three people's, offline.
sign_with=(--key "file:$demo/keys/release.key.pem")
roles=()
for role in root targets security revocation snapshot timestamp; do
  "$bin/viworks-sign" keygen --out "$demo/keys/$role" >/dev/null
  sign_with+=(--key "file:$demo/keys/$role.key.pem")
  [ "$role" = security ] || roles+=(--role "$role=$demo/keys/$role.pub.pem")
done
"$bin/viworks-sign" repo init "$demo/repo" "${roles[@]}" \
  --role "releases=$demo/keys/release.pub.pem,$demo/keys/security.pub.pem" \
  --threshold root=1 --threshold targets=1 "${sign_with[@]}"
"$bin/viworks-sign" repo add "$demo/repo" "$demo"/plugins/*.wasm "${sign_with[@]}"
"$bin/viworks-sign" repo show "$demo/repo" | sed -n 1,7p

say "The backend"
cat >"$demo/backend.toml" <<EOF
data_dir = "$demo/backend"
api_listen = "127.0.0.1:$api_port"
agents_listen = "127.0.0.1:$agent_port"
agents_cert = "$demo/pki/backend.pem"
agents_key = "$demo/pki/backend.key.pem"
agents_client_ca = "$demo/pki/ca.pem"
release_keys = "$demo/keys/release.pub.pem"
trusted_root = "$demo/repo/metadata/1.root.json"
repository = "$demo/repo"
EOF
"$bin/viworks-backend" init-keys --config "$demo/backend.toml"
"$bin/viworks-backend" token create --config "$demo/backend.toml" --name demo --role admin >"$demo/operator.token"
chmod 600 "$demo/operator.token"
"$bin/viworks-backend" run --config "$demo/backend.toml" >"$demo/backend.log" 2>&1 &
pids+=($!)
export VIWORKS_URL=http://127.0.0.1:$api_port VIWORKS_TOKEN_FILE=$demo/operator.token
until_true "a healthy backend" curl -fsS "$VIWORKS_URL/health"
curl -fsS "$VIWORKS_URL/health" | jq -c .
# It watches the release repository: what is released there is published here.
bundles=("$demo"/plugins/*.wasm)
all_published() {
  [ "$(curl -fsS -H "Authorization: Bearer $(cat "$demo/operator.token")" "$VIWORKS_URL/plugins" | jq '[.items[] | select(.active)] | length')" = "${#bundles[@]}" ]
}
until_true "the repository's plugins" all_published
"$bin/viworks" plugins repository

say "A gateway with its owner's policy"
server_key=$(openssl genpkey -algorithm X25519 -outform DER | tail -c 32 | base64)
cat >"$demo/wireguard/wg0.conf" <<EOF
[Interface]
Address = 10.66.0.1/24
ListenPort = 51820
PrivateKey = $server_key
EOF
chmod 600 "$demo/wireguard/wg0.conf"
printf '#!/bin/sh\necho "hello from $0, $1"\n' >"$demo/scripts/hello.sh"
chmod 700 "$demo/scripts/hello.sh"
cat >"$demo/policy.toml" <<EOF
# What plugins may do on this host, whatever they ask for.
[capabilities.accounts]
groups = ["demo"]
uids = { min = 20000, max = 20999 }
shells = ["/bin/bash", "/bin/sh"]

[capabilities.vpn]
providers = ["wireguard"]

[capabilities.system]

[capabilities.containers]
labels = ["viworks.demo=1"]
allow_irreversible = true

[capabilities.scripts]
pins = { "hello.sh" = "$(sha256sum "$demo/scripts/hello.sh" | cut -d' ' -f1)" }

[capabilities.state]
EOF
cat >"$demo/gateway.toml" <<EOF
backend_url = "wss://127.0.0.1:$agent_port"
agent_id = "$agent"
site = "demo"
cert_path = "$demo/pki/agents/$agent.pem"
key_path = "$demo/pki/agents/$agent.key.pem"
trust_bundle = "$demo/pki/ca.pem"
backend_spki_pin = "$("$bin/viworks" pki pin "$demo/pki/backend.pem")"
warrant_keys = "$demo/backend/warrant.pub.pem"
release_keys = "$demo/keys/release.pub.pem"
trusted_root = "$demo/repo/metadata/1.root.json"
policy = "$demo/policy.toml"
state_dir = "$demo/gateway"
scripts_root = "$demo/scripts"
labels = { tier = "demo" }

[providers.accounts]
root = "$demo/root"
quarantine = "$demo/quarantine"

[providers.vpn.wireguard]
interface = "wg0"
config_file = "$demo/wireguard/wg0.conf"
endpoint = "vpn.example.com:51820"
pool = "10.66.0.0/24"
live = "off"
EOF
"$bin/viworks-gateway" check --config "$demo/gateway.toml"
"$bin/viworks-gateway" run --config "$demo/gateway.toml" >"$demo/gateway.log" 2>&1 &
pids+=($!)
all_active() {
  [ "$("$bin/viworks" agents show "$agent" --json | jq '[.plugins[] | select(.state == "active")] | length')" = "${#bundles[@]}" ]
}
until_true "the gateway's plugins" all_active
"$bin/viworks" agents

say "The verbs"
failed=0
# verb NAME WANTED [ARGUMENTS…]: run one, print "VERB AGENT OUTCOME" and what it gave.
verb() {
  local name=$1 wanted=$2; shift 2
  local answer outcome
  answer=$("$bin/viworks" run "$name" --on "$agent" --json "$@" || true)
  outcome=$(jq -r '.invocations[0].state // "refused"' <<<"$answer" 2>/dev/null || echo refused)
  printf '%s %s %s\n' "$name" "$agent" "$outcome"
  jq -c '.invocations[0] | .result // .failure' <<<"$answer" 2>/dev/null | cut -c 1-300 | sed 's/^/    /'
  if [ "$outcome" != "$wanted" ]; then
    printf '    expected %s\n' "$wanted"
    failed=1
  fi
}

verb get_system_health succeeded
verb add_user succeeded --arg name=ada --arg comment="Ada Example"
verb list_users succeeded
verb delete_user succeeded --arg name=ada
verb add_vpn_user succeeded --arg name=ada-phone
verb list_vpn_users succeeded
verb delete_vpn_user succeeded --arg name=ada-phone
verb run_script succeeded --arg name=hello.sh --arg args=demo
if curl -fsS --max-time 2 --unix-socket /var/run/docker.sock http://localhost/_ping >/dev/null 2>&1; then
  verb cleanup_containers succeeded
else
  echo "No container engine answers on this host: cleanup_containers says so."
  verb cleanup_containers failed
fi

[ "$failed" = 0 ] || fail "not everything came out as it should; logs are in $demo"
say "All came out as they should."
if [ -t 1 ]; then
  printf 'API %s, token in %s. Ctrl-C ends it.\n' "$VIWORKS_URL" "$VIWORKS_TOKEN_FILE"
  wait "${pids[0]}"
fi
