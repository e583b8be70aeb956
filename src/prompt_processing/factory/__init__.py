"""What is plugged into what: builds the parts from the settings."""
