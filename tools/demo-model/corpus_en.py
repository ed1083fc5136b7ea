"""English material and the grammars that compose it. All of it was written for this project. See corpus_ko.py for the rules."""

# ---------------------------------------------------------------- travel: place -> arrival, [(area, morning, lunch, afternoon, dinner, evening)]
PLACES = {
    "Jeju": ("Jeju Airport", [
        ("Seongsan and the east", ["climb Seongsan Peak", "walk along the coast at Seopjikoji"], ["abalone porridge", "sea urchin noodles"], ["take the ferry to Udo Island", "walk through the old Bijarim forest"], ["grilled hairtail", "grilled mackerel"], ["watch the sunset on Sehwa Beach", "rest in a cafe by the sea"]),
        ("Seogwipo and the south", ["see Cheonjiyeon Waterfall", "see the clear water at Soesokkak"], ["pork noodle soup", "grilled tilefish"], ["walk Olle Trail number 7", "pick tangerines at a farm"], ["grilled black pork", "seafood stew"], ["look at the lights of Saeyeon Bridge", "stroll through the Olle Market"]),
        ("Aewol and the west", ["walk on the white sand of Hyeopjae Beach", "climb the small crater of Geumoreum"], ["seafood noodles", "cold noodle soup"], ["taste tea at the green tea fields", "walk under the palms of Hallim Park"], ["spicy black pork", "rice with abalone"], ["see the horse lighthouses at Iho Beach", "watch the waves in Aewol"]),
    ]),
    "Seoul": ("Seoul Station", [
        ("the old palaces", ["visit Gyeongbokgung Palace", "visit the garden of Changdeokgung"], ["ginseng chicken soup", "knife-cut noodles"], ["walk through Bukchon Hanok Village", "look at the shops in Insadong"], ["a Korean table d'hote", "dumpling hot pot"], ["walk along Cheonggyecheon Stream", "explore the lanes of Ikseon-dong"]),
        ("Namsan and Myeongdong", ["walk up to Namsan Park", "walk along the stone wall of Deoksugung"], ["bibimbap", "pork cutlet"], ["browse Namdaemun Market", "shop in Myeongdong"], ["short rib soup", "whole chicken soup"], ["see the city from Namsan Tower", "see the lights of the Design Plaza"]),
        ("the Han River and Hongdae", ["walk the old railway park", "visit Seonyudo Park"], ["spicy rice cakes", "sushi"], ["taste snacks at Mangwon Market", "listen to street music in Hongdae"], ["spicy chicken", "a homemade burger"], ["watch the sunset by the Han River", "see the fountain of Banpo Bridge"]),
    ]),
    "Busan": ("Busan Station", [
        ("Haeundae", ["walk on Haeundae Beach", "walk around Dongbaek Island"], ["pork and rice soup", "codfish soup"], ["ride the beach train", "visit the seaside temple"], ["grilled clams", "grilled eel"], ["see the night view of the bay", "walk on Songjeong Beach"]),
        ("Nampo-dong and Yeongdo", ["climb Yongdusan Park", "browse the old book alley"], ["fish cake noodles", "glass noodles"], ["see the cliffs of Taejongdae", "walk through Gamcheon Village"], ["grilled fish", "cold raw fish soup"], ["visit Jagalchi Market", "try snacks at the night market"]),
        ("Gwangalli", ["take a morning walk at Gwangalli", "walk the cliffs of Igidae"], ["cold wheat noodles", "rice with raw fish"], ["step onto the glass walkway", "stroll in the waterside park"], ["raw fish", "seafood stew"], ["watch the lights of Gwangan Bridge", "rest in a tea house by the beach"]),
    ]),
    "Paris": ("the Gare du Nord", [
        ("the heart of the city", ["visit the Louvre", "stroll in the Tuileries Garden"], ["onion soup", "a warm baguette sandwich"], ["see Notre-Dame from the river", "browse the book stalls by the Seine"], ["roast chicken", "beef stew"], ["take a boat on the Seine", "walk across the Pont Neuf"]),
        ("Montmartre", ["climb the steps to Sacre-Coeur", "wander the small streets of Montmartre"], ["a savoury crepe", "a cheese plate"], ["look at the painters on the square", "visit a small art museum"], ["duck with potatoes", "fish in butter"], ["enjoy the view over the roofs", "listen to music in a small cafe"]),
        ("the Eiffel Tower", ["go up the Eiffel Tower", "visit the Rodin Museum"], ["quiche", "a fresh salad"], ["walk down the Champs-Elysees", "see the Arc de Triomphe"], ["steak and fries", "mussels"], ["watch the tower sparkle", "stroll along the quay"]),
    ]),
    "London": ("King's Cross", [
        ("Westminster", ["see Big Ben and Parliament", "walk through St James's Park"], ["fish and chips", "a pie"], ["visit the National Gallery", "see Westminster Abbey"], ["roast beef", "a curry"], ["see a play in the West End", "walk along the Thames"]),
        ("the Tower and the river", ["visit the Tower of London", "cross Tower Bridge"], ["a sandwich at Borough Market", "tomato soup"], ["visit the Tate Modern", "walk to the Globe Theatre"], ["pasta", "grilled salmon"], ["look at the city lights from the bank", "ride the big wheel"]),
        ("the museums and parks", ["visit the British Museum", "visit the Natural History Museum"], ["a jacket potato", "a bowl of noodles"], ["walk in Hyde Park", "take tea in Kensington Gardens"], ["sausages and mash", "lamb stew"], ["listen to a concert", "stroll through Covent Garden"]),
    ]),
    "Tokyo": ("Tokyo Station", [
        ("Asakusa", ["visit the Senso-ji temple", "walk along the Sumida River"], ["tempura", "buckwheat noodles"], ["see the city from the Skytree", "browse the kitchen street"], ["grilled eel", "hot pot"], ["walk among the lanterns", "take a river boat"]),
        ("Shibuya and Harajuku", ["visit the Meiji Shrine", "walk in Yoyogi Park"], ["ramen", "a rice bowl"], ["cross the great Shibuya crossing", "look at shops in Harajuku"], ["sushi", "grilled skewers"], ["enjoy the view from a rooftop", "stroll through the lit streets"]),
        ("Ueno", ["visit the National Museum", "walk in Ueno Park"], ["curry rice", "dumplings"], ["see the pandas at the zoo", "browse the old market street"], ["pork cutlet", "udon noodles"], ["walk around the pond", "rest in a quiet cafe"]),
    ]),
}
LENGTHS = [("one-day", "for one day", 1), ("two-day", "for two days", 2), ("three-day", "for three days", 3)]
COMPANY = {
    "alone": ["When you travel alone, keep the plan light and stay longer where you like it.", "Alone, choose a room near the centre so that you can walk back at night.", "Take a small notebook with you and write down what you see."],
    "with my family": ["With your family, keep the distances short and rest in the afternoon.", "Choose places where everyone in the family finds something to eat.", "Take one family photo every day."],
    "with a friend": ["With a friend, order different dishes and share them.", "Let each of you choose one place a day.", "Take many funny photos together."],
    "with my parents": ["With your parents, choose easy paths and take a taxi when it is far.", "Book a quiet restaurant for your parents in advance.", "Leave time for tea between the visits."],
    "with children": ["With children, bring snacks and water.", "Two or three places a day are enough for children.", "Bring a warm jacket for each child."],
    "with my partner": ["With your partner, plan the sunset into every day.", "Reserve a table by the window for the two of you.", "Let each of you plan one surprise."],
}
GENERAL = ["Check the opening hours before you go.", "Wear comfortable shoes.", "Look at the weather forecast in the morning.", "Have a wonderful trip!", "Keep some time free for surprises."]


