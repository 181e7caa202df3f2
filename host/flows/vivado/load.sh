#!/bin/sh
# Loads bitstream and overlay on the board, as root, from the folder that was copied there: sudo sh
# load.sh. Not run on a board so far. FIRMWARE is where dfx-mgr looks for designs.
set -eu
name=terntable
firmware=${FIRMWARE:-/lib/firmware/xilinx}
here=$(dirname "$0")

fail() {
    echo "load.sh: $1" >&2
    exit 1
}

[ "$(id -u)" = 0 ] || fail "root alone can load firmware: sudo sh $0"
for file in $name.bit.bin $name.dtbo shell.json; do
    [ -f "$here/$file" ] || fail "$file is missing beside $0: make it as README.md says"
done
command -v xmutil > /dev/null || fail "xmutil is missing: install the vendor's package xmutil"

modprobe u-dma-buf ||
    fail "no kernel module u-dma-buf for $(uname -r): build it, ikwzm/udmabuf on GitHub"
# Which devices UIO takes is a parameter of its module: the kernel reads it once.
modprobe uio_pdrv_genirq of_id=generic-uio || fail "no kernel module uio_pdrv_genirq"
of_id=/sys/module/uio_pdrv_genirq/parameters/of_id
if [ -r $of_id ] && [ "$(cat $of_id)" != generic-uio ]; then
    fail "UIO was loaded for other devices: boot with uio_pdrv_genirq.of_id=generic-uio"
fi

mkdir -p "$firmware/$name"
for file in $name.bit.bin $name.dtbo shell.json; do
    cp "$here/$file" "$firmware/$name/"
done
xmutil unloadapp || true # nothing may be loaded
xmutil loadapp $name || fail "xmutil did not load $name: dmesg says why"
