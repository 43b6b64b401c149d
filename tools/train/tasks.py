"""Families of small tasks in the chat format. Difficulty was fixed before training: it is what the
ranges below say (and README.md lists).

A family is a function of a random generator that returns one or more turns:
    {"user", "think", "answer"}             a message, the reasoning, the exact answer
or, for tools, a conversation with calls and results. `key` of an instance is what the user wrote;
its hash decides for ever whether the instance is for training or held out."""

import hashlib
import json

from words import CITIES, COLOURS, FRUITS, JOBS, NAMES, NOUNS, THINGS


def held_out(key):
    return hashlib.sha1(key.encode()).digest()[0] < 16  # one in sixteen


def turn(user, think, answer):
    return {"user": user, "think": think, "answer": answer}


def listed(words):
    return ", ".join(str(w) for w in words)


# ---- words ----

def repeat(r):
    """3 to 7 words, said again."""
    words = r.sample(NOUNS, r.randint(3, 7))
    ask = r.choice(["Repeat these words:", "Say this again:", "Repeat:"])
    return turn(f"{ask} {listed(words)}", "Say the same words in the same order.", listed(words))


def reverse(r):
    """3 to 5 words, last first."""
    words = r.sample(NOUNS, r.randint(3, 5))
    ask = r.choice(["Reverse this list:", "Reverse:", "Say these words backwards:"])
    back = words[::-1]
    steps = "The words are " + ", ".join(f"{i + 1} {w}" for i, w in enumerate(words)) + \
        ". Backwards: " + ", ".join(f"{len(words) - i} {w}" for i, w in enumerate(back)) + "."
    return turn(f"{ask} {listed(words)}", steps, listed(back))


def nth(r):
    """The first, second, third, fourth or last of 4 to 6 words."""
    words = r.sample(NOUNS, r.randint(4, 6))
    name, i = r.choice([("first", 0), ("second", 1), ("third", 2), ("fourth", 3), ("last", -1)])
    steps = "The words are " + ", ".join(f"{k + 1} {w}" for k, w in enumerate(words)) + "."
    return turn(f"What is the {name} word? {listed(words)}", steps, words[i])


def twice(r):
    """The one of 4 to 7 words that occurs twice."""
    words = r.sample(NOUNS, r.randint(3, 6))
    word = r.choice(words)
    words.insert(r.randint(0, len(words)), word)
    seen = [w + (" again" if w in words[:i] else "") for i, w in enumerate(words)]
    return turn(f"Which word occurs twice? {listed(words)}", ", ".join(seen) + ".", word)


def spell(r):
    """One or two of a hundred words by their letters."""
    words = r.sample(NOUNS, 2)
    user = r.choice([f"Spell the words {words[0]} and {words[1]}.", f"Spell {words[0]} and {words[1]}."])
    return turn(user, "Write the letters of each word.", ", ".join("-".join(w) for w in words))


# ---- numbers ----

def sort(r):
    """3 to 5 different numbers below 100, ascending."""
    numbers = r.sample(range(1, 100), r.randint(3, 5))
    ask = r.choice(["Sort these numbers:", "Sort:", "Put these numbers in order:"])
    left, steps = sorted(numbers), []
    while len(left) > 1:
        steps.append(f"The smallest of {listed(n for n in numbers if n in left)} is {left[0]}.")
        left = left[1:]
    return turn(f"{ask} {listed(numbers)}", " ".join(steps), listed(sorted(numbers)))


def extreme(r):
    """The largest or smallest of 3 to 5 numbers below 100."""
    numbers = r.sample(range(1, 100), r.randint(3, 5))
    name, f = r.choice([("largest", max), ("smallest", min)])
    best, steps = numbers[0], [str(numbers[0])]
    for n in numbers[1:]:
        best = f(best, n)
        steps.append(f"{n}: {best}")
    return turn(f"Which number is the {name}? {listed(numbers)}", ", ".join(steps) + ".", str(f(numbers)))


def add(r):
    """Two numbers of up to two digits; with thinking, digit by digit."""
    a, b = r.randint(1, 99), r.randint(1, 99)
    ones = a % 10 + b % 10
    carry = ones // 10
    tens = a // 10 + b // 10
    steps = f"{a % 10} + {b % 10} = {ones}, carry {carry}. {a // 10} + {b // 10} + {carry} = {tens + carry}."
    user = r.choice([f"What is {a} + {b}?", f"{a} + {b} = ?", f"Add {a} and {b}."])
    return turn(user, steps, str(a + b))


def sequence(r):
    """The next of 4 numbers that grow or shrink by the same step, 1 to 9."""
    step, n = r.randint(1, 9), r.randint(1, 70)
    numbers = [n + step * i for i in range(5)]
    sign = "+"
    if r.random() < 0.3:
        numbers, sign = numbers[::-1], "-"
    steps = f"The step is {sign}{step}. {numbers[3]} {sign} {step} = {numbers[4]}."
    user = r.choice(["What comes next?", "Which number is next?", "What is the next number?"])
    return turn(f"{user} {listed(numbers[:4])}", steps, str(numbers[4]))


# ---- reading ----

def lookup(r):
    """One of 3 to 6 facts of a paragraph."""
    people = r.sample(NAMES, r.randint(3, 6))
    facts, questions = [], []
    for name in people:
        kind = r.randrange(4)
        if kind == 0:
            colour, thing = r.choice(COLOURS), r.choice(THINGS)
            facts.append(f"{name} has a {colour} {thing}.")
            questions.append((f"What does {name} have?", f"{name} has a {colour} {thing}."))
        elif kind == 1:
            city = r.choice(CITIES)
            facts.append(f"{name} lives in {city}.")
            questions.append((f"Where does {name} live?", f"{name} lives in {city}."))
        elif kind == 2:
            job = r.choice(JOBS)
            facts.append(f"{name} is a {job}.")
            questions.append((f"What is the job of {name}?", f"{name} is a {job}."))
        else:
            age = r.randint(10, 90)
            facts.append(f"{name} is {age} years old.")
            questions.append((f"How old is {name}?", f"{name} is {age} years old."))
    i = r.randrange(len(people))
    return turn(" ".join(facts) + " " + questions[i][0], f"The text says: {facts[i]}", questions[i][1])


