"""The decision of a detector-visit: all rows and all packets, from the outputs of the pipeline."""

import pandas as pd
from astropy.time import Time

from prompt_processing.apdb.port import History
from prompt_processing.apdb.tables import TableName, conform, empty
from prompt_processing.delivery.decision import Decision
from prompt_processing.delivery.packets import AlertImages, AlertSchema, build_packets
from prompt_processing.domain.clock import mjd_tai
from prompt_processing.domain.decision import DecisionInfo
from prompt_processing.domain.visit import DetectorVisit
from prompt_processing.execution.run import Outputs


def decide(
    visit: DetectorVisit,
    *,
    attempt: int,
    pipeline: str,
    flags: tuple[str, ...],
    raws: tuple[str, ...],
    info: dict[str, float],
    outputs: Outputs,
    history: History,
    now: Time,
) -> Decision:
    """Make the decision of a detector-visit.

    Parameters
    ----------
    visit
        The unit of work.
    attempt
        Number of the attempt.
    pipeline
        Name of the pipeline.
    flags
        Flags of the outcome.
    raws
        Keys of the raws.
    info
        ``exposure``, ``visit``, ``mjd_mid_tai`` and ``mjd_end_tai`` of the first raw.
    outputs
        What the pipeline made. A pipeline without association decides nothing: no rows, no packets.
    history
        What the APDB held before.
    now
        Becomes ``timeProcessedMjdTai`` of every row.

    Raises
    ------
    RepositoryError
        If a table lacks a column that the APDB or the alert schema requires.
    """
    schema = AlertSchema.load()
    midpoint = float(info["mjd_mid_tai"])
    sources = _rows(outputs, "DiaSource", "dia_source_apdb", timeProcessedMjdTai=mjd_tai(now))
    objects = _rows(outputs, "DiaObject", "dia_object_apdb", validityStartMjdTai=midpoint)
    forced = _rows(outputs, "DiaForcedSource", "dia_forced_source_apdb", timeProcessedMjdTai=mjd_tai(now))
    packets: list[tuple[int, bytes]] = []
    if len(sources):
        packets = build_packets(
            visit_time=midpoint,
            sources=sources,
            objects=objects,
            forced=forced,
            history=history,
            images=AlertImages(
                difference=outputs.get("difference_image"),
                science=outputs.get("preliminary_visit_image"),
                template=outputs.get("template_detector"),
            ),
            schema=schema,
        )
    return Decision(
        info=DecisionInfo(
            instrument=visit.instrument,
            group=visit.groupId,
            detector=visit.detector,
            day_obs=visit.day_obs,
            exposure=int(info["exposure"]),
            visit=int(info["visit"]),
            midpoint_mjd_tai=midpoint,
            shutter_close_mjd_tai=float(info["mjd_end_tai"]),
            raws=raws,
            attempt=attempt,
            pipeline=pipeline,
            alert_schema_id=schema.schema_id,
            flags=flags,
        ),
        dia_object=objects,
        dia_source=sources,
        dia_forced_source=forced,
        packets=tuple(packets),
    )


def _rows(outputs: Outputs, table: TableName, dataset_type: str, **values: float) -> pd.DataFrame:
    """Return an output table in the APDB's form, with columns that the pipeline cannot know."""
    frame = outputs.get(dataset_type)
    return empty(table) if frame is None else conform(table, frame.assign(**values))
