"""From the observatory's events to one message per detector, without losing any."""
