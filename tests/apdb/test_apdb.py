"""What every APDB promises, on each of them."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from lsst.dax.apdb import ApdbSql, ApdbSqlConfig
from lsst.sphgeom import Angle, Circle, LonLat, UnitVector3d
from sqlalchemy import event, text

from prompt_processing.apdb.memory import MemoryApdb
from prompt_processing.apdb.sql import SqlApdb, init
from prompt_processing.apdb.tables import columns, conform, empty
from prompt_processing.domain.errors import ConflictError, RepositoryError
from prompt_processing.storage import database

NIGHT = 61115.0
FIELD = (0.001, -30.0)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """An empty APDB file; making one takes a while."""
    path = tmp_path_factory.mktemp("apdb") / "new" / "apdb.sqlite3"
    init(f"sqlite:///{path}")
    return path


@pytest.fixture(params=["memory", "sqlite"])
def apdb(request, tmp_path, prepared):
    if request.param == "memory":
        return MemoryApdb()
    path = tmp_path / "apdb.sqlite3"
    path.write_bytes(prepared.read_bytes())
    return SqlApdb(f"sqlite:///{path}")


def field(radius=0.05):
    return Circle(UnitVector3d(LonLat.fromDegrees(*FIELD)), Angle.fromDegrees(radius))


def sources(visit, time, ids, object_ids, **columns):
    """Sources close to the field's centre, with the columns that must be there."""
    count = len(ids)
    return pd.DataFrame(
        {
            "diaSourceId": np.array(ids, dtype=np.int64),
            "visit": visit,
            "detector": 0,
            "diaObjectId": pd.array(object_ids, dtype="Int64"),
            "midpointMjdTai": time,
            "ra": FIELD[0] + 1e-4 * np.arange(count),
            "dec": FIELD[1],
            "x": 10.0,
            "y": 20.0,
            "bboxSize": 30,
            "timeProcessedMjdTai": time + 0.001,
            "psfFlux": 123.4567891,
            "psfFluxErr": np.nan,
            "centroid_flag": pd.array([True] + [None] * (count - 1), dtype="boolean"),
            "band": "r",
            **columns,
        }
    )


def objects(ids, **columns):
    return pd.DataFrame(
        {
            "diaObjectId": np.array(ids, dtype=np.int64),
            "ra": FIELD[0],
            "dec": FIELD[1],
            "nDiaSources": 1,
            **columns,
        }
    )


def forced(visit, time, ids, object_ids, **columns):
    return pd.DataFrame(
        {
            "diaForcedSourceId": np.array(ids, dtype=np.int64),
            "diaObjectId": np.array(object_ids, dtype=np.int64),
            "visit": visit,
            "detector": 0,
            "ra": FIELD[0],
            "dec": FIELD[1],
            "midpointMjdTai": time,
            "timeProcessedMjdTai": time + 0.001,
            "psfFlux": 1.0,
            **columns,
        }
    )


def store_visit(apdb, visit, time, object_ids, *, first_id=None, **columns):
    first_id = visit * 1000 if first_id is None else first_id
    ids = [first_id + rank for rank in range(len(object_ids))]
    apdb.store(
        time,
        objects(object_ids, **columns),
        sources(visit, time, ids, object_ids),
        forced(visit, time, ids, object_ids),
    )


def test_rows_come_back_as_they_were_stored(apdb):
    given = sources(1, NIGHT, [2**62 + 1, 2**62 + 2], [2**62 + 1, None])
    apdb.store(NIGHT, objects([2**62 + 1]), given, empty("DiaForcedSource"))
    found = apdb.visit_sources(1, 0)
    pd.testing.assert_frame_equal(found, conform("DiaSource", given), check_exact=True)
    assert found["psfFlux"].iloc[0] == np.float32(123.4567891)
    assert found["diaObjectId"].tolist() == [2**62 + 1, pd.NA]
    assert found["centroid_flag"].tolist() == [True, pd.NA]
    assert apdb.contains(1, 0)
    assert not apdb.contains(1, 1)
    assert not apdb.contains(2, 0)


