#!/bin/bash
# The first process of a machine of support/systemd.py: makes its file system out of the host's, then becomes systemd.
#
#   _systemd_machine.sh FOLDER CHECKOUT PROGRAM     in fresh mount, pid, cgroup, ipc and uts namespaces
#
# What is written to /etc, /usr/bin, /usr/lib and /var goes to FOLDER; /run and /tmp are its own. systemd finds units in
# FOLDER/units alone: those that a real machine starts with would clean the host's folders and set its kernel's
# parameters.
set -euo pipefail
folder=$1 checkout=$2 program=$3
units=/run/units

mount --make-rprivate /
for place in etc usr/bin usr/lib var; do
    mkdir -p "$folder/$place" "$folder/work/$place"
    mount -t overlay overlay -o "lowerdir=/$place,upperdir=$folder/$place,workdir=$folder/work/$place" "/$place"
done
mount -t tmpfs tmpfs /run
mkdir /run/checkout
mount --rbind "$checkout" /run/checkout
mount -t tmpfs -o mode=1777 tmpfs /tmp
# The checkout may lie under one of the folders that are new.
mkdir -p "$checkout"
mount --move /run/checkout "$checkout"
while mountpoint -q /sys/fs/cgroup; do umount -l /sys/fs/cgroup; done
mount -t cgroup2 cgroup2 /sys/fs/cgroup

mkdir -p /run/lock /run/systemd/journald.conf.d "$units"
printf '[Journal]\nReadKMsg=no\n' >/run/systemd/journald.conf.d/machine.conf
for target in sysinit basic network-online machine shutdown; do
    printf '[Unit]\nDescription=%s of a test\nDefaultDependencies=no\n' "$target" >"$units/$target.target"
done
printf 'Wants=systemd-journald.service\n' >>"$units/machine.target"
cp /lib/systemd/system/systemd-journald.{service,socket} /lib/systemd/system/systemd-journald-dev-log.socket "$units"
cp "$checkout"/configs/systemd/*.service "$units"
cp "$checkout"/configs/sysusers.d/*.conf /usr/lib/sysusers.d/
cp "$checkout"/configs/tmpfiles.d/*.conf /usr/lib/tmpfiles.d/
ln -s "$program" /usr/bin/wghsm
# What systemd mounts for a service, its credentials, is to be seen here; a container's manager does this.
mount --make-rshared /
exec env -i container=wghsm PATH="$PATH" SYSTEMD_UNIT_PATH="$units" SYSTEMD_GENERATOR_PATH=/run/nowhere \
    /lib/systemd/systemd --system --unit=machine.target --log-target=journal
