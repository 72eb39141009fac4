"""One thing of the operating system in each module; nothing here knows what a knock or a door is."""
