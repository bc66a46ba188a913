#!/usr/bin/env bash
# Real services that the tests start themselves: Debian's Ceph, as an S3 server on loopback. Installs what is missing
# where that is possible (root on Debian); elsewhere it says so, and the tests that need it are skipped with a reason.
set -eu
missing=$(for program in ceph-mon ceph-osd radosgw; do command -v "$program" >/dev/null || echo "$program"; done)
[ -z "$missing" ] && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "test-services: no ${missing//$'\n'/, } here, and only root on Debian can install it; S3 tests will be skipped" >&2
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
if { timeout 120 apt-get update -qq && timeout 300 apt-get install -y -qq --no-install-recommends $missing; } \
    >"$log" 2>&1 </dev/null; then
    rm -f "$log"
else
    echo "test-services: ${missing//$'\n'/, } could not be installed ($log says why); S3 tests will be skipped" >&2
fi
