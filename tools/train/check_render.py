"""Does chatformat.py render as sluice does? And does sluice tokenize as `tokenizers` does?

    python check_render.py SLUICE MODEL_DIR"""

import json
import random
import subprocess
import sys
import tempfile

from tokenizers import Tokenizer

import tasks
from chatformat import render


def conversations(r):
    for _ in range(30):
        offered, rounds = tasks.tools(r)
        for upto in (None, "call", "result"):
            yield tasks.tool_messages(offered, rounds, upto)
        turns = [f(r) for f in r.sample(list(tasks.FAMILIES.values()), 2)]
        messages = [{"role": "system", "content": "Answer briefly."}] if r.random() < 0.5 else []
        for t in turns:
            messages += [{"role": "user", "content": t["user"]},
                         {"role": "assistant", "content": t["answer"], "reasoning_content": t["think"]}]
        yield messages
        yield messages[:-1]


def main(sluice, folder):
    r, n = random.Random(5), 0
    tok = Tokenizer.from_file(f"{folder}/tokenizer.json")

    def run(text, *options):
        with tempfile.NamedTemporaryFile("w", suffix=".json") as f:
            f.write(text)
            f.flush()
            return subprocess.run([sluice, "tokenize", "-m", folder, *options, f.name], capture_output=True,
                                  text=True, check=True).stdout

    for messages in conversations(r):
        for mode in ("chat", "thinking"):
            ours = "".join(text for text, _ in render(messages, mode))
            theirs = run(json.dumps(messages), "--chat", "--mode", mode, "--text")
            assert ours == theirs.removesuffix("\n") or ours == theirs, (messages, ours, theirs)
            ids = [int(i) for i in run(json.dumps(messages), "--chat", "--mode", mode).split()]
            assert ids == tok.encode(ours, add_special_tokens=False).ids, messages
            n += 1
    text = "".join(chr(r.choice([32, 10, 9, r.randint(33, 126), r.randint(160, 0x2FFF)])) for _ in range(20000))
    plain = [int(i) for i in run(text).split()]
    assert plain == tok.encode(text, add_special_tokens=False).ids
    print(f"{n} conversations rendered and tokenized alike, and {len(plain)} tokens of random text")


if __name__ == "__main__":
    main(*sys.argv[1:])
