"""What is asked: the arms, their options in common, the videos with their labels and folds."""
