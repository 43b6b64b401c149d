#!/usr/bin/env bash
# tests/coverage.sh BUILD - lines covered, file by file, after the tests ran in a --coverage build.
set -eu
build=$1
find "$build" -name '*.gcda' ! -path '*/tests/*' | sort | xargs gcov -n 2>/dev/null |
    awk -F"'" '
        /^File / { file = $2 }
        /^Lines executed:/ && file ~ /^(io|cache|kernels|src|tools)\// {
            split($0, part, /[:% ]+/) # Lines executed 93.10 of 58
            percent = part[3]; lines = part[5]
            if (lines > total[file]) { total[file] = lines; covered[file] = percent }
            file = ""
        }
        END {
            for (file in total) {
                printf "%-36s %6.1f %% of %5d lines\n", file, covered[file], total[file] | "sort"
                all += total[file]; hit += total[file] * covered[file] / 100
            }
            close("sort")
            printf "%-36s %6.1f %% of %5d lines\n", "together", all ? 100 * hit / all : 0, all
        }'
