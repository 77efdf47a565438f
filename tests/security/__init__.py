"""Who must not get in, what must not get out, and whose word is not believed."""
