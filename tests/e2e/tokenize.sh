#!/usr/bin/env bash
# `sluice tokenize`: ids and back, conversations to prompts, answers to messages.
. "$(dirname "$0")/../support/program.sh"

make_demo "$work/demo"
mkdir "$work/alone" # a tokenizer without a model
cp "$work/demo/tokenizer.json" "$work/alone"
here=(-m "$work/alone")

# prints NAME WANTED ARGUMENTS...: it prints exactly the bytes of the file WANTED.
prints() {
    local name=$1 wanted=$2
    shift 2
    timeout -k 10 "$limit_s" "$SLUICE" "$@" >"$work/out" 2>"$work/err"
    code=$?
    if [ "$code" = 0 ] && [ ! -s "$work/err" ] && cmp "$wanted" "$work/out" >"$work/cmp" 2>&1; then
        ok "$name"
    else
        not_ok "$name" "$(cat "$work/cmp")" "$(last_run)" "$(head -c 500 "$work/out")"
    fi
}
as() { # TEXT: as a file
    printf '%s' "$1" >"$work/wanted"
}
count() { # ids of the last run
    wc -w <"$work/out"
}

# --- ids -------------------------------------------------------------------------------------------

printf 'Hello, wörld! 日本語 🙂 \t\r\n\n  <｜User｜> <think> </think>e\314\201 1234567 \0.' >"$work/text"
sluice tokenize "${here[@]}" "$work/text"
cp "$work/out" "$work/ids"
check ids_are_numbers grep -qxE '[0-9]+( [0-9]+)*' "$work/ids"
prints standard_input_is_a_text_too "$work/ids" tokenize "${here[@]}" <"$work/text"
prints a_dash_is_standard_input "$work/ids" tokenize "${here[@]}" - <"$work/text"
prints ids_go_back_to_the_text "$work/text" tokenize "${here[@]}" --decode "$work/ids"
sluice tokenize "${here[@]}" --no-added "$work/text"
check spellings_are_text_for_users test "$(wc -w <"$work/out")" -gt "$(wc -w <"$work/ids")"
cp "$work/out" "$work/plain"
prints plain_ids_go_back_too "$work/text" tokenize "${here[@]}" --decode <"$work/plain"
tr ' ' '\n' <"$work/ids" >"$work/lines"
prints ids_may_stand_on_lines "$work/text" tokenize "${here[@]}" --decode "$work/lines"
printf 'a\377b\303' >"$work/broken"
as $'a\357\277\275b\357\277\275'
sluice tokenize "${here[@]}" "$work/broken"
cp "$work/out" "$work/ids"
prints what_is_not_utf8_is_replaced "$work/wanted" tokenize "${here[@]}" --decode "$work/ids"
: >"$work/empty"
prints no_text_has_no_ids "$work/empty" tokenize "${here[@]}" "$work/empty"
prints no_ids_have_no_text "$work/empty" tokenize "${here[@]}" --decode "$work/empty"
as 'ab'
b=$(printf 'b' | "$SLUICE" tokenize "${here[@]}")
a=$(printf 'a' | "$SLUICE" tokenize "${here[@]}")
prints an_id_of_no_token_is_nothing "$work/wanted" tokenize "${here[@]}" --decode < <(echo "$a 4000000000 $b")
refused what_is_no_id_is_named 1 'byte 4: not a token id: 3x' tokenize "${here[@]}" --decode <(printf '1 2 3x')
refused an_id_is_not_negative 1 'byte 0: not a token id: -1' tokenize "${here[@]}" --decode <(printf -- '-1')

# --- conversations ---------------------------------------------------------------------------------

