"""Finding the videos of a folder and opening those that no earlier scan has opened."""