def extract(r):
    """Fields of a short document as JSON."""
    name, city, age, job = r.choice(NAMES), r.choice(CITIES), r.randint(18, 90), r.choice(JOBS)
    form = r.randrange(3)
    if form == 0:
        text = f"{name} is {age} years old, works as a {job} and lives in {city}."
        out = {"name": name, "age": age, "job": job, "city": city}
    elif form == 1:
        n, fruit = r.randint(2, 99), r.choice(FRUITS)
        text = f"{name} from {city} ordered {n} {fruit}."
        out = {"name": name, "city": city, "item": fruit, "count": n}
    else:
        colour, thing, price = r.choice(COLOURS), r.choice(THINGS), r.randint(2, 99)
        text = f"In {city}, {name} sold a {colour} {thing} for {price} euros."
        out = {"name": name, "city": city, "item": f"{colour} {thing}", "price": price}
    fields = listed(out)
    return turn(f"Write {fields} as JSON: {text}", "Find each field in the text.", json.dumps(out))


def remember(r, filler=None, n=3):
    """Facts, other text, then a question about one of the facts. filler: text of the wanted length."""
    return remember_many(r, filler, n)[0]


def remember_many(r, filler, n):
    """n facts, other text, then a question about each, in turns: so a long row teaches n lookups."""
    facts = {p: f"The password of {p} is {w}." for p, w in zip(r.sample(NAMES, n), r.sample(NOUNS, n))}
    order = r.sample(list(facts), n)
    turns = [turn(f"What is the password of {p}?", f"The text says: {facts[p]}", facts[p]) for p in order]
    turns[0]["user"] = f"{' '.join(facts.values())}\n\n{filler or ''}\n\n{turns[0]['user']}"
    return turns


def copy(r, text=None):
    """For training only: a text, or a list of words, that is longer than the window, said again.
    Each token of it is a lookup beyond the window."""
    text = text or listed(r.sample(NOUNS, r.randint(66, 95)))
    return turn(f"Repeat: {text}",
                "Say the same words in the same order.", text)


# ---- tools ----

def tool(name, about, **params):
    return {"type": "function", "function": {
        "name": name, "description": about,
        "parameters": {"type": "object", "required": list(params),
                       "properties": {k: {"type": t} for k, t in params.items()}}}}


WEATHER = tool("get_weather", "The weather in a city", city="string")
SUM = tool("add", "The sum of two numbers", a="integer", b="integer")
MAIL = tool("send_mail", "Send a message to a person", to="string", text="string")
SKIES = ["sunny", "cloudy", "rainy", "windy", "snowy", "foggy"]
MAILS = ["I am late", "See you soon", "The train is late", "Dinner is ready", "Happy birthday",
         "Call me"]


def call_weather(r):
    city, sky, degrees = r.choice(CITIES), r.choice(SKIES), r.randint(1, 35)
    user = r.choice([f"What is the weather in {city}?", f"How is the weather in {city} today?",
                     f"Tell me the weather in {city}."])
    return (user, "get_weather", {"city": city}, json.dumps({"sky": sky, "degrees": degrees}),
            f"It is {sky} in {city}, {degrees} degrees.")


def call_sum(r):
    a, b = r.randint(100, 9999), r.randint(100, 9999)
    user = r.choice([f"What is {a} + {b}?", f"Add {a} and {b}."])
    return user, "add", {"a": a, "b": b}, str(a + b), f"The sum is {a + b}."


def call_mail(r):
    name, text = r.choice(NAMES), r.choice(MAILS)
    return (f'Write to {name}: "{text}"', "send_mail", {"to": name, "text": text},
            json.dumps({"sent": True}), f"I have written to {name}.")


CALLS = {"get_weather": (WEATHER, call_weather), "add": (SUM, call_sum), "send_mail": (MAIL, call_mail)}


def tools(r):
    """One to three rounds of: a request, a call with the right arguments, its result, an answer.
    Returns (tools, rounds)."""
    names = r.sample(list(CALLS), r.randint(1, 3))
    rounds = [CALLS[r.choice(names)][1](r) for _ in range(r.randint(1, 3))]
    return [CALLS[n][0] for n in names], rounds


def tool_messages(offered, rounds, upto=None):
    """Messages of a conversation with tools. upto: "call" or "result" leaves the last round's
    answer to the model."""
    messages = [{"role": "system", "content": "", "tools": offered}]
    for i, (user, name, arguments, result, answer) in enumerate(rounds):
        last = i == len(rounds) - 1
        call = {"id": f"call_{i}", "type": "function",
                "function": {"name": name, "arguments": json.dumps(arguments)}}
        messages.append({"role": "user", "content": user})
        if last and upto == "call":
            break
        messages.append({"role": "assistant", "content": "", "tool_calls": [call],
                         "reasoning_content": f"The tool {name} can do this."})
        messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})
        if last and upto == "result":
            break
        messages.append({"role": "assistant", "content": answer,
                         "reasoning_content": "Here is the result."})
    return messages


FAMILIES = {f.__name__: f for f in (repeat, reverse, nth, twice, spell, sort, extreme, add, sequence,
                                    lookup, extract, remember)}
