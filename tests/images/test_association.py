"""Which source belongs to which object, and what is known of an object."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompt_processing.images.association import associate, before, summarise

ARCSEC = 1 / 3600


def sources(*rows):
    return pd.DataFrame(rows, columns=["diaSourceId", "ra", "dec"])


def objects(*rows):
    return pd.DataFrame(rows, columns=["diaObjectId", "ra", "dec"])


def test_a_source_joins_the_object_that_is_near_and_founds_one_where_there_is_none():
    found = associate(
        sources((101, 10.0, 0.0), (102, 10.1, 0.0)), objects((7, 10.0 + 0.5 * ARCSEC, 0.0)), radius=1.0
    )
    assert found["diaObjectId"].tolist() == [7, 102]


def test_of_two_sources_the_nearer_one_gets_the_object():
    found = associate(
        sources((101, 10.0 + 0.8 * ARCSEC, 0.0), (102, 10.0 + 0.3 * ARCSEC, 0.0)),
        objects((7, 10.0, 0.0)),
        radius=1.0,
    )
    assert found["diaObjectId"].tolist() == [101, 7]


def test_without_objects_or_sources_nothing_breaks():
    assert associate(sources((101, 10.0, 0.0)), objects(), radius=1.0)["diaObjectId"].tolist() == [101]
    assert associate(sources(), objects((7, 10.0, 0.0)), radius=1.0).empty


def test_the_sky_closes_at_360_degrees():
    found = associate(sources((1, 0.1 * ARCSEC, 0.0)), objects((7, 360 - 0.1 * ARCSEC, 0.0)), radius=1.0)
    assert found["diaObjectId"].tolist() == [7]


positions = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=0, max_size=12, unique=True)


@given(positions, positions, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(new, known, random):
    table = sources(*((100 + i, 10 + 0.4 * x * ARCSEC, 0.4 * y * ARCSEC) for i, (x, y) in enumerate(new)))
    old = objects(*((i, 10 + 0.4 * x * ARCSEC, 0.4 * y * ARCSEC) for i, (x, y) in enumerate(known)))
    expected = associate(table, old, radius=1.0).set_index("diaSourceId")["diaObjectId"]
    shuffled = [frame.sample(frac=1, random_state=random.randrange(2**31)) for frame in (table, old)]
    found = associate(*shuffled, radius=1.0).set_index("diaSourceId")["diaObjectId"]
    assert found.sort_index().tolist() == expected.tolist()
    # No object takes two sources.
    assert found.is_unique


def history(*rows):
    columns = ["diaSourceId", "diaObjectId", "midpointMjdTai", "psfFlux", "psfFluxErr", "ra"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(
        dec=1.0, raErr=0.1 * ARCSEC, decErr=0.1 * ARCSEC, band="r", scienceFlux=1.0, scienceFluxErr=1.0
    )


def forced(*rows):
    columns = ["diaObjectId", "psfFlux", "psfFluxErr"]
    return pd.DataFrame(rows, columns=columns).assign(band="r", scienceFlux=50.0, scienceFluxErr=2.0)


def test_an_object_is_the_sum_of_its_sources():
    row = (
        summarise(
            history(
                (1, 7, 100.0, 10.0, 1.0, 10.0), (2, 7, 102.0, 30.0, 2.0, 10.0), (3, 8, 102.0, 5.0, 1.0, 11.0)
            ),
            forced((7, 12.0, 1.0), (7, 14.0, 1.0)),
        )
        .set_index("diaObjectId")
        .loc[7]
    )
    assert row["nDiaSources"] == 2
    assert (row["firstDiaSourceMjdTai"], row["lastDiaSourceMjdTai"]) == (100.0, 102.0)
    # Weights 1 and 1/4: (10 + 30/4) / (5/4) and (5/4)**-1/2.
    assert row["r_psfFluxMean"] == pytest.approx(14.0)
    assert row["r_psfFluxMeanErr"] == pytest.approx(0.8**0.5)
    assert row["r_psfFluxSigma"] == pytest.approx(200**0.5)
    assert (row["r_psfFluxMin"], row["r_psfFluxMax"], row["r_psfFluxNdata"]) == (10.0, 30.0, 2)
    assert row["r_psfFluxMaxSlope"] == pytest.approx(10.0)
    assert row["r_fpFluxMean"] == pytest.approx(13.0)
    assert row["r_scienceFluxMean"] == pytest.approx(50.0)
    assert np.isnan(row["g_psfFluxMean"])
    assert row["g_psfFluxNdata"] == 0


def test_the_mean_position_of_sources_on_both_sides_of_the_zero_meridian_is_between_them():
    row = summarise(
        history((1, 7, 1.0, 1.0, 1.0, 360 - ARCSEC), (2, 7, 2.0, 1.0, 1.0, 3 * ARCSEC)), forced()
    ).iloc[0]
    assert row["ra"] == pytest.approx(ARCSEC, abs=1e-9)


@given(st.permutations(range(5)))
def test_a_summary_does_not_depend_on_the_order_in_which_sources_came(order):
    table = history(*((i, 7, 100.0 + i, 10.0 * i, 1.0, 10.0) for i in range(5)))
    pd.testing.assert_frame_equal(
        summarise(table.iloc[list(order)], forced()), summarise(table, forced()), check_exact=True
    )


def test_history_ends_before_the_visit():
    table = history((1, 7, 100.0, 1.0, 1.0, 10.0), (2, 7, 101.0, 1.0, 1.0, 10.0))
    assert before(table, 101.0)["diaSourceId"].tolist() == [1]


def test_of_no_sources_there_are_no_objects_but_all_columns():
    empty = summarise(history(), forced())
    assert len(empty) == 0
    assert {"diaObjectId", "r_psfFluxMean", "y_psfFluxNdata"} <= set(empty.columns)
