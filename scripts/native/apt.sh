# apt in the image's root, with the image's own sources; no service starts. packages.sh and toolchain.sh go on
# from here in the same shell.
# shellcheck shell=sh
set -eu

printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
export DEBIAN_FRONTEND=noninteractive
# Ubuntu asks which services to start anew; none runs here.
export NEEDRESTART_SUSPEND=1
# An index that can't be had is an error of its own, not packages that nobody knows.
apt-get -q -o Acquire::Languages=none -o Acquire::Retries=3 -o APT::Update::Error-Mode=any update

install_packages() { # words for apt-get install
    apt-get -q -y -o Acquire::Retries=3 -o Dpkg::Options::=--force-unsafe-io -o Dpkg::Use-Pty=0 \
        install "$@"
    apt-get clean
}