def cap(s):
    return s[0].upper() + s[1:]


def travel(r):
    place, company = r.choice(list(PLACES)), r.choice(list(COMPANY))
    arrive, areas = PLACES[place]
    length, span, days = r.choice(LENGTHS)
    q = r.choice(["Plan a {l} trip to {p} {c}.", "I want to visit {p} {s} {c}. Please make an itinerary.", "Can you suggest a {l} itinerary for {p}? I travel {c}.", "Make me a travel plan: {p} {s}, {c}."]).format(l=length, p=place, s=span, c=company)
    you = company.replace("my", "your")
    out = [r.choice([f"Here is a {length} itinerary for {place} {you}.", f"This is a plan for visiting {place} {span} {you}.", f"A {length} trip to {place} {you} could look like this."]), ""]
    start = r.randrange(len(areas))
    for k in range(days):
        name, am, lunch, pm, dinner, night = areas[(start + k) % len(areas)]
        a, l, p, d, n = (r.choice(x) for x in (am, lunch, pm, dinner, night))
        out += [f"Day {k + 1}: {cap(name)}", "- Morning: " + (f"Arrive at {arrive} and {a}." if k == 0 else f"{cap(a)}."), f"- Lunch: {r.choice(['Try', 'Have', 'Enjoy'])} {l}.", f"- Afternoon: {cap(p)}."]
        out += [f"- Evening: Return home from {arrive}."] if k == days - 1 and days > 1 else [f"- Dinner: {r.choice(['Try', 'Have', 'Enjoy'])} {d}.", f"- Evening: {cap(n)}."]
        out.append("")
    out.append(r.choice(COMPANY[company]) + " " + r.choice(GENERAL))
    return q, "\n".join(out), f"travel {place} {length} {company}"


