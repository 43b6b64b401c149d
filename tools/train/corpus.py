"""Text that Debian packages carry, as documents.

    python corpus.py OUT.json        needs apt-get download and dpkg (nothing is installed)

README.md of models/demo names versions and licences."""

import glob
import gzip
import json
import os
import random
import re
import subprocess
import sys
import tempfile

PACKAGES = ["bible-kjv", "bible-kjv-text", "jargon-text", "wordnet-base", "dict-devil"]


def fetch(folder):
    """Downloads the packages and unpacks them into folder."""
    subprocess.run(["apt-get", "download", *PACKAGES], cwd=folder, check=True)
    for deb in glob.glob(os.path.join(folder, "*.deb")):
        subprocess.run(["dpkg", "-x", deb, folder], check=True)


def unwrap(text):
    """Lines of a paragraph become one; runs of blanks one blank."""
    return re.sub(r"[ \t]*\n[ \t]*", " ", re.sub(r"[ \t]+", " ", text.strip()))


def kjv(root):
    """A chapter is a document: its title, then its verses without numbers."""
    out = subprocess.run([root + "/usr/bin/bible", "-l9999", "-p", root + "/usr/lib/", "gen1:1-rev22:21"],
                         capture_output=True, text=True, check=True).stdout
    for chapter in re.split(r"\n(?=[1-3A-Z][A-Za-z ]* \d+\n\n)", "\n" + out):
        title, _, verses = chapter.strip().partition("\n")
        verses = [unwrap(re.sub(r"^\s*\d+ ", "", v)) for v in verses.split("\n") if v.strip()]
        if len(verses) > 3:
            yield title + "\n" + " ".join(verses)


def paragraphs(text, length=2500):
    """Documents of about that many characters, cut between paragraphs."""
    doc = []
    for p in re.split(r"\n\s*\n", text):
        p = unwrap(p)
        if len(p) < 40 or re.search(r"[─│├┌└]|\|.*\||_{4}|-{6}|={6}", p):
            continue  # tables and rules
        doc.append(p)
        if sum(map(len, doc)) > length:
            yield "\n\n".join(doc)
            doc = []


def jargon(root):
    with gzip.open(root + "/usr/share/doc/jargon-text/jargon.txt.gz", "rt", errors="ignore") as f:
        yield from paragraphs(f.read())


def devil(root):
    with gzip.open(root + "/usr/share/dictd/devil.dict.dz", "rt", errors="ignore") as f:
        yield from paragraphs(f.read())


def wordnet(root):
    """Glosses: "word: meaning", thirty to a document."""
    lines = []
    for part in ("noun", "verb", "adj", "adv"):
        with open(f"{root}/usr/share/wordnet/data.{part}") as f:
            for line in f:
                if line[0].isdigit() and " | " in line:
                    fields, gloss = line.rstrip().split(" | ", 1)
                    word = fields.split(" ")[4].replace("_", " ")
                    if re.fullmatch("[a-z ]+", word):
                        lines.append(f"{word}: {gloss.split(';')[0].strip()}")
    random.Random(1).shuffle(lines)
    for i in range(0, len(lines), 30):
        yield "\n".join(lines[i : i + 30])


def glosses(root, limit=400):
    """What common nouns mean, for "What is a river?": the first sense of the most used nouns."""
    count = {}
    with open(root + "/usr/share/wordnet/cntlist.rev") as f:
        for line in f:
            key, sense, n = line.split()
            lemma, rest = key.split("%")
            if rest.startswith("1:") and sense == "1" and re.fullmatch("[a-z]{3,10}", lemma):
                count[lemma] = int(n)
    first = {}
    with open(root + "/usr/share/wordnet/index.noun") as f:
        for line in f:
            if not line.startswith(" "):
                fields = line.split()
                offsets = [w for w in fields if re.fullmatch(r"\d{8}", w)]
                first[fields[0]] = offsets[0]
    meaning = {}
    with open(root + "/usr/share/wordnet/data.noun") as f:
        for line in f:
            if line[0].isdigit():
                meaning[line[:8]] = line.split(" | ", 1)[1].split(";")[0].strip()
    out = {}
    for word in sorted(count, key=lambda w: (-count[w], w)):
        gloss = meaning.get(first.get(word, ""), "")
        if re.match(r"(an?|the|any) [a-z ,'-]{10,70}$", gloss):
            out[word] = gloss
        if len(out) == limit:
            break
    return out


def main(path):
    with tempfile.TemporaryDirectory() as root:
        fetch(root)
        texts = {f.__name__: list(f(root)) for f in (kjv, jargon, wordnet, devil)}
        meanings = glosses(root)
    for name, docs in texts.items():
        print(name, len(docs), "documents,", sum(map(len, docs)), "characters")
    print(len(meanings), "glosses")
    with open(path, "w") as f:
        json.dump({"texts": texts, "glosses": meanings}, f)


if __name__ == "__main__":
    main(sys.argv[1])
