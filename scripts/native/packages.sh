# Installs packages with the image's own apt. Given by the caller as variables: PACKAGES (names), KVER (the
# only kernel of the image). No service starts, and nothing of this but the packages stays.
# Exit status 71: the archive has another kernel by now, which the packages go with.
# shellcheck shell=sh
set -eu

printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
export DEBIAN_FRONTEND=noninteractive
apt-get -q -o Acquire::Languages=none -o Acquire::Retries=3 update
# shellcheck disable=SC2086 # these are words
apt-get -q -y --no-install-recommends -o Acquire::Retries=3 -o Dpkg::Options::=--force-unsafe-io \
    -o Dpkg::Use-Pty=0 install $PACKAGES
if [ "$(ls /lib/modules)" != "$KVER" ]; then
    echo "vmbake: these packages are for another kernel than $KVER: $(ls /lib/modules)" >&2
    exit 71
fi
apt-get clean
rm -rf /var/lib/apt/lists/* /usr/sbin/policy-rc.d /var/cache/ldconfig/aux-cache
# As the base has it (tasks/guest/rootfs.py): dpkg leaves out the files, and not the folders and links.
find /usr/share/doc ! -type d ! -name copyright -delete
find /usr/share/doc /usr/share/locale -mindepth 1 -type d -empty -delete