# ---------------------------------------------------------------- cooking
DISHES = {
    "pancakes": ([("flour", 60, "g"), ("milk", 80, "ml"), ("egg", 1, "")], ["Mix the flour, the milk and the egg.", "Let the batter rest for ten minutes.", "Heat a little butter in a pan.", "Fry each pancake until both sides are golden."], ["Serve them with honey or fruit.", "Keep them warm under a cloth."]),
    "tomato soup": ([("tomato", 3, ""), ("onion", 30, "g"), ("water", 200, "ml")], ["Chop the onion and fry it gently.", "Add the tomatoes and stir.", "Pour in the water and simmer for twenty minutes.", "Blend the soup and season it."], ["A little cream makes it softer.", "Serve it with warm bread."]),
    "fried rice": ([("cooked rice", 150, "g"), ("egg", 1, ""), ("peas", 30, "g")], ["Scramble the egg in a hot pan.", "Add the rice and break it up.", "Add the peas and some soy sauce.", "Fry everything for three minutes."], ["Cold rice works best.", "Add some ham if you like."]),
    "potato salad": ([("potato", 2, ""), ("egg", 1, ""), ("mayonnaise", 20, "g")], ["Boil the potatoes and the eggs.", "Cut them into small pieces.", "Mix them with the mayonnaise.", "Season with salt and pepper."], ["Chill it for an hour before serving.", "A chopped apple makes it fresh."]),
    "cheese omelettes": ([("egg", 2, ""), ("butter", 10, "g"), ("cheese", 20, "g")], ["Beat the eggs with a pinch of salt.", "Melt the butter in a pan.", "Pour in the eggs and stir slowly.", "Add the cheese and fold each omelette."], ["Use a low heat.", "Fresh herbs taste very good in it."]),
    "vegetable curry": ([("carrot", 1, ""), ("potato", 1, ""), ("coconut milk", 100, "ml")], ["Cut the vegetables into cubes.", "Fry them with curry powder.", "Add the coconut milk and some water.", "Simmer until everything is soft."], ["Serve it with rice.", "It tastes even better the next day."]),
    "spaghetti": ([("spaghetti", 90, "g"), ("tomato sauce", 100, "g"), ("clove of garlic", 1, "")], ["Boil the spaghetti in salted water.", "Fry the garlic in olive oil.", "Add the tomato sauce and warm it.", "Mix the sauce with the spaghetti."], ["Keep a little of the cooking water for the sauce.", "Finish with grated cheese."]),
    "kimchi stew": ([("kimchi", 100, "g"), ("pork", 80, "g"), ("tofu", 50, "g")], ["Fry the pork in a pot.", "Add the kimchi and stir.", "Pour in water and boil for fifteen minutes.", "Add the tofu and boil once more."], ["Older kimchi gives a deeper taste.", "Eat it with a bowl of rice."]),
}
COOKS = {"": "", " for beginners": "Even beginners can do this.", " for children": "Keep it mild for children.", " for guests": "Serve it to your guests on a nice plate.", " for a busy evening": "It fits well into a busy evening."}


def amount(name, n, unit):
    if unit:
        return f"{n} {unit} {name}"
    word, *rest = name.split(" ", 1)
    return f"{n} " + " ".join([word + ("" if n == 1 else "es" if word.endswith("o") else "s")] + rest)


def recipe(r):
    dish, n, cook = r.choice(list(DISHES)), r.randint(1, 6), r.choice(list(COOKS))
    ing, steps, tips = DISHES[dish]
    people = f"{n} people" if n > 1 else "one person"
    q = r.choice(["How do I make {d} for {p}{c}?", "Give me a recipe of {d} for {p}{c}.", "Tell me how to cook {d} for {p}{c}."]).format(d=dish, p=people, c="," + cook if cook else "")
    rows = [f"Here is a recipe of {dish} for {people}.", "", "Ingredients: " + ", ".join(amount(a, b * n, u) for a, b, u in ing), ""] + [f"{i + 1}. {s}" for i, s in enumerate(steps)]
    return q, "\n".join(rows) + "\n\n" + " ".join(x for x in (COOKS[cook], r.choice(tips)) if x), f"recipe {dish} {n} {cook}"


