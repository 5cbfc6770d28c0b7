"""Hand-written English questions with answers of three grades."""

# (two phrasings of a question, a full answer, a partial answer, the same subject but no answer)
TOPICS: tuple[tuple[tuple[str, str], str, str, str], ...] = (
    (
        ("How do I reset a forgotten email password?", "I can't remember my mail password"),
        "Open the sign-in page, choose 'Forgot password', and follow the link that is sent to "
        "your recovery address to set a new password.",
        "Passwords are changed on the account's security page.",
        "A good password is long, and used for one account only.",
    ),
    (
        ("How long can cooked rice be kept in the fridge?", "Is four-day-old boiled rice safe?"),
        "Cooked rice keeps for three to four days in a closed box in the fridge; cool it within "
        "an hour and throw it away after the fourth day.",
        "Put left-over rice into the fridge soon, because bacteria grow in it at room temperature.",
        "Rinse rice two or three times before cooking so that the grains do not stick.",
    ),
    (
        ("What should I do when my car will not start?", "The engine clicks but won't turn over"),
        "If the engine only clicks, the battery is probably flat: jump-start it with cables, and "
        "have the alternator tested if it happens again.",
        "A car that does not start often has a weak battery, especially on cold mornings.",
        "Have the engine oil changed once a year or every 15,000 kilometres.",
    ),
    (
        ("How often should I water a cactus?", "Watering schedule for cacti indoors"),
        "Water a cactus every two weeks in summer and about once a month in winter, and only when "
        "the soil is dry all the way down.",
        "Cacti store water and need far less of it than other house plants.",
        "Cacti grow best on a south-facing window sill with plenty of sun.",
    ),
    (
        ("Can I return shoes I bought online?", "Sending back an online order of shoes"),
        "Shoes bought online can be sent back within 14 days if they are unworn: print the return "
        "label, put them in the original box, and the money is refunded within a week.",
        "Online orders may be returned within two weeks of delivery.",
        "Leather shoes last longer when they are cleaned and waxed every month.",
    ),
    (
        ("How do I lower my heating bill in winter?", "Ways to save on heating costs"),
        "Turn the thermostat down by one degree, seal draughty windows and lower the temperature "
        "at night: together this saves up to 15 percent of the heating costs.",
        "Sealing gaps around windows and doors keeps warm air in the house.",
        "Gas boilers must be inspected every year by a qualified technician.",
    ),
    (
        ("What is the fastest way to the airport?", "How can I get to the airport quickly?"),
        "The express train from Central Station is fastest: it runs every 15 minutes and reaches "
        "the airport in 22 minutes.",
        "Bus 80 also goes to the airport, but takes about an hour.",
        "At the airport, hand luggage may weigh at most eight kilograms.",
    ),
    (
        ("How can I fall asleep more easily?", "Tips against lying awake at night"),
        "Go to bed at the same hour every day, put screens away an hour before, drink no coffee "
        "after noon, and keep the bedroom cool and dark.",
        "Coffee in the afternoon may keep you awake at night.",
        "Adults sleep seven hours a night on average, and teenagers about nine.",
    ),
    (
        ("How do I remove red wine from a carpet?", "Red wine stain on the rug, what helps?"),
        "Dab the wine up at once with a clean cloth, cover the stain with salt or baking soda, let "
        "it draw for ten minutes and rinse with cold water.",
        "Blot a fresh stain instead of rubbing it, or it goes deeper into the carpet.",
        "Red wine is served at about 17 degrees, in large glasses.",
    ),
    (
        ("What documents do I need to renew a passport?", "Papers required for passport renewal"),
        "To renew a passport bring the old passport, one recent biometric photo, proof of address "
        "and the fee to your appointment at the citizens' office.",
        "A passport photo must not be older than six months.",
        "An adult's passport is valid for ten years, a child's for five.",
    ),
    (
        ("How do I back up the photos on my phone?", "Saving phone pictures somewhere safe"),
        "Switch on automatic upload in the photo app's settings to copy every picture to the "
        "cloud, or connect the phone by cable and copy the camera folder to a disk.",
        "Photos can be copied to a computer over a USB cable.",
        "In poor light, phone pictures get sharper if the phone is leaned against something.",
    ),
    (
        ("What is the difference between a virus and a bacterium?", "Viruses versus bacteria"),
        "Bacteria are living cells that multiply by themselves and are killed by antibiotics; "
        "viruses are much smaller, multiply only inside a host's cells, and antibiotics do not "
        "act on them.",
        "Antibiotics work against bacteria but not against viruses.",
        "Washing hands with soap for twenty seconds prevents many infections.",
    ),
    (
        ("How do I start learning the guitar?", "First steps on guitar for a beginner"),
        "Begin with an acoustic guitar and three chords, G, C and D; practise changing between "
        "them slowly for 15 minutes a day, then play simple songs.",
        "Short daily practice teaches an instrument better than one long session a week.",
        "Electric guitars need an amplifier, acoustic ones do not.",
    ),
    (
        ("How much tip is usual in a restaurant?", "What percentage should I tip a waiter?"),
        "In a restaurant a tip of 10 percent is usual if the service was good; in some countries "
        "it is on the bill already as a service charge.",
        "Look whether the bill holds a service charge before you leave a tip.",
        "On Friday evenings it is wise to reserve a table in a restaurant.",
    ),
    (
        ("How can I speed up an old laptop?", "My old notebook computer is slow"),
        "An old laptop gains most from a solid-state drive and more memory; after that, remove "
        "programs that start by themselves and free some disk space.",
        "Programs that start by themselves slow down a computer's boot.",
        "A laptop's battery lasts longest when kept between 20 and 80 percent.",
    ),
    (
        ("When is the best time to plant tomatoes?", "Which month should tomatoes go outside?"),
        "Plant tomatoes outside in mid-May, when nights stay above ten degrees and no frost is "
        "expected; sow them indoors eight weeks earlier.",
        "Tomato seedlings do not survive frost.",
        "Tomatoes taste better when they are not kept in the fridge.",
    ),
    (
        ("How do I cancel my gym membership?", "Ending a fitness studio contract"),
        "Cancel a gym membership in writing one month before the contract ends, by letter or in "
        "the studio's app, and ask for a confirmation.",
        "Most gym contracts run on for a year if they are not cancelled in time.",
        "Two sessions a week in the gym are enough to build muscle.",
    ),
    (
        ("Why is the sky blue?", "What makes the daytime sky look blue?"),
        "Air molecules scatter short blue waves of sunlight far more strongly than long red ones, "
        "so blue light reaches the eye from every part of the sky.",
        "Sunlight is a mixture of all colours, and air does not treat them alike.",
        "Weather forecasts for the next day are right nine times out of ten.",
    ),
    (
        ("How do I teach a puppy not to bite?", "My young dog nips hands while playing"),
        "When the puppy bites, stop playing at once and turn away; offer it a chew toy instead, "
        "and praise it when it takes that.",
        "Puppies bite less when they have toys to chew while their teeth grow.",
        "Puppies are vaccinated for the first time at eight weeks.",
    ),
    (
        ("How do I file my tax return online?", "Submitting income tax over the internet"),
        "Register at the tax office's portal, fill in the income tax form, attach the statement "
        "from your employer and submit it by the end of July.",
        "The tax return is due by the end of July.",
        "Value added tax is included in the prices of shops.",
    ),
)
