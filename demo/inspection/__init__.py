"""What ``scripts/demo --check`` does: it works with the demo as people would, and says what is not as it should be."""