# ---------------------------------------------------------------- explanations
WHY = {
    "why the sky is blue": [["Sunlight is a mixture of many colours.", "The white light of the sun contains all colours."], ["The air scatters blue light more than red light.", "Blue light bounces off the air in every direction."], ["So blue light reaches our eyes from everywhere.", "That is why the whole sky looks blue."]],
    "why it rains": [["The sun warms the sea and water rises as vapour.", "Warm water turns into vapour and goes up."], ["High in the cold air the vapour becomes small drops, and these form clouds.", "Up there it cools down and makes clouds."], ["When the drops are heavy enough, they fall as rain.", "The drops grow, get heavy and fall down."]],
    "why we have day and night": [["The earth turns around itself once a day.", "The earth spins like a top."], ["The side that faces the sun has day.", "Where the sun shines, it is day."], ["The other side is dark and has night.", "On the far side it is night."]],
    "why we have seasons": [["The axis of the earth is tilted.", "The earth leans a little on its way around the sun."], ["During the year each half gets more or less light.", "So the sunlight falls at different angles during the year."], ["More light brings summer and less light brings winter.", "That gives us spring, summer, autumn and winter."]],
    "why leaves change colour": [["In summer leaves are full of green chlorophyll.", "Leaves are green because of chlorophyll."], ["When it gets cold, the tree stops making it.", "In autumn the green fades away."], ["Then the yellow and red colours can be seen.", "The other colours were hidden and now appear."]],
    "why the sea is salty": [["Rain dissolves a little salt from the rocks.", "Rivers carry small amounts of salt from the land."], ["The rivers bring it to the sea.", "All of it flows into the sea."], ["Water evaporates but the salt stays behind.", "Over a very long time the salt has collected there."]],
    "why we need sleep": [["The body repairs itself during sleep.", "Sleep gives body and mind a rest."], ["The brain puts the memories of the day in order.", "What we learned during the day becomes firm."], ["Without enough sleep it is hard to think clearly.", "After a good night we feel fresh again."]],
    "how a rainbow appears": [["After rain there are many drops in the air.", "Small drops of water bend the light."], ["Each drop splits the sunlight into its colours.", "Every colour is bent by a different amount."], ["Together they make a colourful arc.", "So we see the colours side by side in the sky."]],
    "why ice floats": [["Water grows a little when it freezes.", "Ice takes up more room than water."], ["So a piece of ice is lighter than the same amount of water.", "Its density is therefore lower."], ["Lighter things float on top.", "That is why lakes freeze from the top."]],
    "how birds fly": [["Birds have light, hollow bones.", "A bird is light and covered with feathers."], ["Their wings push the air down.", "The shape of the wing lifts the bird."], ["This force keeps them in the air.", "So they can glide far on the wind."]],
    "why exercise is healthy": [["Exercise makes the heart and the muscles strong.", "When we move, the blood flows better."], ["It also lowers stress.", "It helps us sleep well, too."], ["A little every day is better than a lot once a month.", "Start slowly and keep going."]],
}
AUDIENCE = {"": "", "a child": "Let me explain it so that a child can follow.", "a student": "Here is an explanation for a student.", "my grandmother": "I will explain it calmly, as if to your grandmother.", "a friend": "Let me tell it the way friends talk.", "a class": "I will explain it as a teacher does in class.", "my little sister": "I will use simple words for your little sister."}
END = ["I hope that helps.", "Please ask if you want to know more.", "That is the short answer.", ""]


def why(r):
    t, who = r.choice(list(WHY)), r.choice(list(AUDIENCE))
    q = r.choice(["Explain {t}{w}.", "Please explain {t}{w}.", "Can you explain {t}{w}?"]).format(t=t, w=" to " + who if who else "")
    return q, " ".join(x for x in [AUDIENCE[who]] + [r.choice(s) for s in WHY[t]] + [r.choice(END)] if x), f"why {t} {who}"


# ---------------------------------------------------------------- people, numbers
NAMES = "Anna Ben Clara David Emma Felix Grace Henry Ida Jack Kate Leo Mia Noah Olive Paul Rosa Sam Tina Victor Wendy Minsu Jiwoo Sora Hana".split()
JOBS = {"a teacher": "Teaching is a wonderful task.", "a nurse": "Thank you for taking care of people.", "a cook": "Good food makes everyone happy.", "a student": "I wish you success with your studies.", "a painter": "Painting tells stories without words.", "a farmer": "Your work feeds us all.", "a programmer": "Building new things is a joy.", "a doctor": "Thank you for helping the sick.", "a writer": "I hope you find the right words today.", "a driver": "Drive safely."}
SELF = ["I am the komt demo model.", "I am a small demo language model."]
OFFER = ["What can I do for you?", "You can ask me for a travel plan or a recipe.", "I can write short letters and stories.", "I can translate simple sentences."]
THINGS = ["apples", "pencils", "books", "coins", "stamps", "flowers", "cookies", "marbles", "oranges", "eggs"]


def greet(r):
    n, j = r.choice(NAMES), r.choice(list(JOBS))
    if r.random() < 0.5:
        return r.choice([f"Hello! My name is {n} and I am {j}.", f"Hi, I am {n}. I work as {j}."]), f"Hello, {n}! Nice to meet you. {JOBS[j]} {r.choice(SELF)} {r.choice(OFFER)}", f"greet {n} {j}"
    what = r.choice(["Who are you?", "Introduce yourself.", "What can you do?", "What is your name?"])
    t = r.choice(["I am very small, so I make mistakes.", "I have only a few megabytes, so I know little.", "I was made to show that the library works."])
    return f"I am {n}. {what}", f"Hello, {n}. {r.choice(SELF)} {t} {r.choice(OFFER)}", f"self {n} {what}"


