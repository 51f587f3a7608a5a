"""What an encoder is worth on patients that were held out, and what is kept of it."""
