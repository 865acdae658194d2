"""The packages that a kernel's headers are made of, as apt knows them."""

from __future__ import annotations

PACKAGE = "linux-headers-cloud-amd64"
# A function for shell scripts: the names of what a package of headers ($1) stands for. The packages
# around them (the compiler, libc) are for the toolchain to choose.
FUNCTION = rf"""
headers_of() {{
  apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks \
    --no-replaces --no-enhances "$1" |
    grep -E '^linux-(headers|kbuild|compiler)-' | grep -vx {PACKAGE} | sort -u
}}
"""
