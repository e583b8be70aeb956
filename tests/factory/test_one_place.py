"""One place opens stores: `prompt_processing.factory.stores`."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "src" / "prompt_processing"
PLACE = SOURCES / "factory" / "stores.py"
ROOMS = ("apdb", "ledger", "messaging", "delivery")
"""Rooms with a module of ports."""
BY_HAND = {"Arrivals", "Overrides"}
"""Stores of which there is one kind only: they have no port."""
ALLOWED = {
    # The audit compares pointers with raws, and is no part of a night's flow.
    ("audit/landing.py", "Arrivals"),
    # Hints inside one process, from its pipe: nothing is opened, and no setting picks it.
    ("worker/engine_process.py", "MemoryHints"),
    # Read models are below the factory, and open their stores until they are handed them.
    ("views/alerts.py", "AlertArchive"),
    ("views/collect.py", "DecisionStore"),
    ("views/collect.py", "SqlApdb"),
    ("views/collect.py", "SqlLedger"),
}


def classes(module: Path) -> dict[str, set[str]]:
    """Return the methods that everybody may call of each class in a module."""
    return {
        node.name: {
            item.name
            for item in node.body
            if isinstance(item, ast.FunctionDef) and not item.name.startswith("_")
        }
        for node in ast.parse(module.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    }


def adapters() -> set[str]:
    """Return the classes that have all methods of a port."""
    found = set(BY_HAND)
    for room in ROOMS:
        tree = ast.parse((SOURCES / room / "port.py").read_text(encoding="utf-8"))
        protocols = {
            node.name
            for node in tree.body
            if isinstance(node, ast.ClassDef) and any(ast.unparse(base) == "Protocol" for base in node.bases)
        }
        ports = [
            methods for name, methods in classes(SOURCES / room / "port.py").items() if name in protocols
        ]
        for module in (SOURCES / room).glob("*.py"):
            if module.name != "port.py":
                found |= {
                    name for name, own in classes(module).items() if any(methods <= own for methods in ports)
                }
    return found


def constructions(names: set[str]) -> Iterator[tuple[str, str]]:
    """Yield each module, relative to the package, and the adapter that it makes."""
    for module in [*SOURCES.rglob("*.py"), *(ROOT / "services").rglob("*.py")]:
        if module == PLACE:
            continue
        where = str(module.relative_to(SOURCES if module.is_relative_to(SOURCES) else ROOT))
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func).rpartition(".")[2]
                if name in names:
                    yield where, name


def test_adapters_are_found():
    expected = {
        "SqlLedger",
        "SqlApdb",
        "AlertArchive",
        "DecisionStore",
        "FolderMetrics",
        "ButlerProducts",
        "PubSubPublisher",
        "PubSubQueue",
        "PubSubHints",
        "SqlQueue",
        "RedisPublisher",
        "WebhookPublisher",
        "KafkaPublisher",
        "Lines",
        "Nowhere",
    }
    assert expected <= adapters()


def test_adapters_are_made_in_one_place():
    assert set(constructions(adapters())) == ALLOWED
