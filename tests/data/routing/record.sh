#!/usr/bin/env bash
# tests/data/routing/record.sh MODEL [FOLDER] - record the traces that measurements of cache and
# prefetch are made with, into FOLDER (this one, if none is named).
#
#   chat.route      a conversation of three turns, the last answer drawn from the model
#   document.route  the beginning of README.md as a prompt, and what the model goes on with
#   code.route      the beginning of src/schedule.c, token by token, as decoding would
#
# Which experts a token chooses depends on the text, the seed and the weights alone, so the same model
# and sources give the same files on any machine. ($SLUICE is the program; ./sluice if not set.)
set -eu
[ $# = 1 ] || [ $# = 2 ] || { sed -n '2,4s/^# //p' "$0" >&2 && exit 2; }
model=$1
here=$(dirname "$(realpath "$0")") # before leaving for the root
folder=$(realpath "${2:-$here}")
SLUICE=$(realpath "${SLUICE:-$here/../../../sluice}")
[ ! -d "$model" ] || model=$(realpath "$model") # or org/name
cd "$here/../../.."
export OMP_WAIT_POLICY=passive
text=$(mktemp)
trap 'rm -f "$text"' EXIT

record() { # NAME COMMAND OPTIONS...
    local name=$1 command=$2
    shift 2
    "$SLUICE" "$command" -m "$model" --ctx 4096 --record-routing "$folder/$name.route" "$@" \
        >/dev/null 2>"$text.err" || { cat "$text.err" >&2 && rm -f "$text.err" && exit 1; }
    rm -f "$text.err"
}

cat >"$text" <<'END'
[{"role": "system", "content": "Answer in a few words."},
 {"role": "user", "content": "Sort these numbers: 41, 7, 19, 3."},
 {"role": "assistant", "content": "3, 7, 19, 41"},
 {"role": "user", "content": "And now the other way round?"},
 {"role": "assistant", "content": "41, 19, 7, 3"},
 {"role": "user", "content": "Add the first and the last of them, then tell me how you did it."}]
END
record chat run --messages "$text" --mode thinking --temperature 1 --seed 1 --max-tokens 400
head -c 2000 README.md >"$text"
record document run --raw -f "$text" --temperature 1 --seed 2 --max-tokens 256
head -c 2000 src/schedule.c >"$text"
record code eval -f "$text" --window 4096 --chunk 1

cd "$folder"
wc -c chat.route document.route code.route
# They are committed: a model with other sizes may want shorter texts.
[ "$(cat chat.route document.route code.route | wc -c)" -le 300000 ] || {
    echo "$0: more than 300 KB in all" >&2
    exit 1
}
