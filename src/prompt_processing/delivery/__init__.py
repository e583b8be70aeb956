"""What leaves the system: alerts, metrics, products."""