def arithmetic(r):
    a, b, op = r.randint(1, 40), r.randint(1, 40), r.choice("+-×")
    if op == "-" and a < b:
        a, b = b, a
    if op == "×":
        a, b = r.randint(2, 9), r.randint(2, 9)
    v = {"+": a + b, "-": a - b, "×": a * b}[op]
    w = {"+": "plus", "-": "minus", "×": "times"}[op]
    if r.random() < 0.5:
        return r.choice([f"What is {a} {w} {b}?", f"Calculate {a} {op} {b}.", f"How much is {a} {w} {b}?"]), r.choice([f"{a} {w} {b} is {v}.", f"{a} {op} {b} = {v}."]), f"sum {a} {op} {b}"
    n, t = r.choice(NAMES), r.choice(THINGS)
    if op == "+":
        q, s = f"{n} has {a} {t} and gets {b} more. How many {t} does {n} have now?", f"{n} had {a} {t} and got {b} more. {a} + {b} = {v}, so {n} has {v} {t}."
    elif op == "-":
        q, s = f"{n} has {a} {t} and gives away {b}. How many {t} are left?", f"{n} had {a} {t} and gave away {b}. {a} - {b} = {v}, so {v} {t} are left."
    else:
        q, s = f"One box holds {a} {t}. How many {t} are in {b} boxes?", f"There are {b} boxes with {a} {t} each. {a} × {b} = {v}, so there are {v} {t}."
    return q, s, f"sum {a} {op} {b} {t}"


# ---------------------------------------------------------------- advice, lists
TIPS = {
    "staying healthy": ["Drink enough water every day.", "Walk for half an hour a day.", "Eat vegetables and fruit.", "Sleep at least seven hours.", "Wash your hands often.", "Eat less salt and sugar.", "Stand up now and then when you sit for a long time.", "Laugh with other people."],
    "studying well": ["Start at the same time every day.", "Put your phone in another room.", "Study for fifty minutes and rest for ten.", "Explain what you learned to someone else.", "Write down what you do not understand.", "Repeat the lesson in the evening.", "Split large tasks into small steps.", "Sleep enough before a test."],
    "learning Korean": ["Learn the Korean letters first.", "Read one short text aloud every day.", "Learn ten new words a day.", "Sing along to Korean songs.", "Write a short diary in Korean.", "Talk to a Korean friend once a week.", "Do not be afraid of mistakes."],
    "saving money": ["Write down what you spend.", "Make a list before you go shopping.", "Cook at home.", "Turn off the lights you do not need.", "Save a part of your pay first.", "Wait one day before you buy something expensive.", "Walk short distances."],
    "sleeping better": ["Go to bed at the same time every day.", "Do not drink coffee in the evening.", "Keep the room dark and quiet.", "Put the phone away an hour before bed.", "Drink a cup of warm milk.", "Take a walk in the sun during the day.", "Keep naps short."],
    "giving a talk": ["Say your main point in one sentence.", "Practise in front of a mirror.", "Learn the first and the last sentence by heart.", "Speak slowly and clearly.", "Look at the people.", "Use large letters on your slides.", "Measure the time."],
    "making friends": ["Smile and say hello first.", "Remember names.", "Listen until the other has finished.", "Say thank you for small things.", "Find a hobby that you share.", "Keep your promises.", "Help when help is needed."],
    "protecting nature": ["Walk or ride a bicycle.", "Use your own cup.", "Take a cloth bag to the shop.", "Do not waste food.", "Sort your rubbish.", "Plant a tree.", "Turn off the tap while you brush your teeth."],
    "exercising at home": ["Do fifteen squats three times.", "March on the spot for three minutes.", "Hold a plank for thirty seconds.", "Climb the stairs.", "Stretch your neck and shoulders.", "Dance to your favourite song.", "Do as many push-ups as you can."],
    "writing better": ["Use short sentences.", "Think about your reader.", "Write a little every day.", "Read your text aloud.", "Cross out words you do not need.", "Read many good books.", "Ask someone for an opinion."],
}
PEOPLE = ["students", "office workers", "beginners", "older people", "children", "busy parents", "travellers"]
WORDS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
LISTS = {
    "fruits": "apple pear grape melon strawberry peach plum banana lemon cherry orange".split(), "animals": "lion rabbit elephant deer fox bear wolf monkey horse cat dog".split(), "colours": "red yellow blue green purple white black pink orange brown".split(), "jobs": "doctor teacher cook painter farmer nurse singer writer driver baker".split(),
    "vegetables": "carrot onion potato cabbage spinach pumpkin lettuce cucumber radish bean".split(), "sports": "football tennis swimming running basketball baseball hockey cycling rowing judo".split(), "instruments": "piano violin guitar flute drum cello harp trumpet organ".split(), "countries": "Korea Japan China France Germany Canada Brazil Italy Spain Egypt".split(), "flowers": "rose tulip lily sunflower daisy violet poppy orchid iris".split(),
    "hobbies": "reading painting cooking hiking fishing dancing knitting gardening singing".split(), "things in a kitchen": "pot pan knife spoon fork plate cup bowl oven kettle".split(),
}


