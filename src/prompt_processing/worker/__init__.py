"""What happens to one detector-visit, in order."""
