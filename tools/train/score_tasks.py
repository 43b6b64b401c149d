"""Scores held-out instances of each family through the sluice binary, greedily, and prints a table.

    python score_tasks.py SLUICE MODEL_DIR CORPUS.json [--n 200] [--ram SIZE] [--jobs 2] [--only a,b]

Half of a family's instances are asked in chat mode, half in thinking mode. An answer counts when
its text (or its call, for call_tool) is exactly the expected one. --ram is the smallest that sluice
accepts unless given: the experts are streamed through the smallest cache. Failures go to stderr."""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

import tasks

CONTEXT = 4352


def held_out_prose(docs, r, n_chars):
    text = ""
    while len(text) < n_chars:
        text += r.choice(docs) + "\n\n"
    return text[:n_chars].strip()


def instances(n, corpus):
    """-> [(family, mode, messages, expected content or call)]"""
    docs = [d for texts in corpus["texts"].values() for d in texts[::20]]  # as data.py holds out
    out = []
    for name in [*tasks.FAMILIES, "far_back", "call_tool", "use_result"]:
        r, seen = random.Random("score " + name), set()
        for _ in range(400 * n):  # a family may have fewer held-out instances than were asked for
            if len(seen) == n:
                break
            mode = "chat" if len(seen) < n / 2 else "thinking"
            if name in ("call_tool", "use_result"):
                offered, rounds = tasks.tools(r)
                rounds = rounds[-1:]
                user, tool, arguments, result, reply = rounds[0]
                messages = tasks.tool_messages(offered, rounds, "call" if name == "call_tool" else "result")
                expected = {tool: arguments} if name == "call_tool" else reply
                key = f"{user} {json.dumps(offered)} {result}"
            else:
                if name == "far_back":
                    t = tasks.remember(r, held_out_prose(docs, r, r.randint(3000, 10000)))
                elif name == "remember":
                    t = tasks.remember(r, held_out_prose(docs, r, r.randint(20, 300)))
                else:
                    t = tasks.FAMILIES[name](r)
                key = user = t["user"]
                messages, expected = [{"role": "user", "content": user}], t["answer"]
            if tasks.held_out(user) and key not in seen:
                seen.add(key)
                out.append((name, mode, messages, expected))
    return out


def smallest_ram(sluice, model):
    said = subprocess.run([sluice, "run", "-m", model, "--ram", "1M", "--ctx", str(CONTEXT), "-p", "x",
                           "--max-tokens", "1"], capture_output=True, text=True).stderr
    sizes = re.findall(r"--ram (\d[\d.]*[KMG]?)", said)
    if not sizes:
        sys.exit("no smallest --ram in: " + said)
    return sizes[-1]


def answer(sluice, model, ram, mode, messages):
    with tempfile.NamedTemporaryFile("w", suffix=".json") as f:
        json.dump(messages, f)
        f.flush()
        done = subprocess.run(
            [sluice, "run", "-m", model, "--ram", ram, "--ctx", str(CONTEXT), "--threads", "1", "--messages", f.name,
             "--json", "--mode", mode, "--temperature", "0", "--max-tokens", "200"], capture_output=True, text=True,
            env={**os.environ, "OMP_WAIT_POLICY": "passive"})
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


def right(got, expected):
    if isinstance(expected, dict):
        calls = {c["function"]["name"]: json.loads(c["function"]["arguments"]) for c in got["tool_calls"]}
        return calls == expected and len(got["tool_calls"]) == 1
    return got["content"].strip() == expected


def main():
    p = argparse.ArgumentParser()
    p.add_argument("sluice"), p.add_argument("model"), p.add_argument("corpus")
    p.add_argument("--n", type=int, default=200)
    p.add_argument("--ram")
    p.add_argument("--jobs", type=int, default=2)
    p.add_argument("--only")
    a = p.parse_args()
    todo = instances(a.n, json.load(open(a.corpus)))
    if a.only:
        todo = [t for t in todo if t[0] in a.only.split(",")]
    ram = a.ram or smallest_ram(a.sluice, a.model)
    with ThreadPoolExecutor(a.jobs) as pool:
        answers = list(pool.map(lambda t: answer(a.sluice, a.model, ram, t[1], t[2]), todo))
    table = {}
    for (name, mode, messages, expected), got in zip(todo, answers):
        ok = right(got, expected)
        table.setdefault(name, {"chat": [], "thinking": []})[mode].append(ok)
        if not ok:
            wrong = [name, mode, messages[-1]["content"][-200:], expected, got]
            print(json.dumps(wrong, ensure_ascii=False), file=sys.stderr)
    print("| family | instances | chat | thinking | all |\n|---|---|---|---|---|")
    share = lambda x: f"{100 * sum(x) / len(x):.0f} %" if x else "-"
    every = []
    for name, t in table.items():
        both = t["chat"] + t["thinking"]
        every += both
        print(f"| {name} | {len(both)} | {share(t['chat'])} | {share(t['thinking'])} | {share(both)} |")
    print(f"| **all** | {len(every)} | | | **{share(every)}** |\n\n--ram {ram}, greedy")


if __name__ == "__main__":
    main()
