"""One script for each version; they stand alone and are never changed once they were used."""
