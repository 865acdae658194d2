# Installs packages with the image's own apt. Given by the caller as a variable: PACKAGES (names).
# No service starts, and nothing of this but the packages stays.
# shellcheck shell=sh
set -eu

printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
export DEBIAN_FRONTEND=noninteractive
apt-get -q -o Acquire::Languages=none -o Acquire::Retries=3 update
# shellcheck disable=SC2086 # these are words
apt-get -q -y --no-install-recommends -o Acquire::Retries=3 -o Dpkg::Options::=--force-unsafe-io \
    -o Dpkg::Use-Pty=0 install $PACKAGES
apt-get clean
rm -rf /var/lib/apt/lists/* /usr/sbin/policy-rc.d
