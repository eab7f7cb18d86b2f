#!/bin/sh
# Runs inside new mount, process and IPC namespaces: sandbox.sh WORK SETTINGS HIDDEN... -- COMMAND...
# Gives the build a /dev of its own with our settings below it, and hides the folders that hold our secrets and sockets.
set -eu
work=$1; settings=$2; shift 2
mount --make-rprivate /
mount --bind "$work" /mnt
dev=/mnt/dev
mkdir -p "$dev"
mount -t tmpfs -o mode=755,nosuid,noexec tmpfs "$dev"
for name in null zero full random urandom tty; do
    : > "$dev/$name"
    mount --bind "/dev/$name" "$dev/$name"
done
mkdir "$dev/pts" "$dev/shm" "$dev/gravingdock"
ln -s /proc/self/fd "$dev/fd"
mount --bind "$settings" "$dev/gravingdock"
mount -o remount,bind,ro "$dev/gravingdock"
mount --move "$dev" /dev
while [ "$1" != "--" ]; do
    [ ! -d "$1" ] || mount -t tmpfs -o mode=000,size=4k tmpfs "$1"
    shift
done
shift
cd /mnt
exec "$@"
