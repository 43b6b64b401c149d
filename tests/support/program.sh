# tests/support/program.sh - for scripts that run the program end to end: source it instead of
# shell.sh.
. "$(dirname "${BASH_SOURCE[0]}")/shell.sh"
export OMP_WAIT_POLICY=passive # as tests/run.sh has it

golden=$PWD/tests/data/golden
golden_model=$golden/checkpoint # 5 layers, draft block, 256 tokens of vocabulary, no tokenizer

# The token ids of the golden vectors, one a line: I32 [280] in a safetensors file.
golden_tokens() {
    local file=$golden/expected.exact.safetensors header from to
    header=$(od -An -tu8 -N8 "$file")
    read -r from to < <(head -c $((8 + header)) "$file" | tail -c "$header" |
        tr -d ' ' | sed 's/.*"tokens":{[^}]*"data_offsets":\[\([0-9]*\),\([0-9]*\)\].*/\1 \2/')
    od -An -v -w4 -td4 -j $((8 + header + from)) -N $((to - from)) "$file"
}

# A small model with a tokenizer: an HCA layer and a CSA layer.
make_demo() { # DIR [OPTIONS of mkmodel...]
    local dir=$1
    shift
    if ! "$SLUICE" mkmodel --layers 2 --drafts none "$@" "$dir" 2>"$work/mkmodel.err"; then
        not_ok a_demo_model_is_made "$(cat "$work/mkmodel.err")"
        finish
    fi
}

limit_s=300 # for one run: only a program that hangs takes so long, even sanitized on a slow machine

# Run it: text in $work/out, the rest in $work/err, exit code in $code. Standard input is ours.
sluice() {
    timeout -k 10 "$limit_s" "$SLUICE" "$@" >"$work/out" 2>"$work/err"
    code=$?
}

# What a failed test shows of the last run.
last_run() {
    printf 'exit code %s\n' "$code"
    head -c 2000 "$work/err"
}

# ends NAME CODE ARGUMENTS...: it ends with that exit code.
ends() {
    local name=$1 want=$2
    shift 2
    sluice "$@" </dev/null
    if [ "$code" = "$want" ]; then ok "$name"; else not_ok "$name" "wanted exit code $want" "$(last_run)"; fi
}

# refused NAME CODE PATTERN ARGUMENTS...: it prints one line, on stderr, that matches, and nothing
# else but notes, and ends with that exit code.
refused() {
    local name=$1 want=$2 pattern=$3
    shift 3
    sluice "$@" </dev/null
    if [ "$code" = "$want" ] && [ ! -s "$work/out" ] && [ "$(grep -vc '^note: ' "$work/err")" = 1 ] &&
        grep -qE -- "^sluice [a-z]+: .*$pattern" "$work/err"; then
        ok "$name"
    else
        not_ok "$name" "wanted exit code $want and one line with: $pattern" "$(last_run)" "$(head -c 500 "$work/out")"
    fi
}

# reads_directly MODEL NAME: does the file system that it lies on? (Those in memory do not.) If not,
# NAME is skipped.
reads_directly() {
    echo 5 >"$work/one_token"
    "$SLUICE" eval -m "$1" --ctx 64 --io direct --tokens "$work/one_token" --logits /dev/null 2>"$work/direct.err" &&
        return
    ! grep -q '^sluice eval: .*O_DIRECT' "$work/direct.err" || ! skip "$2" "this file system has no O_DIRECT"
}

# value NAME FILE: a number in an account (--stats), or of `inspect --json`: the first of that name.
value() {
    sed -n "s/^ *\"$1\": \([0-9.e+-]*\),*\$/\1/p" "$2" | head -n 1
}

# until_true COMMAND...: wait for a condition, as long as it takes (and not for ever).
until_true() {
    local tries=$((limit_s * 20))
    until "$@"; do
        [ $((tries -= 1)) -gt 0 ] || return 1
        sleep 0.05
    done
}
