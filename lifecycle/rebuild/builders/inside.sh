#!/bin/sh
# Runs as root of the box, in its namespaces: inside.sh COMMAND...
# Mounts the file systems that belong to the namespaces, makes the prepared tree the root, and runs the command.
# Proc and sysfs are only allowed while the old ones are visible, so they come before the change of the root.
set -eu
fail() {
    echo "The box cannot be made: $1"
    exit 90
}
root=/mnt
mount --make-rprivate / || fail "mounts cannot be made private"
# The prepared tree came from outside and is locked. A copy of it can become the root; its parts stay locked.
mount --rbind "$root" "$root" || fail "the root cannot be mounted"
cd "$root"
mount -t proc -o nosuid,nodev,noexec proc proc || fail "proc cannot be mounted"
mount -t sysfs -o ro,nosuid,nodev,noexec sys sys || fail "sysfs cannot be mounted"
mount -t cgroup2 -o ro,nosuid,nodev,noexec cgroup sys/fs/cgroup || fail "cgroup2 cannot be mounted"
pivot_root . old || fail "pivot_root is refused"
cd /
umount -l /old || fail "the old root stays visible"
exec "$@"
