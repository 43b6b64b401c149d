#!/usr/bin/env bash
# tools/install-headers.sh DEST PREFIX VERSION LIBS CC - the public header, the headers it includes,
# and sluice.pc, so that this builds a program:
#     cc program.c $(pkg-config --cflags --libs sluice)      with  #include <sluice.h>
# DEST is where files are put now (a package's staging folder), PREFIX where they will be.
set -eu
dest=$1 prefix=$2 version=$3 libs=$4 cc=$5
headers=$("$cc" -std=c11 -D_GNU_SOURCE -I. -MM src/sluice.h | tr -d '\\\n' | cut -d: -f2)
for header in $headers; do
    name=$header
    [ "$header" != src/sluice.h ] || name=sluice.h
    install -D -m 644 "$header" "$dest/include/sluice/$name"
done
mkdir -p "$dest/lib/pkgconfig"
cat >"$dest/lib/pkgconfig/sluice.pc" <<END
prefix=$prefix
Name: sluice
Description: runs DeepSeek-V4 checkpoints, their experts streamed from disk
Version: $version
Cflags: -I\${prefix}/include/sluice
Libs: -L\${prefix}/lib -lsluice $libs
END
chmod 644 "$dest/lib/pkgconfig/sluice.pc"
