"""The ledger of detector-visits: one port, its SQL store and an in-memory twin."""
