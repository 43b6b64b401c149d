#!/usr/bin/env bash
# `sluice run` with a message: one answer in the chat format, what goes where, and what is refused.
. "$(dirname "$0")/../support/program.sh"

make_demo "$work/demo"
model=(-m "$work/demo" --ctx 1024)
short=(--max-tokens 12 --seed 3)

# answers NAME ARGUMENTS...: a run that goes well; its answer in $work/out.
answers() {
    local name=$1
    shift
    sluice run "${model[@]}" "$@"
    if [ "$code" = 0 ]; then ok "$name"; else not_ok "$name" "$(last_run)"; fi
}
says() { # NAME FILE
    if cmp "$work/out" "$2" >"$work/cmp" 2>&1; then ok "$1"; else not_ok "$1" "$(cat "$work/cmp")" "$(last_run)"; fi
}
prompt_tokens() { # of the last run
    sed -n 's/^\([0-9]*\) tokens of prompt, .*/\1/p' "$work/err"
}

printf 'What is\na sluice?\n' >"$work/question"
question=$'What is\na sluice?\n'

answers a_message_by_option -p "$question" "${short[@]}" </dev/null
cp "$work/out" "$work/answer"
check the_answer_alone_is_on_standard_output test "$(wc -c <"$work/answer")" -gt 12
check the_account_is_on_standard_error grep -qE '^ +sum .* 100\.0 %$' "$work/err"
answers a_message_from_a_file -f "$work/question" "${short[@]}" </dev/null
says a_file_is_answered_alike "$work/answer"
answers a_message_from_a_pipe "${short[@]}" < <(cat "$work/question")
says a_pipe_is_answered_alike "$work/answer"
# The prompt is what the format makes of the message.
printf '{"messages": [{"role": "user", "content": "What is\\na sluice?\\n"}]}' >"$work/chat"
"$SLUICE" tokenize -m "$work/demo" --chat "$work/chat" >"$work/ids"
check the_prompt_is_the_format_s test "$(prompt_tokens)" = "$(wc -w <"$work/ids")"
answers the_same_as_messages --messages "$work/chat" "${short[@]}" </dev/null
says messages_are_answered_alike "$work/answer"
answers messages_from_a_pipe --messages - "${short[@]}" < <(cat "$work/chat")
says messages_from_a_pipe_are_answered_alike "$work/answer"
answers raw_is_another_prompt --raw -p "$question" "${short[@]}" </dev/null
check raw_says_something_else test "$(cmp "$work/out" "$work/answer" >/dev/null 2>&1; echo $?)" = 1

# --- system, tools, mode ---------------------------------------------------------------------------

in_prompt() { # NAME MESSAGES-JSON [TOKENIZE-OPTIONS...]: the last run had that prompt
    local name=$1
    printf '%s' "$2" >"$work/chat"
    shift 2
    "$SLUICE" tokenize -m "$work/demo" --chat "$@" "$work/chat" >"$work/ids"
    if [ "$(prompt_tokens)" = "$(wc -w <"$work/ids")" ]; then ok "$name"; else not_ok "$name" "$(last_run)"; fi
}
tools='[{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]'
printf '%s' "$tools" >"$work/tools"
answers a_system_message -p hi --system 'be brief' "${short[@]}"
in_prompt it_comes_first '[{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]'
answers tools_to_call -p hi --system 'be brief' --tools "$work/tools" "${short[@]}"
in_prompt tools_are_in_the_prompt "{\"messages\": [{\"role\": \"system\", \"content\": \"be brief\"}, {\"role\": \"user\", \"content\": \"hi\"}], \"tools\": $tools}"
answers reasoning -p hi --mode thinking --effort max "${short[@]}"
in_prompt effort_is_in_the_prompt '[{"role": "user", "content": "hi"}]' --mode thinking --effort max
check reasoning_is_not_on_standard_output test ! -s "$work/out"
check reasoning_is_on_standard_error test "$(grep -c . <(sed '/tokens of prompt/,$d; /^note: /d' "$work/err"))" -ge 1
check nothing_is_dimmed_in_a_file test "$(tr -dc '\033' <"$work/err" | wc -c)" = 0
answers the_answer_as_json -p hi --mode thinking --json "${short[@]}"
check json_is_one_line grep -qE '^\{"role": "assistant", "content": "", "reasoning_content": ".+", "tool_calls": \[\]\}$' "$work/out"
check json_is_one_line_alone test "$(wc -l <"$work/out")" = 1
answers a_chat_answer_as_json -p "$question" --json "${short[@]}"
check its_content_is_the_answer grep -qE '"content": ".+", "reasoning_content": "", ' "$work/out"
# Continuing a message: no reasoning begins it.
printf '[{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho", "wo_eos": true}]' >"$work/open"
answers an_open_message_is_continued --messages "$work/open" "${short[@]}"
check what_continues_it_is_text test -s "$work/out"

# --- what is refused -------------------------------------------------------------------------------

refused raw_has_no_messages 2 'exclude each other' run "${model[@]}" --raw -p x --system y
refused one_conversation 2 'exclude each other' run "${model[@]}" --messages "$work/chat" -p x
refused effort_without_reasoning 2 'effort.*--mode thinking' run "${model[@]}" -p x --effort max
refused messages_that_are_not_there 1 "$work/nothing: " run "${model[@]}" --messages "$work/nothing"
refused messages_before_the_model 1 "$work/nothing: " run -m "$work/nowhere" --messages "$work/nothing"
refused tools_that_are_none 1 "$work/question: " run "${model[@]}" -p x --tools "$work/question"
printf '[{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]' >"$work/done"
refused an_answer_needs_no_answer 2 'nothing to answer' run "${model[@]}" --messages "$work/done"
printf '[]' >"$work/done"
refused nobody_said_anything 2 'no messages' run "${model[@]}" --messages "$work/done"
refused standard_input_is_one_text 2 'standard input' run "${model[@]}" --messages - --tools - <"$work/done"
refused the_prompt_is_there_already 2 'no -p' run "${model[@]}" --tools - <"$work/done"
refused an_empty_message 2 'nobody has asked' run "${model[@]}" </dev/null
cp -r "$work/demo" "$work/lacking"
sed -i 's/<｜Assistant｜>/<｜Nobody｜>/g' "$work/lacking/tokenizer.json"
refused a_format_token_that_is_missing_is_named 1 '<｜Assistant｜>' run -m "$work/lacking" --ctx 64 -p x
ends but_raw_does_not_need_it 0 run -m "$work/lacking" --ctx 64 -p x --raw --max-tokens 2
finish
