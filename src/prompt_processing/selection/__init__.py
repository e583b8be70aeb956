"""Which pipeline for which visit: rules, and what operators override."""
