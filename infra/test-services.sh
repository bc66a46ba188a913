#!/usr/bin/env bash
# What `make services` and the tests start: Debian's PostgreSQL, and Debian's Ceph as an S3 server. Installs what is
# missing where that is possible (root on Debian); elsewhere it says so, and the tests that need it are skipped with a
# reason. Nothing is started here, and no database is made.
set -eu
missing=$(for program in ceph-mon ceph-osd radosgw; do command -v "$program" >/dev/null || echo "$program"; done)
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || missing="$missing postgresql"
missing=$(echo $missing)
[ -z "$missing" ] && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "test-services: no ${missing// /, } here, and only root on Debian can install it; its tests will be skipped" >&2
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
case " $missing " in *" postgresql "*)
    # The package would make a database of its own and start it.
    mkdir -p /etc/postgresql-common
    [ -e /etc/postgresql-common/createcluster.conf ] || echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf
    ;;
esac
log=$(mktemp)
if { timeout 120 apt-get update -qq && timeout 300 apt-get install -y -qq --no-install-recommends $missing; } \
    >"$log" 2>&1 </dev/null; then
    rm -f "$log"
else
    echo "test-services: ${missing// /, } could not be installed ($log says why); its tests will be skipped" >&2
fi