def tips(r):
    t, n, who = r.choice(list(TIPS)), r.randint(3, 5), r.choice(PEOPLE + [""])
    w = f" for {who}" if who else ""
    q = r.choice(["Give me {n} tips for {t}{w}.", "List {n} tips on {t}{w}.", "What are {n} good tips for {t}{w}?"]).format(n=WORDS[n], t=t, w="," + w if w else "")
    return q, f"Here are {WORDS[n]} tips{w} on {t}.\n" + "\n".join(f"{i + 1}. {s}" for i, s in enumerate(r.sample(TIPS[t], n))) + "\n" + r.choice(["Start with one of them today.", "Take it step by step.", "Small steps are enough."]), f"tips {t} {n} {who}"


def lists(r):
    c, n = r.choice(list(LISTS)), r.randint(2, 6)
    xs = r.sample(LISTS[c], n)
    q = r.choice([f"Name {WORDS[n]} {c}.", f"List {WORDS[n]} {c}.", f"Tell me {WORDS[n]} {c}."])
    return q, (f"{cap(WORDS[n])} {c} are {', '.join(xs[:-1])} and {xs[-1]}." if r.random() < 0.5 else f"Here are {WORDS[n]} {c}.\n" + "\n".join(f"{i + 1}. {x}" for i, x in enumerate(xs))), f"list {c} {n}"


# ---------------------------------------------------------------- animals, countries
ANIMALS = {"cat": ("in houses", "meat and fish", "soft fur and sharp claws", "climbs very well"), "dog": ("in houses", "meat", "a fine nose", "is loyal to people"), "rabbit": ("in meadows", "grass and carrots", "long ears", "jumps fast"), "tiger": ("in forests", "meat", "stripes and large teeth", "is very strong"), "elephant": ("on the plains", "grass and leaves", "a long trunk", "lifts heavy things"), "penguin": ("on cold coasts", "fish", "a black back and a white belly", "swims very well"), "eagle": ("in the mountains", "small animals", "large wings", "flies very high"),
           "giraffe": ("on the plains", "leaves of tall trees", "a long neck", "sees very far"), "bear": ("in forests", "berries and fish", "thick fur", "sleeps through the winter"), "whale": ("in the sea", "small fish", "a huge body", "sings under water"), "horse": ("on the plains", "grass", "long legs and a mane", "runs for a long time"), "turtle": ("near the water", "plants", "a hard shell", "lives very long"), "squirrel": ("in trees", "nuts", "a bushy tail", "jumps from branch to branch"), "cow": ("on farms", "grass", "a large body and horns", "gives milk")}
COUNTRIES = {"Korea": ("Seoul", "Asia", "kimchi and its own alphabet"), "Japan": ("Tokyo", "Asia", "sushi and cherry blossoms"), "China": ("Beijing", "Asia", "the Great Wall"), "France": ("Paris", "Europe", "the Eiffel Tower"), "Germany": ("Berlin", "Europe", "cars and castles"), "Italy": ("Rome", "Europe", "pizza and old ruins"), "Spain": ("Madrid", "Europe", "dance and football"), "the United Kingdom": ("London", "Europe", "tea and Big Ben"), "Canada": ("Ottawa", "North America", "maple trees and lakes"), "Brazil": ("Brasilia", "South America", "football and the Amazon"),
             "Egypt": ("Cairo", "Africa", "the pyramids"), "Australia": ("Canberra", "Oceania", "kangaroos"), "Thailand": ("Bangkok", "Asia", "temples and noodles"), "Vietnam": ("Hanoi", "Asia", "noodle soup"), "India": ("New Delhi", "Asia", "the Taj Mahal and curry"), "Greece": ("Athens", "Europe", "temples and olives"), "Mexico": ("Mexico City", "North America", "tacos and old pyramids"), "Norway": ("Oslo", "Europe", "fjords and snow")}


def an(x):
    return ("an " if x[0] in "aeiou" else "a ") + x


def compare(r):
    a, b = r.sample(list(ANIMALS), 2)
    x, y = ANIMALS[a], ANIMALS[b]
    rows = [f"{cap(an(a))} lives {x[0]}, and {an(b)} lives {y[0]}." if x[0] != y[0] else f"Both live {x[0]}.", f"{cap(an(a))} eats {x[1]}, while {an(b)} eats {y[1]}.", f"{cap(an(a))} has {x[2]}, but {an(b)} has {y[2]}."]
    q = r.choice(["What is the difference between {x} and {y}?", "Compare {x} and {y}.", "How do {x} and {y} differ?"]).format(x=an(a), y=an(b))
    return q, (f"Here is a comparison of {an(a)} and {an(b)}.\n" + "\n".join(f"{i + 1}. {s}" for i, s in enumerate(rows)) if r.random() < 0.5 else " ".join(rows)), f"cmp {a} {b}"


def animal(r):
    a, who = r.choice(list(ANIMALS)), r.choice(list(AUDIENCE))
    h, f, body, can = ANIMALS[a]
    q = f"Describe {an(a)} to {who}." if who else r.choice([f"Describe {an(a)}.", f"Tell me about {an(a)}.", f"What is {an(a)}?"])
    return q, " ".join(x for x in [AUDIENCE[who].replace("explain it", "describe it"), f"{cap(an(a))} lives {h}.", f"It eats {f}.", f"It has {body} and {can}.", r.choice(END)] if x), f"animal {a} {who}"


