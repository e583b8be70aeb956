"""The observatory's side: raws into a landing store, and a night played as camera and scheduler would."""
