"""What an auditor finds in the flow in memory."""

from typing import Any

from prompt_processing.audit.evidence import (
    TABLES,
    Claimed,
    Decided,
    Evidence,
    MetricsRecord,
    Product,
    ProductType,
    fingerprint,
)
from prompt_processing.domain.clock import mjd_tai
from prompt_processing.domain.visit import DetectorVisitKey
from support.flow import World

IMAGE = ProductType("difference_image", "visit")


def evidence(world: World) -> Evidence:
    """Return everything that the world holds, with the ledger's outcomes as claims."""
    records = world.ledger.detector_visits()
    decisions = {_key(made.info): made for made in world.decisions.all()}
    now = mjd_tai(world.clock.now())
    return Evidence(
        expected=frozenset(world.announced),
        claims=tuple(Claimed.of(record) for record in records),
        surplus_outcomes=sum(world.ledger.counts().values()) - len(records),
        decisions={key: Decided.of(made) for key, made in decisions.items()},
        rows={table: world.apdb.rows(table, now - 10, now + 10) for table in TABLES},
        archived={number: fingerprint(data) for number, data in world.alerts.packets.items()},
        pipelines={"LATISS/test": frozenset({IMAGE})},
        products={
            Product(IMAGE, key[0], decisions[DetectorVisitKey(*key)].info.visit, key[2]): ("run/test",)
            for key in world.products.written
        },
        metrics={
            DetectorVisitKey(found.instrument, found.group, found.detector): (
                MetricsRecord(found.visit, None),
            )
            for found in world.metrics.metrics.values()
        },
        raws=dict(world.landed),
    )


def _key(info: Any) -> DetectorVisitKey:
    return DetectorVisitKey(info.instrument, info.group, info.detector)
