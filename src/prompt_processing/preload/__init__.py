"""Everything that is fetched before the image arrives."""
