"""The audit of a night: what came of it is looked up where it must stand, whatever the ledger says."""
