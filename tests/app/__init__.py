"""A project's app as carrot meets it: sample tasks, and a table in which they leave traces."""
