# The packages' life, in a sandbox: installed, started by their units, upgraded, rolled back,
# removed, purged. Wants VIW_DEBS.
set -Eeuo pipefail
trap 'echo "FAILED at line $LINENO: $BASH_COMMAND" >&2; for log in /run/sandbox-units/*/log; do tail -n 20 "$log"; done >&2' ERR
. "$VIW_SOURCE/tests/sandbox/site.sh"
say() { echo "== $*"; }
# What the packages find a running systemd by.
mkdir -p /run/systemd/system

say installed
dpkg -i "$VIW_DEBS"/*.deb
for program in viworks viworks-sign viworks-backend viworks-gateway; do
  [ "$(stat -c '%U:%G %a' /usr/bin/$program)" = "root:root 755" ]
  /usr/bin/$program --version
  man -w $program >/dev/null 2>&1 || [ -f /usr/share/man/man1/$program.1.gz ] || [ -f /usr/share/man/man8/$program.8.gz ]
done
[ "$(stat -c '%U:%G %a' /var/lib/viworks-backend)" = "viworks-backend:viworks-backend 700" ]
[ "$(stat -c %a /etc/viworks/backend.toml)" = 644 ]
[ "$(getent passwd viworks-backend | cut -d: -f6,7)" = /var/lib/viworks-backend:/usr/sbin/nologin ]
for package in backend gateway; do
  jq -e '.bomFormat == "CycloneDX"' /usr/share/doc/viworks-$package/viworks-$package.cdx.json* >/dev/null || \
    zcat /usr/share/doc/viworks-$package/viworks-$package.cdx.json.gz | jq -e '.bomFormat == "CycloneDX"' >/dev/null
  conffiles=$(dpkg-query -W -f '${Conffiles}' viworks-$package)
  grep -q "/etc/viworks/$package.toml" <<<"$conffiles"
  # Nothing runs that nobody configured, and it would not start either.
  [ "$(systemctl is-active viworks-$package || true)" = inactive ]
  systemctl start viworks-$package 2>/dev/null || true
  timeout 40 sh -c "until [ \"\$(systemctl is-active viworks-$package)\" = failed ]; do sleep 0.2; done"
done

say "judged by systemd"
for unit in /usr/lib/systemd/system/viworks-*; do
  systemd-analyze verify "$unit" 2>&1 | tee /tmp/said
  [ ! -s /tmp/said ]
done
systemd-analyze security --offline=true --threshold=20 /usr/lib/systemd/system/viworks-backend.service >/tmp/said || { cat /tmp/said; exit 1; }
tail -n 1 /tmp/said

say configured
site_offline >/tmp/site.log 2>&1
site_backend >>/tmp/site.log 2>&1
site_gateway web-01 >>/tmp/site.log 2>&1
curl -fsS $VIWORKS_URL/health | jq -e '.status == "healthy"'
[ "$(readlink /proc/"$(cat /run/sandbox-units/viworks-backend.service/main)"/exe)" = /usr/bin/viworks-backend ]
[ "$(stat -c %U /proc/"$(cat /run/sandbox-units/viworks-backend.service/main)")" = viworks-backend ]
viworks run get_system_health --on web-01 --json | jq -e '.invocations[0].state == "succeeded"'

# repack VERSION [NAME]: the same packages with another version, and with other examples.
repack() {
  mkdir -p /tmp/debs-$1
  for deb in "$VIW_DEBS"/${2:-}*.deb; do
    rm -rf /tmp/deb
    dpkg-deb -R "$deb" /tmp/deb
    sed -i "s/^Version: .*/Version: $1/" /tmp/deb/DEBIAN/control
    [ ! -d /tmp/deb/etc ] || find /tmp/deb/etc -type f -exec sh -c 'echo "# of $0" >>"$1"' "$1" {} ';'
    dpkg-deb -Zgzip -z1 -b /tmp/deb /tmp/debs-$1/ >/dev/null
  done
}
own=$(sha256sum /etc/viworks/backend.toml)
invocations() { viworks commands --json | jq '.items | length'; }
before=$(invocations)
main() { cat /run/sandbox-units/$1.service/main; }

say upgraded
first=$(main viworks-backend)
gateway=$(main viworks-gateway)
[ "$(stat -c %U "/proc/$gateway")" = viworks-gateway ]
repack 0.2.0-1
dpkg --force-confold -i /tmp/debs-0.2.0-1/*.deb
[ "$(dpkg-query -W -f '${Version}' viworks-backend)" = 0.2.0-1 ]
[ "$(sha256sum /etc/viworks/backend.toml)" = "$own" ]
[ "$(main viworks-backend)" != "$first" ]
[ "$(main viworks-gateway)" != "$gateway" ]
timeout 60 sh -c 'until viworks run get_system_health --on web-01 --json 2>/dev/null | jq -e ".invocations[0].state == \"succeeded\"" >/dev/null; do sleep 0.2; done'
[ "$(invocations)" -gt "$before" ]

say "upgraded over a broken configuration: what runs goes on"
second=$(main viworks-backend)
cp /etc/viworks/backend.toml /tmp/backend.toml
echo 'no_such_key = 1' >>/etc/viworks/backend.toml
repack 0.3.0-1 viworks-backend
dpkg --force-confold -i /tmp/debs-0.3.0-1/*.deb 2>&1 | tee /tmp/said
grep -q 'finds faults in the configuration' /tmp/said
[ "$(main viworks-backend)" = "$second" ]
curl -fsS $VIWORKS_URL/health | jq -e '.status == "healthy"'
cp /tmp/backend.toml /etc/viworks/backend.toml

say "rolled back"
dpkg --force-confold -i "$VIW_DEBS"/*.deb
[ "$(dpkg-query -W -f '${Version}' viworks-gateway)" = "$(dpkg-deb -f "$(ls "$VIW_DEBS"/viworks-gateway_*.deb)" Version)" ]
[ "$(main viworks-backend)" != "$second" ]
timeout 60 sh -c 'until viworks run get_system_health --on web-01 --json 2>/dev/null | jq -e ".invocations[0].state == \"succeeded\"" >/dev/null; do sleep 0.2; done'

say removed
dpkg -r viworks-backend viworks-gateway viworks-cli
[ "$(cat /run/sandbox-units/viworks-backend.service/state)" = inactive ]
[ -f /etc/viworks/backend.toml ] && [ -f /var/lib/viworks-backend/viworks.db ]
[ ! -e /usr/bin/viworks-backend ]

say purged
mkdir -p /var/lib/viworks-gateway/quarantine/home-of-ada
dpkg -P viworks-backend viworks-gateway viworks-cli
[ ! -e /var/lib/viworks-backend ] && [ ! -e /etc/viworks/backend.toml ] && [ ! -e /etc/viworks/policy.toml ]
left=$(find /var/lib/viworks-gateway -mindepth 1 -maxdepth 1 -printf '%f\n' | sort | tr '\n' ' ')
[ "$left" = "audit.jsonl quarantine " ] || { echo "left: $left"; exit 1; }
[ -d /var/lib/viworks-gateway/quarantine/home-of-ada ]
[ -z "$(find /usr /etc /lib -xdev -name '*viworks*' -newer /run/systemd/system -not -path "*/site-packages/*" 2>/dev/null | { grep -v -e /etc/viworks || true; })" ]
say done
