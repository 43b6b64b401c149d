"""Rows of tokens for training: packed conversations and text, made as they are needed.

A row is T + 1 tokens; a token carries a loss weight (0 for what a user wrote) and a kind (text, a
task's family, ...) for the log. Which instances are held out is decided in tasks.py."""

import random

import numpy as np
import torch
from tokenizers import Tokenizer

import smalltalk
import tasks
from chatformat import BOS, render

SYSTEMS = ["You are a helpful assistant.", "Answer briefly.", "You are a friendly assistant."]
KINDS = ["text", "talk", "gloss", "tools", "far", "copy", *tasks.FAMILIES]
# How often a family is drawn: what is harder to learn is seen more. "late" follows once the easy
# ones are learned (about 5M tokens), and has much that can only be found beyond the window; "last"
# when that is found.
MIXES = {
    "early": {"repeat": 0.7, "reverse": 1.5, "nth": 1.5, "twice": 1.5, "spell": 1.5, "sort": 2, "extreme": 1.5,
              "add": 2, "sequence": 2, "lookup": 2, "extract": 1.5, "remember": 1.5},
    "late": {"repeat": 0.5, "reverse": 0.8, "nth": 1.2, "twice": 3, "spell": 1.5, "sort": 4, "extreme": 3,
             "add": 7, "sequence": 7, "lookup": 6, "extract": 0.6, "remember": 4},
    "last": {"repeat": 0.5, "reverse": 0.8, "nth": 1.5, "twice": 6, "spell": 1.5, "sort": 5, "extreme": 4,
             "add": 8, "sequence": 8, "lookup": 9, "extract": 0.6, "remember": 3},
}
# Shares of documents: text; facts far back; copies of what is longer than the window.
TEXT = {"early": 0.06, "late": 0.08, "last": 0.08}
FAR = {"early": 0, "late": 0.25, "last": 0.12}
COPY = {"early": 0, "late": 0.1, "last": 0.02}
FAR_WEIGHT = 3.0  # few tokens of a row are lookups beyond the window


