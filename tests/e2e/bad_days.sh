#!/usr/bin/env bash
# Files that are damaged, missing, strange, or change while in use: one line that names the file, exit
# code 1, in seconds.
. "$(dirname "$0")/../support/program.sh"
limit_s=100 # nothing here computes much

golden_tokens | head -n 20 >"$work/tokens"
make_demo "$work/demo"
one=model-00001-of-00002.safetensors two=model-00002-of-00002.safetensors
index=model.safetensors.index.json

# fresh FROM: $m is a folder of links to that model's files.
fresh() {
    rm -rf "$work/m"
    mkdir "$work/m"
    m=$work/m from=$1
    ln -s "$from"/* "$m"
}
# own FILE: a copy of it instead of the link, to be damaged.
own() {
    cp --remove-destination "$from/$1" "$m/$1"
    chmod u+w "$m/$1"
}
halve() { # PATH...
    local path
    for path in "$@"; do
        truncate -s $(($(stat -c %s "$path") / 2)) "$path"
    done
}
# patch FILE OFFSET BYTES (as of printf)
patch() {
    printf '%b' "$3" | dd of="$m/$1" bs=1 seek="$2" conv=notrunc status=none
}
eval_refused() { # NAME PATTERN
    refused "$1" 1 "$2" eval -m "$m" --ctx 512 --tokens "$work/tokens" --logits "$work/logits"
    [ ! -e "$work/logits" ] || not_ok "${1}_leaves_no_logits"
}
run_refused() { # NAME PATTERN
    refused "$1" 1 "$2" run -m "$m" --ctx 512 -p x --max-tokens 2
}

# --- shards ----------------------------------------------------------------------------------------

fresh "$golden_model"
own $two
truncate -s -1 "$m/$two"
eval_refused truncated_shard_is_named $two
halve "$m/$two"
eval_refused half_a_shard_is_named $two
truncate -s 5 "$m/$two"
eval_refused five_bytes_are_no_shard $two
truncate -s 0 "$m/$two"
eval_refused empty_shard_is_named $two
rm "$m/$two"
eval_refused missing_shard_is_named $two
ln -s "$work/nowhere" "$m/$two"
eval_refused dangling_link_is_named $two

fresh "$golden_model"
own $one
patch $one 0 '\0000\0000\0000\0000\0000\0000\0000\0200'
eval_refused header_of_2_to_the_63_bytes $one
patch $one 0 '\0377\0377\0377\0377\0377\0377\0377\0377'
eval_refused header_of_all_bytes_there_are $one
patch $one 0 '\0377\0377\0377\0077\0000\0000\0000\0000'
eval_refused header_of_a_gigabyte $one
patch $one 0 '\0000\0000\0000\0000\0000\0000\0000\0000'
eval_refused header_of_nothing $one

# A bit of the header that has flipped: refused, or of no consequence.
ends the_undamaged_model_works 0 eval -m "$golden_model" --ctx 512 --tokens "$work/tokens" --logits "$work/undamaged"
header=$(od -An -tu8 -N8 "$golden_model/$one")
byte_at() {
    od -An -tu1 -j "$1" -N1 "$golden_model/$one" | tr -d ' '
}
flip() { # OFFSET BIT
    own $one
    patch $one "$1" "$(printf '\\0%o' $(($(byte_at "$1") ^ $2)))"
}
flips_refused=0 flips_harmless=0 flips_bad=
try_flip() { # OFFSET BIT
    flip "$1" "$2"
    sluice eval -m "$m" --ctx 512 --tokens "$work/tokens" --logits "$work/logits" </dev/null
    if [ $code = 1 ] && [ "$(wc -l <"$work/err")" = 1 ] && grep -q "^sluice eval: $m/" "$work/err"; then
        flips_refused=$((flips_refused + 1))
    elif [ $code = 0 ] && cmp -s "$work/logits" "$work/undamaged"; then
        flips_harmless=$((flips_harmless + 1))
    else
        flips_bad="$flips_bad byte $1 bit $2: $(last_run)"
    fi
    rm -f "$work/logits"
}
for bit in 128 1 8; do # not ASCII any more; another letter or digit; more so
    for i in {0..11}; do
        try_flip $((8 + i * (header - 1) / 11)) $bit
    done
done
if [ -z "$flips_bad" ] && [ $flips_refused -ge 30 ]; then
    ok flipped_header_bits_are_found
else
    not_ok flipped_header_bits_are_found "$flips_refused refused, $flips_harmless harmless" "$flips_bad"
fi
flip 8 1
eval_refused flipped_first_byte_names_the_shard $one

# What is no regular file is not waited for.
fresh "$golden_model"
rm "$m/$two"
mkfifo "$m/$two"
eval_refused a_pipe_is_no_shard $two
rm "$m/$two"
mkdir "$m/$two"
eval_refused a_folder_is_no_shard $two
rmdir "$m/$two"
ln -s /dev/zero "$m/$two"
eval_refused a_device_is_no_shard $two
if [ "$(id -u)" = 0 ]; then
    skip unreadable_shard_is_named "root may read everything"
else
    fresh "$golden_model"
    own $two
    chmod 0 "$m/$two"
    eval_refused unreadable_shard_is_named "$two: .*[Pp]ermission"
fi

# --- the files beside them -------------------------------------------------------------------------

fresh "$golden_model"
own $index
sed -i "s,$two,../x," "$m/$index"
eval_refused index_that_leads_elsewhere $index
sed -i "s,\.\./x,/etc/passwd," "$m/$index"
eval_refused index_that_leads_to_the_root $index
sed -i "s,/etc/passwd,model-00003-of-00002.safetensors," "$m/$index"
eval_refused index_with_a_shard_that_is_not_there model-00003-of-00002
halve "$m/$index"
eval_refused truncated_index_is_named $index
for kind in pipe folder; do
    rm "$m/$index"
    if [ $kind = pipe ]; then mkfifo "$m/$index"; else mkdir "$m/$index"; fi
    eval_refused "a_${kind}_is_no_index" $index
done

config() { # NAME PATTERN SED: the configuration with a change
    fresh "$golden_model"
    own config.json
    sed -i "$3" "$m/config.json"
    eval_refused "$1" "config.json.*$2"
}
config config_with_a_text_for_a_number hidden_size 's/\("hidden_size": *\)\([0-9]*\)/\1"\2"/'
config config_with_a_number_for_a_list compress_ratios 's/"compress_ratios": *\[/"compress_ratios": 128, "other": [/'
config config_of_another_model model_type 's/"model_type": *"[a-z0-9_]*"/"model_type": "llama"/;s/DeepseekV4ForCausalLM/LlamaForCausalLM/'
config config_without_experts n_routed_experts '/n_routed_experts/d'
config config_of_another_size '' 's/\("n_routed_experts": *\)[0-9]*/\14096/'
config config_that_is_no_json '' '1s/{/{{/'
fresh "$golden_model"
rm "$m/config.json"
eval_refused missing_config_is_named config.json
head -c 100000 /dev/zero | tr '\0' '[' >"$m/config.json"
eval_refused config_of_brackets_is_named config.json
rm "$m/config.json"
mkfifo "$m/config.json"
eval_refused a_pipe_is_no_config config.json
rm "$m/config.json"
ln -s /dev/zero "$m/config.json"
eval_refused endless_config_is_named config.json

fresh "$work/demo"
own tokenizer.json
halve "$m/tokenizer.json"
run_refused truncated_tokenizer_is_named tokenizer.json
rm "$m/tokenizer.json"
run_refused missing_tokenizer_is_named tokenizer.json
mkfifo "$m/tokenizer.json"
run_refused a_pipe_is_no_tokenizer tokenizer.json
rm "$m/tokenizer.json"
mkdir "$m/tokenizer.json"
run_refused a_folder_is_no_tokenizer tokenizer.json

mkdir "$work/empty"
m=$work/empty
run_refused an_empty_folder_is_no_model "$work/empty"
eval_refused an_empty_folder_has_no_logits "$work/empty"
refused inspect_says_so_too 1 "$work/empty" inspect "$work/empty"
m=$work/tokens
eval_refused a_file_is_no_folder "$work/tokens"
fresh "$golden_model"
rm "$m"/*.safetensors
eval_refused a_download_that_has_not_begun_names_what_is_missing "$one"

# --- while it runs ---------------------------------------------------------------------------------

# Hardly any expert stays in memory, so that the shard is read all the time.
sluice run -m "$work/demo" --ctx 20000 -p a --ram 1M </dev/null
least=$(sed -n 's/.*--ram \([0-9]*M\)$/\1/p' "$work/err")
ended() {
    ! kill -0 "$pid" 2>/dev/null
}
# meanwhile NAME SHARDS OPTIONS...: these are cut in half as soon as the first word is there.
meanwhile() {
    local name=$1 shards=$2 pid n
    shift 2
    rm -rf "$work/m" "$work/out"
    cp -r "$work/demo" "$work/m"
    local endless=(run -m "$work/m" --raw -p a --temperature 0 --ctx 20000 --ram "$least" "$@")
    "$SLUICE" "${endless[@]}" --max-tokens 19000 >"$work/out" 2>"$work/err" </dev/null &
    pid=$!
    until_true test -s "$work/out"
    # shellcheck disable=SC2086 # a pattern is for names
    halve "$work/m"/$shards
    until_true ended || kill -9 $pid
    wait $pid
    code=$?
    if [ $code = 1 ] && [ "$(grep -cE '^sluice( [a-z]+)?: ' "$work/err")" = 1 ] &&
        tail -n 1 "$work/err" | grep -qE "^sluice run: $work/m/$shards: .*ends at byte [0-9]+"; then
        ok "shard_truncated_meanwhile_is_named_$name"
    else
        not_ok "shard_truncated_meanwhile_is_named_$name" "$(last_run)"
    fi
    # What was said before is what the undamaged model says.
    n=$(sed -n 's/.* \([0-9]*\) generated; ended by: an error/\1/p' "$work/err")
    mv "$work/out" "$work/before"
    rm -rf "$work/m"
    ln -s "$work/demo" "$work/m"
    sluice "${endless[@]}" --max-tokens "${n:-1}" </dev/null
    head -c -1 "$work/out" >"$work/undamaged"
    check "text_before_it_is_right_$name" cmp "$work/before" "$work/undamaged"
}
# What is removed while it is in use is still there for whoever has it open.
removed_meanwhile() { # ENGINE
    local pid endless=(run -m "$work/m" --raw -p a --temperature 0 --ctx 20000 --ram "$least" --max-tokens 300)
    rm -rf "$work/m" "$work/out"
    cp -r "$work/demo" "$work/m"
    "$SLUICE" "${endless[@]}" --io-engine "$1" >"$work/out" 2>"$work/err" </dev/null &
    pid=$!
    until_true test -s "$work/out"
    rm -r "$work/m"
    until_true ended || kill -9 $pid
    wait $pid
    code=$?
    mv "$work/out" "$work/after"
    ln -s "$work/demo" "$work/m"
    sluice "${endless[@]}" </dev/null
    if [ $code = 0 ] && cmp -s "$work/after" "$work/out"; then
        ok "model_removed_meanwhile_is_read_to_the_end_$1"
    else
        not_ok "model_removed_meanwhile_is_read_to_the_end_$1" "exit code $code" "$(last_run)"
    fi
}
removed_meanwhile uring
removed_meanwhile pread
experts='model-0000[23]-of-00004.safetensors' embedding='model-00001-of-00004.safetensors'
if reads_directly "$work/demo" shard_truncated_meanwhile_is_named_direct; then
    meanwhile uring_direct "$experts" --io direct --io-engine uring
    meanwhile pread_direct "$experts" --io direct --io-engine pread
fi
meanwhile uring_buffered "$experts" --io buffered --io-engine uring
meanwhile pread_buffered "$experts" --io buffered --io-engine pread
meanwhile embedding "$embedding"
finish