def country(r):
    if r.random() < 0.6:
        a, b = r.sample(list(COUNTRIES), 2)
        return r.choice([f"What are the capitals of {a} and {b}?", f"Name the capitals of {a} and {b}."]), f"The capital of {a} is {COUNTRIES[a][0]}, and the capital of {b} is {COUNTRIES[b][0]}.", f"capital {a} {b}"
    a, n = r.choice(list(COUNTRIES)), r.choice(NAMES)
    c, cont, known = COUNTRIES[a]
    return r.choice([f"I am {n}. What is the capital of {a}?", f"My name is {n}. Tell me about {a}."]), f"{n}, the capital of {a} is {c}. {cap(a)} lies in {cont} and is known for {known}.", f"country {a} {n}"


# ---------------------------------------------------------------- letters, stories, gifts
LETTER = {
    "a birthday": (["Happy birthday!", "I wish you a very happy birthday."], ["May the new year of your life be full of joy.", "I hope all your wishes come true."], ["Let us eat cake together soon.", "I have a small present for you."]),
    "saying thank you": (["Thank you so much for your help.", "I want to thank you from my heart."], ["Without you I could not have finished in time.", "Your kind words gave me strength."], ["Next time I will help you.", "I would like to invite you to dinner."]),
    "saying sorry": (["I am very sorry that I was late.", "Please forgive me for being late yesterday."], ["I should have left home earlier.", "I did not think of the traffic."], ["It will not happen again.", "Next time I will be there first."]),
    "a wedding": (["Congratulations on your wedding!", "I was so happy to hear your news."], ["I wish you both a life full of love.", "May your home always be warm."], ["I look forward to the big day.", "I will be there with flowers."]),
    "an invitation to dinner": (["I would like to invite you to dinner.", "We moved to a new home and want to see you."], ["I will cook something good.", "There will be soup, bread and a cake."], ["Please tell me if you can come.", "Just bring yourself."]),
    "good luck in an exam": (["Your exam is coming soon.", "I know that you have studied hard."], ["Stay calm and you will do well.", "Breathe deeply and trust yourself."], ["I am cheering for you.", "Let us celebrate afterwards."]),
    "a farewell": (["Next month I will move to another town.", "It is hard to say goodbye."], ["I will never forget our time together.", "Thank you for all the good days."], ["Please visit me in my new home.", "I will write to you often."]),
}
RELATION = ["friend", "teacher", "neighbour", "colleague", "cousin", "aunt", "uncle"]


def letter(r):
    k, rel, n, me = r.choice(list(LETTER)), r.choice(RELATION), r.choice(NAMES), r.choice(NAMES)
    q = r.choice(["Write a short letter to my {r} {n} for {k}.", "Please write a note to my {r} {n}. It is about {k}.", "Help me write to my {r} {n} about {k}."]).format(r=rel, n=n, k=k)
    q += f" My name is {me}."
    return q, f"Dear {n},\n\n" + " ".join(r.choice(x) for x in LETTER[k]) + f"\n\n{r.choice(['Yours', 'Best wishes', 'With love'])},\n{me}", f"letter {k} {rel} {n} {me}"


DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
HOURS = ["9 am", "10 am", "11 am", "1 pm", "2 pm", "3 pm", "4 pm"]


def mail(r):
    d, e, h, g, t = r.choice(DAYS[:5]), r.choice(DAYS[:5]), r.choice(HOURS), r.choice(HOURS), r.choice(["the sales team", "the design team", "the developers", "the whole office", "the support team"])
    k = r.randrange(3)
    if k == 0:
        q, s, b = f"Write an e-mail to {t}: the meeting moves from {d} {h} to {e} {g}.", "New time for the meeting", f"the meeting planned for {d} at {h} will take place on {e} at {g}. Please tell me if you cannot come."
    elif k == 1:
        q, s, b = f"Write an e-mail to {t} asking for a day off on {d}.", "Day off", f"I would like to take a day off on {d}. I will finish my tasks before that day."
    else:
        q, s, b = f"Write an e-mail to {t} inviting them to a meeting on {d} at {h}.", "Invitation to a meeting", f"I would like to invite you to a meeting on {d} at {h}. I look forward to seeing you."
    return q, f"Subject: {s}\n\nDear all,\n\n{b}\n\n{r.choice(['Best regards', 'Thank you', 'Kind regards'])}", f"mail {k} {d} {h} {t}"