def test_a_field_that_was_never_seen_has_no_history(apdb):
    history = apdb.history(field(), NIGHT)
    for table, name in ((history.objects, "DiaObject"), (history.sources, "DiaSource")):
        pd.testing.assert_frame_equal(table, empty(name))
    assert len(history.forced) == 0


def test_history_ends_at_the_visit(apdb):
    store_visit(apdb, 1, NIGHT, [10], nDiaSources=1)
    store_visit(apdb, 2, NIGHT + 1, [10, 11], nDiaSources=[2, 1])
    before = apdb.history(field(), NIGHT)
    assert len(before.objects) == len(before.sources) == len(before.forced) == 0
    between = apdb.history(field(), NIGHT + 1)
    assert between.objects["diaObjectId"].tolist() == [10]
    assert between.objects["nDiaSources"].tolist() == [1]
    assert between.objects["validityStartMjdTai"].tolist() == [NIGHT]
    assert between.sources["diaSourceId"].tolist() == [1000]
    assert between.forced["diaForcedSourceId"].tolist() == [1000]
    after = apdb.history(field(), NIGHT + 2)
    assert after.objects["nDiaSources"].tolist() == [2, 1]
    assert after.sources["diaSourceId"].tolist() == [1000, 2000, 2001]
    assert [column.name for column in columns("DiaObject")] == list(after.objects.columns)


def test_history_is_twelve_months_long(apdb):
    store_visit(apdb, 1, NIGHT, [10])
    store_visit(apdb, 2, NIGHT + 300, [10])
    recent = apdb.history(field(), NIGHT + 360)
    assert recent.sources["visit"].tolist() == [1, 2]
    old = apdb.history(field(), NIGHT + 361)
    assert old.sources["visit"].tolist() == [2]
    assert old.forced["visit"].tolist() == [2]
    assert old.objects["diaObjectId"].tolist() == [10]
    assert apdb.light_curve(10).sources["visit"].tolist() == [1, 2]


def test_history_is_of_the_region(apdb):
    # The field lies across RA 0; the last object is outside, but close enough to share its pixels.
    ra = [359.99, 0.04, 0.001, 0.001]
    dec = [-30.0, -30.0, -30.0499, -30.0501]
    apdb.store(
        NIGHT,
        objects([1, 2, 3, 4], ra=ra, dec=dec),
        sources(1, NIGHT, [1, 2, 3, 4], [1, 2, 3, 4], ra=ra, dec=dec),
        forced(1, NIGHT, [1, 2, 3, 4], [1, 2, 3, 4], ra=ra, dec=dec),
    )
    history = apdb.history(field(), NIGHT + 1)
    assert history.objects["diaObjectId"].tolist() == [1, 2, 3]
    assert history.sources["diaSourceId"].tolist() == [1, 2, 3]
    assert history.forced["diaObjectId"].tolist() == [1, 2, 3]


def test_a_repeat_changes_nothing(apdb):
    store_visit(apdb, 1, NIGHT, [10, 11])
    once = apdb.history(field(), NIGHT + 1)
    store_visit(apdb, 1, NIGHT, [10, 11])
    again = apdb.history(field(), NIGHT + 1)
    for name in ("objects", "sources", "forced"):
        pd.testing.assert_frame_equal(getattr(again, name), getattr(once, name), check_exact=True)


def test_a_repeat_after_a_later_visit_changes_nothing(apdb):
    store_visit(apdb, 1, NIGHT, [10], nDiaSources=1)
    store_visit(apdb, 2, NIGHT + 1, [10], nDiaSources=2)
    once = apdb.history(field(), NIGHT + 2)
    store_visit(apdb, 1, NIGHT, [10], nDiaSources=1)
    pd.testing.assert_frame_equal(apdb.history(field(), NIGHT + 2).objects, once.objects, check_exact=True)


