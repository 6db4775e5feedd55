# Sourced: a small site in the sandbox, as docs/runbooks/install.md leaves one behind: a backend,
# one gateway (web-01), a release repository, and an operator's shell in /root/viworks.
# Wants VIW_PROGRAMS (where this build's programs are), VIW_SOURCE (the repository) and VIW_PLUGINS.

# The programs and units, as the packages install them.
site_programs() {
  for program in viworks viworks-sign viworks-backend viworks-gateway; do
    # Hard links and copies of debug programs are slow; who runs them does not care.
    ln -sf "$VIW_PROGRAMS/$program" /usr/bin/$program
  done
  mkdir -p /etc/viworks /usr/lib/systemd/system /usr/lib/sysusers.d /usr/lib/tmpfiles.d
  for unit in "$VIW_SOURCE"/deploy/systemd/*.service "$VIW_SOURCE"/deploy/systemd/*.socket; do
    [ ! -f "$unit" ] || cp "$unit" /usr/lib/systemd/system/
  done
  for kind in sysusers tmpfiles; do
    cp "$VIW_SOURCE"/deploy/systemd/*.$kind /usr/lib/$kind.d/
    for file in /usr/lib/$kind.d/viworks*.$kind; do mv "$file" "${file%."$kind"}.conf"; done
  done
  systemd-sysusers viworks-backend.conf viworks-gateway.conf
  systemd-tmpfiles --create viworks-backend.conf viworks-gateway.conf
}

# What is kept away from servers: the authority, the release keys, the plugins' sources.
site_offline() {
  mkdir -p /root/viworks/keys /root/viworks/plugins
  cd /root/viworks
  viworks pki init --out pki --name "Sandbox"
  viworks pki issue backend --dir pki --dns localhost --ip 127.0.0.1
  viworks pki issue agent --dir pki web-01
  local role sign_with=() roles=()
  for role in root targets security revocation snapshot timestamp release; do
    viworks-sign keygen --out keys/$role >/dev/null
    sign_with+=(--key "file:keys/$role.key.pem")
    case $role in security | release) ;; *) roles+=(--role "$role=keys/$role.pub.pem") ;; esac
  done
  local name
  for name in accounts containers health scripts vpn; do
    viworks-sign sign "$VIW_PLUGINS/viworks_plugin_$name.wasm" --manifest "$VIW_SOURCE/plugins/$name/plugin.toml" \
      --wit "$VIW_SOURCE/wit" --wit "$VIW_SOURCE/plugins/$name/wit" --key file:keys/release.key.pem --out plugins
  done
  viworks-sign repo init repo "${roles[@]}" --role "releases=keys/release.pub.pem,keys/security.pub.pem" \
    --threshold root=1 --threshold targets=1 "${sign_with[@]}"
  viworks-sign repo add repo plugins/*.wasm "${sign_with[@]}"
}

site_backend() {
  cd /root/viworks
  install -o viworks-backend -g viworks-backend -m 0600 pki/backend.key.pem /etc/viworks/agents.key.pem
  install -m 0644 pki/backend.pem /etc/viworks/agents.crt.pem
  install -m 0644 pki/ca.pem /etc/viworks/agents-ca.crt.pem
  install -m 0644 pki/crl.pem /etc/viworks/agents.crl.pem
  install -m 0644 keys/release.pub.pem /etc/viworks/release.pub.pem
  install -m 0644 repo/metadata/1.root.json /etc/viworks/root.json
  # The repository is a folder that the release engineers' pipeline writes and the backend reads.
  mkdir -p /srv/viworks
  cp -r repo /srv/viworks/repo
  cat >/etc/viworks/backend.toml <<'TOML'
agents_crl = "/etc/viworks/agents.crl.pem"
trusted_root = "/etc/viworks/root.json"
repository = "/srv/viworks/repo"
TOML
  systemctl start viworks-backend
  export VIWORKS_URL=http://127.0.0.1:8080 VIWORKS_TOKEN_FILE=/root/viworks/operator.token
  # The first start makes the database: nobody else touches it before it is there.
  timeout 30 sh -c 'until curl -fsS $VIWORKS_URL/health >/dev/null 2>&1; do sleep 0.1; done'
  (umask 077 && runuser -u viworks-backend -- viworks-backend token create --name operator --role admin >operator.token)
}

# site_gateway ID: on this same machine, so that there is one; its owner's policy lets accounts
# be made under a root of their own.
site_gateway() {
  cd /root/viworks
  install -d -m 0750 -o root -g viworks-gateway /etc/viworks/gateway
  install -o viworks-gateway -g viworks-gateway -m 0600 "pki/agents/$1.key.pem" /etc/viworks/gateway/key.pem
  install -m 0644 "pki/agents/$1.pem" /etc/viworks/gateway/cert.pem
  install -m 0644 pki/ca.pem /etc/viworks/gateway/ca.pem
  install -m 0644 /var/lib/viworks-backend/warrant.pub.pem /etc/viworks/gateway/warrant.pub.pem
  install -m 0644 keys/release.pub.pem /etc/viworks/gateway/release.pub.pem
  install -m 0644 repo/metadata/1.root.json /etc/viworks/gateway/root.json
  cat >/etc/viworks/policy.toml <<'TOML'
[capabilities.accounts]
groups = ["users"]
uids = { min = 20000, max = 20999 }
[capabilities.system]
[capabilities.containers]
labels = ["viworks.demo=1"]
allow_irreversible = true
[capabilities.scripts]
pins = {}
[capabilities.vpn]
[capabilities.state]
TOML
  cat >/etc/viworks/gateway.toml <<TOML
backend_url = "wss://127.0.0.1:8081"
agent_id = "$1"
site = "sandbox"
cert_path = "/etc/viworks/gateway/cert.pem"
key_path = "/etc/viworks/gateway/key.pem"
trust_bundle = "/etc/viworks/gateway/ca.pem"
backend_spki_pin = "$(viworks pki pin pki/backend.pem)"
warrant_keys = "/etc/viworks/gateway/warrant.pub.pem"
release_keys = "/etc/viworks/gateway/release.pub.pem"
trusted_root = "/etc/viworks/gateway/root.json"
policy = "/etc/viworks/policy.toml"

[providers.accounts]
root = "/var/lib/viworks-gateway/root"
quarantine = "/var/lib/viworks-gateway/quarantine"
TOML
  systemctl start viworks-gateway
  timeout 60 sh -c 'until [ "$(viworks agents show web-01 --json 2>/dev/null | jq "[.plugins[] | select(.state == \"active\")] | length")" = 5 ]; do sleep 0.1; done'
}

site() {
  site_programs
  site_offline
  site_backend
  site_gateway web-01
}
