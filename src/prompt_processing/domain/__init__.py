"""Plain models of the field: visits, raws, ids, outcomes, errors, clock; imports nothing of ours."""
