# A gateway that renews its own program from the release repository: forward, staged, back by
# itself from versions that do not work, and never to bytes that nobody signed.
set -Eeuo pipefail
trap 'echo "FAILED at line $LINENO: $BASH_COMMAND" >&2; tail -n 60 /run/sandbox-units/viworks-gateway.service/log >&2; viworks agents show web-01 --json >&2' ERR
. "$VIW_SOURCE/tests/sandbox/site.sh"
say() { echo "== $*"; }
site >/tmp/site.log 2>&1 || { cat /tmp/site.log; false; }

keys=()
for role in release security targets snapshot timestamp; do keys+=(--key "file:keys/$role.key.pem"); done
# release FILE VERSION [OPTION…]: sign it into the repository, and publish that.
release() {
  viworks-sign repo add-program repo "$1" --version "$2" "${@:3}" "${keys[@]}"
  cp -r repo/targets repo/metadata /srv/viworks/repo/
}
version() { viworks agents show web-01 --json | jq -r .version; }
main() { cat /run/sandbox-units/viworks-gateway.service/main; }
exe() { readlink "/proc/$(main)/exe"; }
# until_true WHAT COMMAND…: within a minute.
until_true() {
  local what=$1; shift
  for _ in $(seq 300); do if "$@" 2>/dev/null; then return 0; fi; sleep 0.2; done
  echo "not within a minute: $what" >&2
  false
}
is_version() { [ "$(version)" = "$1" ] && [ "$(viworks agents show web-01 --json | jq -r .status)" = online ]; }
refused() { viworks agents show web-01 --json | jq -e --arg v "refused $1:" '.plugins[] | select(.plugin == "viworks-gateway" and (.detail // "" | startswith($v)))' >/dev/null; }
# No container engine runs here, and the status ends accordingly.
known() { { viworks-gateway status --json || true; } | jq -e --argjson t "$(jq .signed.version /srv/viworks/repo/metadata/timestamp.json)" '.repository.timestamp == $t' >/dev/null; }
works() { viworks run get_system_health --on web-01 --json | jq -e '.invocations[0].state == "succeeded"' >/dev/null; }

say "not without its owner's word"
strip -o /tmp/program "$(realpath /usr/bin/viworks-gateway)"
cp /tmp/program /tmp/two && printf 2 >>/tmp/two
release /tmp/two 0.2.0
until_true "the repository's news" known
is_version 0.1.0

say "forward"
printf '\n[self_update]\nenabled = true\nconfirm_secs = 6\n' >>/etc/viworks/gateway.toml
systemctl restart viworks-gateway
pid=$(main)
until_true "version 0.2.0" is_version 0.2.0
two=/var/lib/viworks-gateway/versions/$(sha256sum </tmp/two | cut -d' ' -f1)/viworks-gateway
[ "$(exe)" = "$two" ]
# The same process: nobody had to start anything.
[ "$(main)" = "$pid" ]
until_true "it is confirmed" jq -e .confirmed /var/lib/viworks-gateway/versions/choice.json >/dev/null
until_true "a verb" works

say "staged: not for this one"
cp /tmp/program /tmp/three && printf 3 >>/tmp/three
release /tmp/three 0.3.0 --percent 0
until_true "the repository's news" known
cp /tmp/program /tmp/canary && printf c >>/tmp/canary
release /tmp/canary 0.3.1 --channel canary
until_true "the repository's news" known
sleep 1
[ "$(exe)" = "$two" ]

say "does not pass its own check"
printf '#!/bin/sh\necho broken; exit 3\n' >/tmp/four
release /tmp/four 0.4.0
until_true "0.4.0 is refused" refused 0.4.0
[ "$(main)" = "$pid" ]

say "passes its check, and never has a session: goes back by itself"
printf '#!/bin/sh\n[ "$1" = run ] || exit 0\nexec sleep 600\n' >/tmp/five
release /tmp/five 0.5.0
until_true "0.5.0 is begun" jq -e '.current.version == "0.5.0" and .confirmed == false' /var/lib/viworks-gateway/versions/choice.json >/dev/null
until_true "0.5.0 is refused" refused 0.5.0
until_true "version 0.2.0 again" is_version 0.2.0
[ "$(exe)" = "$two" ]
jq -e '[.refused[].version] == ["0.4.0", "0.5.0"]' /var/lib/viworks-gateway/versions/choice.json >/dev/null
until_true "a verb" works

say "further: those who were left out before"
release /tmp/three 0.3.0 --percent 100
until_true "version 0.3.0" is_version 0.3.0

say "withdrawn: the repository does not vouch for it any more"
digest=$(sha256sum </tmp/three | cut -d' ' -f1)
viworks-sign repo revoke repo --digest "$digest" --action stop --reason test --key file:keys/revocation.key.pem "${keys[@]}"
cp -r repo/targets repo/metadata /srv/viworks/repo/
until_true "the repository's news" known
systemctl restart viworks-gateway
until_true "version 0.2.0" is_version 0.2.0

say "other bytes on the disk are not started"
systemctl stop viworks-gateway
printf x >>"$two"
systemctl start viworks-gateway
until_true "the installed version" is_version 0.1.0
[ "$(exe)" = "$(realpath /usr/bin/viworks-gateway)" ]
until_true "a verb" works
say done
