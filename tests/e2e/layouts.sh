#!/usr/bin/env bash
# Where the files of one model may lie: over several directories, behind links, in the Hugging Face
# cache. The logits are the same everywhere.
. "$(dirname "$0")/../support/program.sh"

golden_tokens | head -n 100 >"$work/tokens"
one=model-00001-of-00002.safetensors two=model-00002-of-00002.safetensors
index=model.safetensors.index.json

logits() { # OPTIONS of the model...
    rm -f "$work/logits"
    sluice eval --ctx 512 --mtp --tokens "$work/tokens" --logits "$work/logits" "$@"
}
logits -m "$golden_model"
mv "$work/logits" "$work/expected"
same() { # NAME OPTIONS of the model...
    local name=$1
    shift
    logits "$@"
    if [ "$code" = 0 ] && cmp -s "$work/expected" "$work/logits"; then
        ok "$name"
    else
        not_ok "$name" "$(last_run)"
    fi
}
lacks() { # NAME PATTERN OPTIONS of the model...
    local name=$1 pattern=$2
    shift 2
    refused "$name" 1 "$pattern" eval --ctx 512 --tokens "$work/tokens" --logits "$work/logits" "$@"
}

# --- directories -----------------------------------------------------------------------------------

mkdir "$work/a" "$work/b" "$work/c"
cp "$golden_model"/{config.json,$index,$one} "$work/a"
cp "$golden_model/$two" "$work/b"
same two_directories -m "$work/a" -m "$work/b"
same in_either_order -m "$work/b" -m "$work/a"
same with_an_empty_one_too -m "$work/c" -m "$work/a" -m "$work/b"
lacks one_directory_lacks_a_shard "$two" -m "$work/a"
lacks the_other_lacks_more "$work/b" -m "$work/b"
(cd "$work" && ln -s a link)
same a_link_to_a_directory -m "$work/link" -m "$work/b/"
cp -r "$golden_model" "$work/a name with spaces, ünïcödé"
same a_name_with_spaces -m "$work/a name with spaces, ünïcödé"
if reads_directly "$work/a name with spaces, ünïcödé" two_directories_read_directly; then
    same two_directories_read_directly -m "$work/a" -m "$work/b" --io direct
fi
cd "$work/a" && same relative_names -m . -m ../b
cd - >/dev/null || exit 1
check inspect_takes_two_directories "$SLUICE" inspect "$work/a" "$work/b"

# --- the Hugging Face cache ------------------------------------------------------------------------

# Files are links to blobs, named by what is in them.
snapshot() { # CACHE ORG NAME REVISION
    local repo=$1/models--$2--$3 file blob
    mkdir -p "$repo/refs" "$repo/blobs" "$repo/snapshots/$4"
    for file in "$golden_model"/*; do
        blob=$(basename "$file" | cksum | cut -d ' ' -f 1)
        cp "$file" "$repo/blobs/$blob"
        ln -sf "../../blobs/$blob" "$repo/snapshots/$4/$(basename "$file")"
    done
}
unset HF_HOME HF_HUB_CACHE XDG_CACHE_HOME
hub=$work/hf/hub
snapshot "$hub" deepseek-ai Small 0123abc
HF_HOME=$work/hf same hf_home_is_searched -m deepseek-ai/Small
HF_HUB_CACHE=$hub same hf_hub_cache_is_searched -m deepseek-ai/Small
HF_HOME=$work/nowhere HF_HUB_CACHE=$hub same hf_hub_cache_comes_first -m deepseek-ai/Small
mkdir -p "$work/home/.cache/huggingface"
ln -s "$hub" "$work/home/.cache/huggingface/hub"
HOME=$work/home same the_home_directory_is_searched -m deepseek-ai/Small
HF_HOME=$work/hf lacks a_model_that_is_not_there 'deepseek-ai/Large' -m deepseek-ai/Large

# Of several snapshots the one that refs/main names.
snapshot "$hub" deepseek-ai Small 4567def
rm "$hub/models--deepseek-ai--Small/snapshots/0123abc/$two"
export HF_HUB_CACHE=$hub
sluice eval --ctx 512 --tokens "$work/tokens" --logits "$work/logits" -m deepseek-ai/Small
check several_snapshots_need_a_choice test "$code" = 2 -a "$(grep -c '0123abc.*4567def\|4567def.*0123abc' "$work/err")" = 1
printf 4567def >"$hub/models--deepseek-ai--Small/refs/main"
same refs_main_chooses -m deepseek-ai/Small
printf 0123abc >"$hub/models--deepseek-ai--Small/refs/main"
lacks an_incomplete_snapshot_lacks_a_shard "$two" -m deepseek-ai/Small
same shards_may_lie_in_the_cache_and_elsewhere -m deepseek-ai/Small -m "$work/b"
(cd "$work" && mkdir -p deepseek-ai && cp -r "$golden_model" deepseek-ai/Small)
cd "$work" && same a_directory_of_that_name_comes_first -m deepseek-ai/Small
finish
