#!/usr/bin/env bash
# A root file system for an image FROM scratch: a program, the shared libraries that it is linked
# with, the loader, certificate authorities, and a user. No shell, no package manager, nothing else.
#
# collect.sh PROGRAM OUTPUT    (PROGRAM: a path; OUTPUT: a folder that is made anew)
set -euo pipefail
program=$1 out=$2

rm -rf "$out"
mkdir -p "$out"/{usr/bin,etc/ssl/certs,etc/viworks,tmp}
chmod 1777 "$out/tmp"
name=$(basename "$program")
install -m 0755 "$program" "$out/usr/bin/$name"
strip "$out/usr/bin/$name" 2>/dev/null || true
# What the loader would find, under the names that it looks for; the loader itself too. Names are
# looked up by glibc's own modules, which nothing links.
{
  ldd "$program" | awk '$2 == "=>" && $3 ~ /^\// { print $3 } $1 ~ /^\// { print $1 }'
  find /lib /usr/lib -name 'libnss_files.so.2' -o -name 'libnss_dns.so.2' -o -name 'libresolv.so.2' 2>/dev/null
} | sort -u | while read -r library; do
  mkdir -p "$out$(dirname "$library")"
  cp -L "$library" "$out$library"
done
[ ! -f /etc/ssl/certs/ca-certificates.crt ] || cp /etc/ssl/certs/ca-certificates.crt "$out/etc/ssl/certs/"
echo "$name:x:64000:64000::/var/lib/$name:/usr/sbin/nologin" >"$out/etc/passwd"
echo "$name:x:64000:" >"$out/etc/group"
echo 'hosts: files dns' >"$out/etc/nsswitch.conf"
# What becomes the volume, copied by itself so that it gets its owner.
rm -rf "$out.data"
mkdir -p "$out.data"
touch "$out.data/.keep"
