/// What demo people say.
enum Phrases {
    static let openers = [
        "Morning! Who broke the coffee machine?",
        "The night run is through. No surprises.",
        "I found the bug. It was the one line I was proud of.",
        "Does anyone have the slides from yesterday?",
        "Lunch at half past twelve?",
        "I moved the review to three, the room was taken.",
        "Reading the old logs again. They are better than the documentation.",
        "We should write down why we did it that way, before we forget.",
        "Pushed a small change, have a look when you have a minute.",
        "My train is late, start without me.",
        "The graph is flat. I like flat graphs.",
        "Is it only me, or is it very quiet today?",
        "Tried it with ten times the load: it did not even notice.",
        "Who is around this afternoon?",
        "There is cake in the kitchen. There was, I mean.",
    ]

    static let answers = [
        "Yes, of course.",
        "Give me five minutes.",
        "That explains a lot.",
        "Ha! I thought so.",
        "Not me, I was not even here.",
        "Sounds good to me.",
        "Let me check and come back to you.",
        "Good catch, thank you!",
        "I would rather do it tomorrow, with fresh eyes.",
        "👍",
        "Same here.",
        "Can you show me?",
        "Already on it.",
        "Which one do you mean?",
        "Nice.",
    ]
}