class Source:
    def __init__(self, corpus, tokenizer_path, seed, mix="early"):
        self.weights, self.text, self.mix = MIXES[mix], TEXT[mix], mix
        self.tok = Tokenizer.from_file(tokenizer_path)
        self.r = random.Random(seed)
        # One document in twenty is held out (by its place), for the perplexity that is reported.
        self.docs = {name: [d for i, d in enumerate(docs) if i % 20] for name, docs in corpus["texts"].items()}
        self.glosses = list(corpus["glosses"].items())

    def encode(self, text):
        return self.tok.encode(text, add_special_tokens=False).ids

    def document(self):
        """KJV and the dictionaries about equally often, whatever their size."""
        name = self.r.choices(["kjv", "jargon", "wordnet", "devil"], [4, 3, 2.5, 0.7])[0]
        return self.r.choice(self.docs[name])

    def prose(self, n_chars):
        text = self.document()
        while len(text) < n_chars:
            text += "\n\n" + self.document()
        start = self.r.randint(0, len(text) - n_chars)
        return text[start : start + n_chars].strip()

    def fresh(self, family, *args):
        """An instance that is not held out."""
        while True:
            t = family(self.r, *args)
            if not tasks.held_out(t["user"]):
                return t

    # ---- items: (messages, mode, kind of the last answer, kinds of all answers) ----

    def conversation(self):
        r, messages, kinds = self.r, [], []
        if r.random() < 0.1:
            messages.append({"role": "system", "content": r.choice(SYSTEMS)})
        for _ in range(r.choice([1, 1, 2, 3])):
            p = r.random()
            if p < 0.08:
                word, gloss = r.choice(self.glosses)
                a = "An" if word[0] in "aeiou" else "A"
                ask = r.choice([f"What is {a.lower()} {word}?", f"What does {word} mean?", f"Define {word}."])
                turns = [(ask, "I know this word.", f"{a} {word} is {gloss}.", "gloss")]
            elif p < 0.16:
                turns = [(u, "This is easy.", a, "talk") for u, a in smalltalk.smalltalk(r)]
            else:
                name = r.choices(list(self.weights), list(self.weights.values()))[0]
                if name == "remember":
                    t = self.fresh(tasks.remember, self.prose(r.randint(20, 300)))
                else:
                    t = self.fresh(tasks.FAMILIES[name])
                turns = [(t["user"], t["think"], t["answer"], name)]
            for user, think, answer, kind in turns:
                messages += [{"role": "user", "content": user},
                             {"role": "assistant", "content": answer, "reasoning_content": think}]
                kinds.append(kind)
        return messages, "thinking" if r.random() < 0.4 else "chat", kinds

    def with_tools(self):
        while True:
            offered, rounds = tasks.tools(self.r)
            if not any(tasks.held_out(x[0]) for x in rounds):
                break
        messages = tasks.tool_messages(offered, rounds)
        return messages, "thinking" if self.r.random() < 0.3 else "chat", ["tools"] * len(messages)

    def far(self, n_chars):
        """Lookups beyond the window: facts, n_chars of text, then a question about each fact."""
        filler, n = self.prose(n_chars), self.r.randint(3, 10)
        while True:
            turns = tasks.remember_many(self.r, filler, n)
            if not tasks.held_out(turns[0]["user"]):
                break
        return self.chat(turns, "far")

    def copy(self):
        """A text, or a list of words, longer than the window, and the same again."""
        text = self.prose(self.r.randint(350, 600)) if self.r.random() < 0.5 else None
        return self.chat([tasks.copy(self.r, text)], "copy")

    def chat(self, turns, kind):
        messages = []
        for t in turns:
            messages += [{"role": "user", "content": t["user"]},
                         {"role": "assistant", "content": t["answer"], "reasoning_content": t["think"]}]
        return messages, "thinking" if self.r.random() < 0.4 else "chat", [kind] * len(turns)

    # ---- rows ----

    def item(self, room, long):
        """-> ids, loss weights, kinds of one document of about room tokens at most."""
        p = self.r.random()
        if p < self.text:
            ids = self.encode(BOS + self.prose(self.r.randint(300, min(3 * room, 1500) + 300)))
            return ids, [0.0] + [0.5] * (len(ids) - 1), [0] * len(ids)
        if long and room > 1200 and p < 0.8:
            chars = self.r.randint(2000, min(3 * room, 11000))
            messages, mode, kinds = self.far(chars)
        elif room > 400 and p > 1 - COPY[self.mix]:
            messages, mode, kinds = self.copy()
        elif room > 250 and 1 - COPY[self.mix] >= p > 1 - COPY[self.mix] - FAR[self.mix]:
            messages, mode, kinds = self.far(self.r.randint(0, min(2 * room - 400, 600)))
        elif p < self.text + 0.04:
            messages, mode, kinds = self.with_tools()
        else:
            messages, mode, kinds = self.conversation()
        ids, loss, kind, answered = [], [], [], 0
        for text, learn in render(messages, mode):
            part = self.encode(text)
            k = KINDS.index(kinds[answered])
            answered = min(answered + learn, len(kinds) - 1)
            ids += part
            loss += [float(learn) * (FAR_WEIGHT if KINDS[k] == "far" else 1.0)] * len(part)
            kind += [k] * len(part)
        return ids, loss, kind

    def row(self, T):
        ids, loss, kind = [], [], []
        while len(ids) <= T:
            more = self.item(T - len(ids), T > 512)
            if T > 512 and len(more[0]) > T + 1 - len(ids) and len(ids) < T - 200:
                continue  # a far-back lookup that is cut off teaches nothing
            ids += more[0]
            loss += more[1]
            kind += more[2]
        return ids[: T + 1], loss[: T + 1], kind[: T + 1]

    def batch(self, rows, T):
        """-> ids [rows, T+1], weight [rows, T] and kind [rows, T] of the token that follows."""
        made = [self.row(T) for _ in range(rows)]
        ids = torch.tensor(np.array([m[0] for m in made]))
        weight = torch.tensor(np.array([m[1] for m in made]), dtype=torch.float32)[:, 1:]
        kind = torch.tensor(np.array([m[2] for m in made]))[:, 1:]
        return ids, weight, kind
