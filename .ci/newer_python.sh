#!/usr/bin/env bash
# A fair part of the tests on Debian 13's Python 3.13, in a root of its own: sudo .ci/newer_python.sh FOLDER
# It needs debootstrap, some GB, and ten minutes or so. FOLDER is kept: a second run only installs and tests.
set -euo pipefail
root=$1
source=$(cd "$(dirname "$0")/.." && pwd)
if [ ! -e "$root/etc/debian_version" ]; then
    debootstrap --variant=minbase --include=python3,python3-venv,g++,ca-certificates trixie "$root" \
        http://deb.debian.org/debian
fi
cp -L /etc/resolv.conf "$root/etc/"
cp -rL /etc/ssl/certs "$root/etc/ssl/"
[ ! -e /etc/pip.conf ] || cp /etc/pip.conf "$root/etc/"
mountpoint --quiet "$root/proc" || mount -t proc proc "$root/proc"
mountpoint --quiet "$root/dev" || mount --bind /dev "$root/dev"
trap 'umount "$root/proc" "$root/dev"' EXIT
rm -rf "$root/hafm_jax"
git clone --quiet "$source" "$root/hafm_jax"
chroot "$root" /usr/bin/env HOME=/root bash -euc '
    [ -e /venv ] || python3 -m venv /venv
    cd /hafm_jax
    /venv/bin/pip install --quiet --constraint constraints.txt ".[train,tokenize,evaluate]" \
        pytest pytest-xdist hypothesis mutagen
    PYTHONPATH=. /venv/bin/python -m pytest --quiet --numprocesses 2 -m "not slow" \
        tests/audio tests/common tests/dataset tests/metrics tests/model \
        tests/test_{accompany,again,api,batch,cli,sample,sample_outputs}.py'
