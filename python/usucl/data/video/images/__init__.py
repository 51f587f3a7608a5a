"""Videos of still images: folders with one image per frame, and files of several pictures."""
