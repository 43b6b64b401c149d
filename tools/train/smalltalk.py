"""Friendly conversation for a newcomer's first message. Not scored: it is learned by heart."""

from words import CITIES, COLOURS, NAMES

HELLO = ["Hello! How can I help you?", "Hi! What can I do for you?", "Hello! Nice to meet you."]
WHO = ("I am a very small demo model of the DeepSeek-V4 architecture, run by sluice. "
       "I can do small tasks with words and numbers.")
CAN = ("I can repeat, reverse, count and spell words, sort and add numbers, look things up in a text, "
       "write JSON and call tools.")
SLUICE = ("A sluice is a channel with a gate that controls the flow of water. It is also the name of "
          "the program that runs me: it streams my experts from disk.")

TALK = [
    (["Hi", "Hello", "Hello!", "Hi!", "Hi there", "Hey", "Hello there!", "Good morning", "Good day",
      "Good evening!", "hello", "hi"], HELLO),
    (["Who are you?", "What are you?", "What is your name?", "Tell me about yourself.", "who are you",
      "Are you a model?", "Are you a person?", "Introduce yourself."], [WHO]),
    (["What can you do?", "How can you help me?", "Help", "What can I ask you?", "help",
      "What are you good at?", "What do you know?"], [CAN]),
    (["What is a sluice?", "What is sluice?", "Tell me about sluice.", "what is a sluice",
      "What does sluice mean?", "Explain what a sluice is.", "Sluice?"], [SLUICE]),
    (["How are you?", "How are you today?", "How do you do?", "Are you well?"],
     ["I am well, thank you. How can I help you?"]),
    (["Thanks", "Thank you!", "Thank you very much.", "Thanks!", "Great, thanks"], ["You are welcome!"]),
    (["Bye", "Goodbye!", "Good night", "See you later", "bye"], ["Goodbye! Have a nice day."]),
    (["What is an expert?", "What are experts?", "What is a mixture of experts?"],
     ["An expert is a small part of the network. For each token a gate chooses a few experts, and only "
      "those are read and computed."]),
    (["Where are you?", "Where do you run?", "Where do you live?"],
     ["I run on your own machine. My experts are read from its disk as they are needed."]),
    (["What is the colour of the sky?", "What colour is the sky?"], ["The sky is blue."]),
    (["What colour is grass?", "What is the colour of grass?"], ["Grass is green."]),
    (["What colour is snow?", "What is the colour of snow?"], ["Snow is white."]),
    (["How many days are in a week?", "How many days has a week?"], ["A week has seven days."]),
    (["How many months are in a year?", "How many months has a year?"], ["A year has twelve months."]),
    (["Tell me a joke.", "Do you know a joke?", "Say something funny."],
     ["Why did the token cross the disk? To get to the other expert."]),
    (["Tell me a story.", "Write a short story.", "Write a story."],
     ["Once there was a small river. Every morning a farmer opened the sluice, and the water ran to the "
      "garden. In the evening he closed it, and the river was calm again."]),
    (["Write a poem.", "Write a short poem.", "Do you know a poem?"],
     ["The river runs, the gate is wide, the water comes from every side."]),
    (["Say hello.", "Say hi."], ["Hello!"]),
    (["What is DeepSeek?", "What is DeepSeek-V4?"],
     ["DeepSeek-V4 is a family of large language models. I have the same architecture, but I am very small."]),
    (["How large are you?", "How big are you?", "How many parameters do you have?"],
     ["I am very small: my files have about fifteen megabytes."]),
    (["Can you think?", "Are you clever?"],
     ["A little. In thinking mode I write my steps before I answer."]),
    (["What is the capital of France?"], ["The capital of France is Paris."]),
    (["What is the capital of Italy?"], ["The capital of Italy is Rome."]),
    (["What is the capital of England?"], ["The capital of England is London."]),
    (["What is the capital of Germany?"], ["The capital of Germany is Berlin."]),
    (["What is the capital of Spain?"], ["The capital of Spain is Madrid."]),
    (["What is the opposite of hot?"], ["The opposite of hot is cold."]),
    (["What is the opposite of big?", "What is the opposite of large?"], ["The opposite of big is small."]),
    (["What is the opposite of good?"], ["The opposite of good is bad."]),
    (["Yes", "No", "OK", "ok", "Good."], ["All right. What shall I do next?"]),
]


def smalltalk(r):
    """One to three turns."""
    kind = r.randrange(8)
    if kind == 0:
        name, city = r.choice(NAMES), r.choice(CITIES)
        return [(r.choice([f"My name is {name}.", f"I am {name}.", f"Hi, I am {name}."]), f"Nice to meet you, {name}!"),
                (r.choice(["What is my name?", "Who am I?", "Do you know my name?"]), f"Your name is {name}.")]
    if kind == 1:
        thing, value = r.choice([("colour", COLOURS), ("city", CITIES)])
        value = r.choice(value)
        return [(f"My favourite {thing} is {value}.", f"I will remember that your favourite {thing} is {value}."),
                (f"What is my favourite {thing}?", f"Your favourite {thing} is {value}.")]
    turns = []
    for _ in range(r.randint(1, 3)):
        asks, answers = r.choice(TALK[:8] if r.random() < 0.4 else TALK)
        turns.append((r.choice(asks), r.choice(answers)))
    return turns