@pytest.mark.parametrize("which", ["sources", "forced"])
def test_other_rows_under_the_same_key_are_a_conflict(apdb, which):
    store_visit(apdb, 1, NIGHT, [10])
    rows = {
        "objects": objects([10, 12]),
        "sources": sources(1, NIGHT, [1000, 1001], [10, 12]),
        "forced": forced(1, NIGHT, [1000, 1001], [10, 12]),
    }
    rows[which] = rows[which].assign(ra=[FIELD[0] + 1e-9, FIELD[0]])
    with pytest.raises(ConflictError, match=r"10.* columns: ra is"):
        apdb.store(NIGHT, **rows)
    # Nothing of it is stored, not even what was new.
    assert apdb.history(field(), NIGHT + 1).objects["diaObjectId"].tolist() == [10]
    assert apdb.visit_sources(1, 0)["diaSourceId"].tolist() == [1000]


def test_the_same_id_twice_in_one_visit_is_a_conflict(apdb):
    with pytest.raises(ConflictError):
        apdb.store(
            NIGHT,
            objects([10, 11]),
            sources(1, NIGHT, [5, 5], [10, 11]),
            empty("DiaForcedSource"),
        )
    assert not apdb.contains(1, 0)


def test_a_late_visit_goes_in_between_and_renews_the_summaries_after_it(apdb):
    store_visit(apdb, 1, NIGHT, [10], nDiaSources=1)
    store_visit(apdb, 3, NIGHT + 2, [10], nDiaSources=2)
    store_visit(apdb, 2, NIGHT + 1, [10], nDiaSources=2)
    newest = apdb.history(field(), NIGHT + 3).objects
    assert newest["validityStartMjdTai"].tolist() == [NIGHT + 2]
    assert newest["validityEndMjdTai"].isna().all()
    assert newest["nDiaSources"].tolist() == newest["r_psfFluxNdata"].tolist() == [3]
    assert newest["lastDiaSourceMjdTai"].tolist() == [NIGHT + 2]
    between = apdb.history(field(), NIGHT + 1.5).objects
    assert between["nDiaSources"].tolist() == [2]
    assert between["validityEndMjdTai"].tolist() == [NIGHT + 2]
    first = apdb.history(field(), NIGHT + 0.5).objects
    assert first["nDiaSources"].tolist() == [1]
    assert first["validityEndMjdTai"].tolist() == [NIGHT + 1]
    # Its measurements count from now on.
    assert apdb.history(field(), NIGHT + 3).sources["visit"].tolist() == [1, 2, 3]


@pytest.mark.parametrize("order", list(itertools.permutations([1, 2, 3])))
def test_the_order_in_which_visits_are_stored_does_not_matter(apdb, order):
    """Each visit was processed at the same time as the others, and knew none of them."""
    for visit in order:
        store_visit(apdb, visit, NIGHT + visit, [10], nDiaSources=1, ra=FIELD[0] + 0.001 * visit)
    versions = [apdb.history(field(), NIGHT + visit + 0.5).objects for visit in (1, 2, 3)]
    # The newest says all; older ones are as if the visits had come one after the other.
    assert [version["nDiaSources"].item() for version in versions] == [1, 2, 3]
    assert versions[2]["ra"].item() == pytest.approx(FIELD[0])


def test_a_repeat_after_a_late_visit_is_no_conflict(apdb):
    store_visit(apdb, 3, NIGHT + 2, [10], nDiaSources=1)
    store_visit(apdb, 2, NIGHT + 1, [10], nDiaSources=1)
    once = apdb.history(field(), NIGHT + 3)
    store_visit(apdb, 3, NIGHT + 2, [10], nDiaSources=1)
    again = apdb.history(field(), NIGHT + 3)
    pd.testing.assert_frame_equal(again.objects, once.objects, check_exact=True)
    assert once.objects["nDiaSources"].tolist() == [2]


def blocked_or_done(url, future):
    """Wait until a transaction waits for another one's lock, or a store has come to its end."""
    watcher = database.engine(url)
    query = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    try:
        while not future.done():
            with watcher.begin() as connection:
                if connection.execute(query).scalar_one():
                    return
    finally:
        watcher.dispose()


