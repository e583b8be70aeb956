"""Show the coverage of lines and branches by room, from the JSON report of coverage."""

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

COUNTED: Final = ("covered_lines", "num_statements", "covered_branches", "num_branches")


def by_room(files: Mapping[str, Any]) -> dict[str, Counter[str]]:
    """Return the counts of each room.

    Parameters
    ----------
    files
        Section ``files`` of the report.
    """
    rooms: dict[str, Counter[str]] = defaultdict(Counter)
    for name, file in files.items():
        below = Path(name).parts[Path(name).parts.index("prompt_processing") + 1 :]
        room = below[0] if len(below) > 1 else "(no room)"
        rooms[room].update({count: file["summary"][count] for count in COUNTED})
    return dict(sorted(rooms.items()))


def table(rooms: Mapping[str, Counter[str]]) -> str:
    """Return one line for each room, in percent, and one for all of them."""
    lines = [f"{'room':<14}{'lines':>8}{'branches':>10}{'both':>8}"]
    for room, counts in [*rooms.items(), ("all", sum(rooms.values(), Counter()))]:
        covered = counts["covered_lines"] + counts["covered_branches"]
        shares = (
            _percent(counts["covered_lines"], counts["num_statements"]),
            _percent(counts["covered_branches"], counts["num_branches"]),
            _percent(covered, counts["num_statements"] + counts["num_branches"]),
        )
        lines.append(f"{room:<14}{shares[0]:>8.1f}{shares[1]:>10.1f}{shares[2]:>8.1f}")
    return "\n".join(lines)


def _percent(covered: int, of: int) -> float:
    return 100.0 * covered / of if of else 100.0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Show the coverage of each room.")
    parser.add_argument("report", type=Path, help="coverage.json")
    print(table(by_room(json.loads(parser.parse_args().report.read_text())["files"])))
