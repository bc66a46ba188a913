#!/usr/bin/env bash
# Installs the programs that `make services` and the tests start: Debian's PostgreSQL, Ceph as an S3 server, and a
# browser for page tests. Needs root on Debian; elsewhere it prints a message, and the tests that need a missing program
# are skipped with a reason. It starts nothing and creates no database.
set -eu
lacking() { for program in "$@"; do command -v "$program" >/dev/null || echo "$program"; done; }

# Installed separately, so that a missing browser does not prevent the installation of a database.
install() {
    local missing=$*
    if [ -z "$missing" ]; then return; fi
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "test-services: no ${missing// /, } here, and only root on Debian can install it; its tests will be skipped" >&2
        return
    fi
    local log
    log=$(mktemp)
    export DEBIAN_FRONTEND=noninteractive
    if { timeout 120 apt-get update -qq && timeout 300 apt-get install -y -qq --no-install-recommends $missing; } \
        >"$log" 2>&1 </dev/null; then
        rm -f "$log"
    else
        echo "test-services: ${missing// /, } could not be installed ($log says why); its tests will be skipped" >&2
    fi
}

servers=$(lacking ceph-mon ceph-osd radosgw)
if ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 && [ -n "$(lacking initdb)" ]; then
    servers="$servers postgresql"
    # The package would create and start a database.
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        mkdir -p /etc/postgresql-common
        [ -e /etc/postgresql-common/createcluster.conf ] ||
            echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf
    fi
fi
install $servers
if [ "$(lacking chromium chromium-browser google-chrome | wc -l)" = 3 ]; then install chromium; fi