conversation='{"messages": [{"role": "user", "content": "hi <think>"}, {"role": "assistant", "content": "ho", "reasoning_content": "hm"}, {"role": "user", "content": "and?"}]}'
printf '%s' "$conversation" >"$work/chat"
as '<｜begin▁of▁sentence｜><｜User｜>hi <think><｜Assistant｜></think>ho<｜end▁of▁sentence｜><｜User｜>and?<｜Assistant｜></think>'
prints a_conversation_is_rendered "$work/wanted" tokenize --chat --mode chat --text "$work/chat"
prints chat_is_the_mode_if_none_is_given "$work/wanted" tokenize --chat --text <"$work/chat"
sluice tokenize "${here[@]}" --chat "$work/chat"
cp "$work/out" "$work/ids"
prints its_ids_are_those_of_its_text "$work/wanted" tokenize "${here[@]}" --decode "$work/ids"
n=$(wc -w <"$work/ids")
sluice tokenize "${here[@]}" "$work/wanted"
check what_users_spell_is_no_control_token test "$n" -gt "$(count)"
as '<｜begin▁of▁sentence｜><｜User｜>hi <think><｜Assistant｜></think>ho<｜end▁of▁sentence｜><｜User｜>and?<｜Assistant｜><think>'
prints thinking_begins_with_a_thought "$work/wanted" tokenize --chat --mode thinking --text "$work/chat"
prints high_is_none "$work/wanted" tokenize --chat --mode thinking --effort high --text "$work/chat"
sluice tokenize --chat --mode thinking --effort max --text "$work/chat"
check max_says_so_first grep -q '^<｜begin▁of▁sentence｜>Reasoning Effort: Absolute maximum' "$work/out"
tools='"tools": [{"type": "function", "function": {"name": "f", "n": 1e-5}}]'
printf '{"messages": [{"role": "user", "content": "x"}], %s}' "$tools" >"$work/chat"
sluice tokenize --chat --text "$work/chat"
check tools_go_to_the_first_system_message grep -q '^{"name": "f", "n": 1e-05}$' "$work/out"
check and_one_is_put_first grep -q '^<｜begin▁of▁sentence｜>$' <(head -n 1 "$work/out")
printf '[{"role": "robot", "content": "x"}]' >"$work/chat"
refused a_role_that_there_is_not 1 'robot' tokenize --chat --text "$work/chat"
refused no_json 1 "$work/text: " tokenize --chat --text "$work/text"

# --- answers ---------------------------------------------------------------------------------------

printf '%s' 'hm</think>ho<｜end▁of▁sentence｜>' >"$work/answer"
printf '%s\n' '{"role": "assistant", "content": "ho", "reasoning_content": "hm", "tool_calls": []}' >"$work/wanted"
prints an_answer_is_parsed "$work/wanted" tokenize --parse --mode thinking "$work/answer"
printf '\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name="f">\n<｜DSML｜parameter name="k" string="true">v "w"</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls><｜end▁of▁sentence｜>' >"$work/answer"
printf '%s\n' '{"role": "assistant", "content": "", "reasoning_content": "", "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": "{\"k\": \"v \\\"w\\\"\"}"}}]}' >"$work/wanted"
prints calls_are_parsed "$work/wanted" tokenize --parse --mode chat <"$work/answer"
printf '%s' 'ho, and no end' >"$work/answer"
printf '%s\n' '{"role": "assistant", "content": "ho, and no end", "reasoning_content": "", "tool_calls": []}' >"$work/wanted"
prints an_answer_without_end_is_an_answer "$work/wanted" tokenize --parse "$work/answer"

# --- what makes no sense ---------------------------------------------------------------------------

refused ids_need_a_tokenizer 2 'no tokenizer.*-m' tokenize "$work/text"
refused a_directory_without_one 1 'no tokenizer.json' tokenize -m "$work" "$work/text"
refused a_text_that_is_not_there 1 "$work/nothing: " tokenize "${here[@]}" "$work/nothing"
refused two_texts 2 'one operand too many' tokenize "${here[@]}" "$work/text" "$work/text"
refused text_needs_chat 2 '--text needs --chat' tokenize --text "$work/text"
refused mode_needs_a_format 2 '--mode needs' tokenize "${here[@]}" --mode chat "$work/text"
refused both_ways_at_once 2 'exclude each other' tokenize --chat --parse "$work/text"
refused ids_have_no_spelling 2 'exclude each other' tokenize "${here[@]}" --decode --no-added "$work/text"
if [ -c /dev/full ]; then
    "$SLUICE" tokenize "${here[@]}" "$work/text" >/dev/full 2>"$work/err"
    check ids_that_do_not_fit_are_an_error test "$?" = 1
    check and_it_says_so grep -q 'standard output.*No space left' "$work/err"
fi
# A tokenizer that lacks a token of the format: one line, and it is named.
sed 's/<｜Assistant｜>/<｜Nobody｜>/g' "$work/demo/tokenizer.json" >"$work/alone/tokenizer.json"
printf '%s' "$conversation" >"$work/chat"
refused a_format_token_that_is_missing_is_named 1 '<｜Assistant｜>' tokenize "${here[@]}" --chat "$work/chat"
finish
