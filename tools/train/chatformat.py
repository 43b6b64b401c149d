"""Conversations as the model is trained to see them (the project's spec of the chat format), cut
into parts that carry loss (what the assistant writes) and parts that do not.

Covers what tasks.py makes: system (with tools), user, assistant with reasoning and calls, tool
results; effort none. check_render.py compares it with `sluice tokenize --chat --text`."""

import json

BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
USER, ASSISTANT = "<｜User｜>", "<｜Assistant｜>"
DSML = "｜DSML｜"

TOOLS = f"""## Tools

You have access to a set of tools to help answer the user's question. You can invoke tools by writing a "<{DSML}tool_calls>" block like the following:

<{DSML}tool_calls>
<{DSML}invoke name="$TOOL_NAME">
<{DSML}parameter name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE</{DSML}parameter>
...
</{DSML}invoke>
<{DSML}invoke name="$TOOL_NAME2">
...
</{DSML}invoke>
</{DSML}tool_calls>

String parameters should be specified as is and set `string="true"`. For all other types (numbers, booleans, arrays, objects), pass the value in JSON format and set `string="false"`.

If thinking_mode is enabled (triggered by <think>), you MUST output your complete reasoning inside <think>...</think> BEFORE any tool calls or final response.

Otherwise, output directly after </think> with tool calls or final response.

### Available Tool Schemas

%s

You MUST strictly follow the above defined tool name and parameter schemas to invoke tool calls.
"""


def dumps(value):
    return json.dumps(value, ensure_ascii=False)


def render_calls(calls):
    out = []
    for call in calls:
        f = call["function"]
        params = []
        for key, value in json.loads(f["arguments"]).items():
            text = isinstance(value, str)
            params.append(f'<{DSML}parameter name="{key}" string="{"true" if text else "false"}">'
                          f"{value if text else dumps(value)}</{DSML}parameter>")
        out.append(f'<{DSML}invoke name="{f["name"]}">\n' + "\n".join(params) + f"\n</{DSML}invoke>")
    return f"\n\n<{DSML}tool_calls>\n" + "\n".join(out) + f"\n</{DSML}tool_calls>"


def render(messages, mode="chat"):
    """-> [(text, carries loss)]. Ends after the last message's transition."""
    thinking = mode == "thinking"
    dropping = not any(m.get("tools") for m in messages)
    last_user = max(i for i, m in enumerate(messages) if m["role"] in ("user", "tool"))
    parts = [(BOS, False)]
    for i, m in enumerate(messages):
        if m["role"] == "system":
            text = m["content"]
            if m.get("tools"):
                schemas = "\n".join(dumps(t["function"]) for t in m["tools"])
                text += "\n\n" + TOOLS % schemas
            parts.append((text, False))
        elif m["role"] in ("user", "tool"):
            text = m["content"] if m["role"] == "user" else f"<tool_result>{m['content']}</tool_result>"
            think = thinking and (not dropping or i == last_user)
            parts.append((f"{USER}{text}{ASSISTANT}{'<think>' if think else '</think>'}", False))
        else:
            text = m["content"]
            if thinking and (not dropping or i > last_user):
                text = m.get("reasoning_content", "") + "</think>" + text
            if m.get("tool_calls"):
                text += render_calls(m["tool_calls"])
            parts.append((text + EOS, True))
    return parts
