"""The closed word lists of the tasks: common words, each one token of the tokenizer."""

NOUNS = """apple bread river stone table chair house garden window door horse cow sheep dog cat bird
fish tree flower grass mountain valley island ocean lake bridge road street market school church
tower castle king queen farmer baker doctor teacher child mother father brother sister friend boat
ship train wagon wheel hammer needle thread cotton paper book letter pencil candle lamp mirror
basket bottle cup plate spoon knife kettle oven blanket pillow coat hat shoe ring coin silver gold
iron copper glass sand clay wood water fire smoke cloud rain snow wind storm sun moon star night
morning summer winter spring music drum bell clock""".split()

NAMES = """Anna Ben Clara David Emma Frank Grace Henry Ida Jack Kate Leo Mary Nora Oscar Paul Rosa
Sam Tom Vera""".split()

CITIES = """Paris London Rome Berlin Madrid Oslo Vienna Prague Dublin Lisbon Athens Cairo Tokyo
Boston Warsaw Delhi""".split()

COLOURS = "red blue green yellow black white brown purple orange pink".split()

THINGS = "box bag hat coat cup book bike car lamp chair boat ball".split()

JOBS = "doctor teacher baker farmer singer painter driver nurse writer pilot".split()

FRUITS = "apples pears plums lemons figs grapes cherries peaches".split()
