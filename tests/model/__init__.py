"""A small world around the real verbs of tasks, and a search through every state it can get into."""
