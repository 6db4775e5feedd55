#!/usr/bin/env bash
# Run a script as root of a machine that is this one with every change thrown away: an overlay
# over /, in namespaces of its own for mounts, network, processes and names. Refuses to run
# anything outside of them. All that was started ends with the script.
#
# enter.sh SCRIPT [ARGUMENT…]    (the script's path as this machine sees it)
set -euo pipefail

if [ "${1:-}" != --inside ]; then
  exec unshare --mount --net --pid --uts --ipc --fork --kill-child -- "$0" --inside "$@"
fi
shift
mount --make-rprivate /
# /dev/shm is memory everywhere; an overlay's own folders can't lie on another overlay.
base=/dev/shm
mount -t tmpfs -o mode=755,size=6g tmpfs $base
mkdir $base/{upper,work,root}
mount -t overlay overlay -o lowerdir=/,upperdir=$base/upper,workdir=$base/work $base/root
root=$base/root
mount --rbind /dev "$root/dev"
umount "$root/dev/shm" 2>/dev/null || true
mount -t tmpfs tmpfs "$root/dev/shm"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mkdir -p "$root/run/lock"
chmod 1777 "$root/run/lock"
ip link set lo up
hostname sandbox
for name in systemctl journalctl; do
  cp "$(dirname "$0")/systemctl" "$root/usr/local/bin/$name"
done
exec chroot "$root" /usr/bin/env -i HOME=/root TERM=dumb LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
  PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  SANDBOX=1 VIW_SOURCE="${VIW_SOURCE:-}" VIW_PROGRAMS="${VIW_PROGRAMS:-}" VIW_PLUGINS="${VIW_PLUGINS:-}" VIW_DEBS="${VIW_DEBS:-}" \
  bash "$@"
