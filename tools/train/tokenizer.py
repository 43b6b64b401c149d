"""A byte-level BPE in the published tokenizer.json form.

    python tokenizer.py CORPUS.json OUT/tokenizer.json

Numbers are single digits (the trainer sees digits apart, so no merge joins them; the published
patterns then split numbers into threes, and each three into digits): that is what small models
can calculate with. Added tokens are the published ones without the 1221 placeholders."""

import json
import random
import sys

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import smalltalk
import tasks
import words
from chatformat import TOOLS

VOCAB = 2048
FIRST = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"]
CHAT = ["<｜User｜>", "<｜Assistant｜>", "<think>", "</think>", "｜DSML｜", "<｜latest_reminder｜>",
        "<｜action｜>", "<｜query｜>", "<｜authority｜>", "<｜domain｜>", "<｜title｜>", "<｜read_url｜>"]
OTHER = ["<｜fim▁hole｜>", "<｜fim▁begin｜>", "<｜fim▁end｜>", "<|EOT|>", "<｜begin▁sys｜>", "<｜end▁sys｜>",
         "<｜task｜>", "<｜answer｜>", "<｜search｜>", "<｜end_of_query｜>"]
NOT_SPECIAL = set(CHAT + OTHER) - {"<｜end_of_query｜>"}

SPLITS = [
    r"\p{N}{1,3}",
    r"[一-龥぀-ゟ゠-ヿ]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
]


def published_steps():
    return [pre_tokenizers.Split(Regex(p), "isolated") for p in SPLITS] + [
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]


def training_text(corpus):
    """The corpus, and enough of the tasks that their words become tokens."""
    r = random.Random(3)
    for docs in corpus["texts"].values():
        yield from (d[:4000] for d in docs[:1200])
    for word in words.NOUNS + words.NAMES + words.CITIES + words.COLOURS + words.JOBS:
        yield from [word, " " + word] * 2000
    for _ in range(3000):
        for family in tasks.FAMILIES.values():
            t = family(r)
            yield from (t["user"], t["think"], t["answer"])
        for user, answer in smalltalk.smalltalk(r):
            yield from (user, answer)
    for _ in range(600):
        offered, _ = tasks.tools(r)
        yield TOOLS % "\n".join(json.dumps(t["function"]) for t in offered)
        yield ('=tool_calls>\n<=invoke name="get_weather">\n<=parameter name="city" string="true">Paris'
               "</=parameter>\n</=invoke>\n</=tool_calls>")
    for word, gloss in corpus["glosses"].items():
        yield from [f"What is a {word}?", f"A {word} is {gloss}."] * 30


def build(corpus):
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.Sequence([])
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True)] + published_steps())
    trainer = trainers.BpeTrainer(vocab_size=VOCAB - len(CHAT + OTHER), special_tokens=FIRST, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    t.train_from_iterator(training_text(corpus), trainer)
    out = json.loads(t.to_str())
    t.pre_tokenizer = pre_tokenizers.Sequence(published_steps())
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    t.decoder = decoders.ByteLevel()
    form = json.loads(t.to_str())
    form["model"] = out["model"]
    size = len(form["model"]["vocab"])
    form["added_tokens"] = [
        {"id": i if name in FIRST else size + i - len(FIRST), "content": name, "single_word": False,
         "lstrip": False, "rstrip": False, "normalized": name in NOT_SPECIAL, "special": name not in NOT_SPECIAL}
        for i, name in enumerate(FIRST + CHAT + OTHER)]
    return form


def main(corpus_path, path):
    with open(corpus_path) as f:
        form = build(json.load(f))
    with open(path, "w") as f:
        json.dump(form, f, ensure_ascii=False, indent=0)
    t = Tokenizer.from_file(path)
    print(t.get_vocab_size(), "tokens")
    missing = [w for w in words.NOUNS + words.NAMES + words.CITIES + words.COLOURS
               for v in (w, " " + w) if len(t.encode(v).ids) > 1]
    print("words of more than one token:", missing)
    print(t.encode("What is 12 + 345? " + FIRST[1] + "<｜User｜>").tokens)


if __name__ == "__main__":
    main(*sys.argv[1:])
