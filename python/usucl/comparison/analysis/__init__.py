"""What can be said: the figures of every arm and their differences, with intervals."""
