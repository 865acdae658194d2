# Has the image's own cloud-init apply the seed in /run/vmbake/seed, as it does at a first boot: the same
# four runs that systemd starts there. Leaves /run/vmbake/{result.json,schema}.
# shellcheck shell=sh
set -eu

mkdir -p /var/lib/cloud/seed
cp -R /run/vmbake/seed /var/lib/cloud/seed/nocloud

# What a module could not do is in the result, whatever these return.
cloud-init init --local || true
cloud-init init || true
cloud-init modules --mode=config || true
cloud-init modules --mode=final || true
if cloud-init schema --system > /run/vmbake/schema 2>&1; then : > /run/vmbake/schema; fi
cp /run/cloud-init/result.json /run/vmbake/result.json