HEROES = {"rabbit": "white", "fox": "clever", "bear": "calm", "squirrel": "busy", "cat": "curious", "turtle": "slow", "sparrow": "cheerful", "puppy": "brave", "mouse": "tiny", "deer": "shy"}
SETTING = {"forest": "in a deep forest", "beach": "on a quiet beach", "mountain": "on a high mountain", "village": "in a small village", "garden": "in a garden full of flowers", "snow": "in a land of snow"}
THEME = {"friendship": (["met a lost {b}", "found a {b} that was crying"], ["The {a} took the {b} home by the hand.", "The {a} shared its food with the {b}."], ["From that day on they were best friends.", "They learned that friends stay close in hard times."]),
         "courage": (["saw a {b} fall into the river", "heard a {b} call for help in the storm"], ["The {a} was afraid, but it threw a branch and pulled the {b} out.", "The {a} trembled and still ran to help the {b}."], ["Everyone praised the courage of the {a}.", "Even a small heart can be brave."]),
         "honesty": (["found a treasure that a {b} had lost", "found a bag of nuts that belonged to a {b}"], ["The {a} thought for a while and gave it back.", "The {a} wanted to keep it but went to see the {b}."], ["The {b} was so happy that it gave half of it away.", "An honest heart was the greatest treasure."]),
         "patience": (["wanted to sing like the {b}", "wanted to run like the {b}"], ["The {a} practised every morning with the {b}.", "The {a} fell down and got up again."], ["After a year it did better than anyone.", "No effort had been wasted."]),
         "kindness": (["met a hungry {b}", "met a {b} that was freezing"], ["The {a} cooked a warm soup for the {b}.", "The {a} gave the {b} a place by the fire."], ["In spring the {b} came back with flowers.", "Sharing made both of them warm."])}


def story(r):
    a, b = r.sample(list(HEROES), 2)
    p, t = r.choice(list(SETTING)), r.choice(list(THEME))
    x, y, z = (r.choice(s) for s in THEME[t])
    q = r.choice(["Write a short story about {t} with a {a} and a {b}. It takes place {s}.", "Tell me a story of a {a} and a {b} {s}. The theme is {t}."])
    s = [f"Once upon a time {HEROES[a]} {{a}} lived {SETTING[p]}.".replace(HEROES[a], an(HEROES[a])), r.choice(["One day", "One bright morning", "On a cold evening"]) + f" the {{a}} {x}.", y, r.choice(["The {b} smiled with shining eyes.", "The {b} said thank you again and again.", "The {b} was deeply moved."]), z]
    f = lambda u: u.replace("{a}", a).replace("{b}", b).replace("{t}", t).replace("{s}", SETTING[p])
    return f(q), f(" ".join(s)), f"story {a} {b} {p} {t}"


GIFTS = {"mother": ["a bunch of flowers", "a scarf", "a tea cup"], "father": ["a wallet", "a hat for hiking", "good tea"], "friend": ["a book", "a mug", "a candle"], "brother": ["a ball", "a pencil case", "a game"], "teacher": ["a letter by hand", "a good pen", "a plant"], "grandmother": ["a warm blanket", "a photo album", "woollen gloves"]}
OCC = {"birthday": "Add a card with birthday wishes.", "graduation": "Tell them how proud you are.", "Christmas": "Wrap it in bright paper.", "anniversary": "Write down a memory you share.", "farewell": "Write your new address on a card."}


def gift(r):
    w, o, d = r.choice(list(GIFTS)), r.choice(list(OCC)), r.randint(1, 9) * 10
    xs = r.sample(GIFTS[w], 3)
    return r.choice([f"Suggest a {o} present for my {w} for {d} dollars.", f"What {o} present can I give to my {w}? I have {d} dollars."]), f"For {d} dollars you can find a nice {o} present for your {w}. You could choose {xs[0]}. {cap(xs[1])} is a good idea, too. Or think of {xs[2]}. {OCC[o]}", f"gift {w} {o} {d}"


def weekday(r):
    d, n = r.randrange(7), r.randint(1, 9)
    return r.choice([f"If today is {DAYS[d]}, what day is it in {n} days?", f"Today is {DAYS[d]}. Which day comes {n} days later?"]).replace(" 1 days", " 1 day"), f"{cap(str(n))} {'day' if n == 1 else 'days'} after {DAYS[d]} it is {DAYS[(d + n) % 7]}.", f"week {d} {n}"


HELLO = {"Hello": "Hello! Nice to meet you.", "Hello!": "Hello! How are you today?", "Hi": "Hi there!", "Good morning": "Good morning! I hope you slept well.", "Thank you": "You are welcome.", "Thanks": "You are welcome. I am glad to help.", "Who are you?": "I am the komt demo model.", "Good night": "Good night and sweet dreams.", "Help me": "Of course, I am happy to help.", "What can you do?": "I am a very small demo model, but I know a few things."}


def hello(r):
    q = r.choice(list(HELLO))
    return q, HELLO[q] + " " + r.choice(OFFER), "hello"


TASKS = [(hello, 1), (travel, 9), (recipe, 4), (why, 3), (greet, 3), (arithmetic, 4), (tips, 5), (lists, 2), (compare, 3), (animal, 2), (country, 3), (letter, 4), (mail, 2), (story, 4), (gift, 2), (weekday, 1)]