@pytest.mark.parametrize("order", [(2, 3), (3, 2)])
def test_two_visits_of_one_field_stored_at_once_wait_for_each_other(postgres_url, order):
    init(postgres_url)
    before = SqlApdb(postgres_url)
    store_visit(before, 1, NIGHT + 1, [10])
    engine = database.engine(postgres_url)
    inserting, go_on = threading.Event(), threading.Event()

    @event.listens_for(engine, "before_cursor_execute")
    def pause(_connection, _cursor, statement, *_):
        # The first visit knows the versions that stand, and has not yet written its own.
        if statement.startswith("UPDATE") and not inserting.is_set():
            inserting.set()
            assert go_on.wait(60.0)

    first, second = order
    with ThreadPoolExecutor(2) as pool:
        stored = pool.submit(store_visit, SqlApdb(postgres_url, engine=engine), first, NIGHT + first, [10])
        assert inserting.wait(60.0)
        other = pool.submit(store_visit, SqlApdb(postgres_url), second, NIGHT + second, [10])
        blocked_or_done(postgres_url, other)
        go_on.set()
        stored.result(60.0)
        other.result(60.0)
    engine.dispose()
    versions = before.rows("DiaObject", NIGHT, NIGHT + 10)
    assert versions["validityStartMjdTai"].tolist() == [NIGHT + 1, NIGHT + 2, NIGHT + 3]
    assert versions["validityEndMjdTai"].tolist()[:2] == [NIGHT + 2, NIGHT + 3]
    assert versions["validityEndMjdTai"].isna().tolist() == [False, False, True]
    assert versions["nDiaSources"].tolist() == [1, 2, 3]
    assert before.history(field(), NIGHT + 9).objects["nDiaSources"].tolist() == [3]


def test_a_light_curve_is_in_order_of_time(apdb):
    store_visit(apdb, 3, NIGHT + 2, [10])
    store_visit(apdb, 1, NIGHT, [10, 11])
    curve = apdb.light_curve(10)
    assert curve.sources["midpointMjdTai"].tolist() == [NIGHT, NIGHT + 2]
    assert curve.forced["visit"].tolist() == [1, 3]
    assert len(apdb.light_curve(99).sources) == 0


def test_a_wrong_column_is_named_and_nothing_is_stored(apdb):
    good = sources(1, NIGHT, [1], [10])
    for bad, name in (
        (good.drop(columns="ra"), "DiaSource.ra"),
        (good.assign(ra=np.nan), "DiaSource.ra"),
        (good.assign(psfFlux="bright"), "DiaSource.psfFlux"),
        (good.assign(speed=1.0), "speed"),
        (good.assign(diaObjectId=float(2**60)), "DiaSource.diaObjectId"),
    ):
        with pytest.raises(RepositoryError, match=name):
            apdb.store(NIGHT, objects([10]), bad, empty("DiaForcedSource"))
    assert not apdb.contains(1, 0)
    assert len(apdb.history(field(), NIGHT + 1).objects) == 0


def test_the_stock_package_reads_what_was_stored(tmp_path):
    url = f"sqlite:///{tmp_path}/apdb.sqlite3"
    init(url)
    apdb = SqlApdb(url)
    store_visit(apdb, 3, NIGHT + 2, [10], nDiaSources=2)
    store_visit(apdb, 1, NIGHT, [10, 11], nDiaSources=1)
    stock = ApdbSql(ApdbSqlConfig(db_url=url))
    found = stock.getDiaObjects(field()).sort_values("diaObjectId")
    assert found["diaObjectId"].tolist() == [10, 11]
    assert found["nDiaSources"].tolist() == [2, 1]
    assert stock.containsVisitDetector(1, 0)


def test_an_apdb_must_be_made_first_and_once(tmp_path):
    url = f"sqlite:///{tmp_path}/apdb.sqlite3"
    with pytest.raises(RepositoryError, match="there is no APDB"):
        SqlApdb(url)
    (tmp_path / "apdb.sqlite3").write_bytes(b"")
    with pytest.raises(RepositoryError, match="not a usable APDB"):
        SqlApdb(url)
    with pytest.raises(RepositoryError, match="exists already"):
        init(url)


def test_counts_may_be_left_out():
    frame = conform("DiaSource", sources(1, NIGHT, [1], [10]))
    assert frame["psfNdata"].tolist() == [0]
    assert frame["dipoleNdata"].tolist() == [0]
    assert frame["isDipole"].tolist() == [pd.NA]
