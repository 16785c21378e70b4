"""Looking at a meta-dataset: the numbers against what is known, the pictures for every shape, the page."""

import re
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny_metadataset

from metahpo_jax.errors import ConfigError
from metahpo_jax.evaluation import survey
from metahpo_jax.evaluation.importance import importance, leaves, tree_importance
from metahpo_jax.evaluation.summaries import (
    curves,
    density,
    descriptor_components,
    importances,
    pair_discrepancy,
    rank_correlations,
    similar_together,
)

FIGURES = (
    survey.learning_curves_figure,
    survey.importance_figure,
    survey.coverage_figure,
    survey.descriptors_figure,
    survey.rank_correlation_figure,
)


def tree(x, y, **settings):
    from sklearn.tree import DecisionTreeRegressor

    return DecisionTreeRegressor(random_state=0, **settings).fit(x, y)


# --- importance ------------------------------------------------------------------------------------------------------


def test_importance_of_steps_is_exact():
    grid = np.stack(np.meshgrid(*[np.linspace(0.05, 0.95, 10)] * 3), axis=-1).reshape(-1, 3)
    steps = 4.0 * (grid[:, 0] > 0.5) + 2.0 * (grid[:, 1] > 0.5) + 0.0 * grid[:, 2]
    # Variances of the steps are 4 and 1, and there is no interaction.
    np.testing.assert_allclose(tree_importance(tree(grid, steps)), [0.8, 0.2, 0.0], atol=1e-12)
    product = steps + 4.0 * (grid[:, 0] > 0.5) * (grid[:, 1] > 0.5)
    # 4 a + 2 b + 4 ab with a and b of mean 1/2 and variance 1/4: main effects (4 + 2) a and (2 + 2) b, and 4 (1/4)(1/4).
    np.testing.assert_allclose(tree_importance(tree(grid, product)), np.array([9.0, 4.0, 0.0]) / 14.0, atol=1e-12)


def test_importance_agrees_with_sampling_the_tree():
    rng = np.random.default_rng(0)
    x = rng.random((200, 3))
    fitted = tree(x, np.sin(6 * x[:, 0]) * x[:, 1] + x[:, 2] ** 2)
    fine = (np.arange(60) + 0.5) / 60
    others = rng.random((3000, 3))
    total = fitted.predict(rng.random((100_000, 3))).var()
    for d, share in enumerate(tree_importance(fitted)):
        points = np.repeat(others[None], len(fine), axis=0)
        points[:, :, d] = fine[:, None]
        marginal = fitted.predict(points.reshape(-1, 3)).reshape(len(fine), -1).mean(axis=1)
        assert share == pytest.approx(marginal.var() / total, abs=0.02)


def test_leaves_fill_the_unit_cube_and_predict_like_the_tree():
    rng = np.random.default_rng(1)
    fitted = tree(rng.random((100, 4)), rng.random(100))
    low, high, value = leaves(fitted)
    assert (high - low).prod(axis=1).sum() == pytest.approx(1.0)
    points = rng.random((500, 4))
    inside = ((points[:, None] > low) & (points[:, None] <= high)).all(axis=-1)
    assert (inside.sum(axis=1) == 1).all()
    np.testing.assert_allclose(value[inside.argmax(axis=1)], fitted.predict(points))


def test_importance_of_an_additive_function_finds_its_shares():
    x = np.random.default_rng(2).random((1500, 4))
    slopes = np.array([4.0, 2.0, 1.0, 0.0])
    found = importance(x, x @ slopes)
    np.testing.assert_allclose(found.main, slopes**2 / (slopes**2).sum(), atol=0.03)
    assert found.explained > 0.95


def test_importance_of_noise_is_told_by_what_the_forest_predicts():
    rng = np.random.default_rng(3)
    assert importance(rng.random((150, 3)), rng.random(150)).explained < 0.2


def test_a_constant_loss_has_no_importance():
    found = importance(np.random.default_rng(0).random((30, 2)), np.ones(30))
    assert np.isnan(found.main).all() and np.isnan(found.explained)


def test_importances_know_the_learning_rate():
    found = importances(tiny_metadataset(tasks=2, configs=96))
    assert found.main.shape == (2, 4)
    assert (found.main.argmax(axis=1) == 0).all()


# --- curves, coverage, likeness --------------------------------------------------------------------------------------


def test_curves_are_shares_of_the_prior_and_count_failures():
    meta = tiny_metadataset(tasks=3, configs=16, points=3)
    drawn = curves(meta)
    assert drawn.best.shape == (3, 3)
    np.testing.assert_allclose(drawn.failed, np.tile([0.0, 1 / 16, 1 / 16], (3, 1)))
    prior = np.array([task.prior_entropy for task in meta.tasks])
    np.testing.assert_allclose(drawn.best[:, -1] * prior, np.nanmin(meta.valid_loss[:, :, -1], axis=1), rtol=1e-6)
    np.testing.assert_allclose(drawn.median[:, -1] * prior, np.median(meta.objective(), axis=1), rtol=1e-6)
    ordered = np.stack([drawn.best, drawn.lower, drawn.median, drawn.upper])
    assert (np.diff(ordered, axis=0) >= 0).all() and ordered.max() <= 1


def test_density_is_one_where_configurations_are_uniform():
    meta = tiny_metadataset(tasks=1, configs=64)
    u = meta.u.copy()
    u[:, 0] = (np.arange(64) + 0.5) / 64
    u[:, 2] = np.where(np.arange(64) < 16, 0.25, 0.75)
    meta = replace(meta, u=u)
    np.testing.assert_allclose(density(meta, "learning_rate"), np.ones(16))
    np.testing.assert_allclose(density(meta, "optimiser"), [0.5, 1.5])
    assert len(density(meta, "width")) == 16


def test_pairs_of_a_sequence_are_more_even_than_random_ones():
    from scipy.stats import qmc

    meta = tiny_metadataset(tasks=1, configs=64)
    even = qmc.Sobol(4, rng=0).random(64).astype(np.float32)
    ratio = pair_discrepancy(replace(meta, u=np.asarray(meta.space.snap(jnp.asarray(even)))))
    np.testing.assert_array_equal(ratio, ratio.T)
    assert ratio[0, 0] < 0.1 and ratio[0, 1] < 0.5
    clumped = pair_discrepancy(replace(meta, u=np.asarray(meta.space.snap(jnp.asarray(0.2 * even)))))
    assert clumped[0, 0] > 2


def test_components_are_those_of_a_principal_component_analysis():
    from sklearn.decomposition import PCA

    meta = tiny_metadataset(tasks=6)
    values = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    tasks = tuple(replace(task, descriptor=row) for task, row in zip(meta.tasks, values, strict=True))
    found = descriptor_components(replace(meta, tasks=tasks))
    scaled = (values - values.mean(axis=0)) / values.std(axis=0)
    pca = PCA(2)
    scores = pca.fit_transform(scaled)
    np.testing.assert_allclose(np.abs(found.scores), np.abs(scores), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.share, pca.explained_variance_ratio_, rtol=1e-4)
    np.testing.assert_allclose(np.abs(found.loadings), np.abs(np.asarray(pca.components_)), atol=1e-4)


def test_components_stand_missing_and_constant_descriptors():
    found = descriptor_components(tiny_metadataset())  # the second is 0.5 wherever it is known
    assert np.isfinite(found.scores).all()
    np.testing.assert_allclose(found.loadings[:, 1], 0.0, atol=1e-12)
    assert found.share.sum() == pytest.approx(1.0)


def test_rank_correlations_are_spearmans():
    from scipy.stats import spearmanr

    meta = tiny_metadataset(tasks=4, configs=24)
    found = rank_correlations(meta)
    known, _ = spearmanr(meta.objective(), axis=1)
    np.testing.assert_allclose(found, np.asarray(known), atol=1e-12)
    flat = meta.valid_loss.copy()
    flat[2] = 0.5
    flat = rank_correlations(replace(meta, valid_loss=np.where(np.isnan(meta.valid_loss), np.nan, flat)))
    assert np.isfinite(flat[:2, :2]).all()


def test_similar_tasks_stand_together():
    group = np.array([0, 1, 0, 1, 0, 1])
    correlation = np.where(group[:, None] == group, 0.9, 0.1)
    np.fill_diagonal(correlation, 1.0)
    assert np.abs(np.diff(group[similar_together(correlation)])).sum() == 1
    assert sorted(similar_together(np.full((4, 4), np.nan))) == [0, 1, 2, 3]


# --- pictures and the page -------------------------------------------------------------------------------------------


def constant_metadataset():
    meta = tiny_metadataset(tasks=3, configs=12)
    return replace(meta, valid_loss=np.full_like(meta.valid_loss, np.nan), status=np.full_like(meta.status, 3))


@pytest.mark.parametrize("draw", FIGURES, ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    "meta",
    [
        tiny_metadataset(tasks=1, configs=12, points=1),
        tiny_metadataset(tasks=2, configs=2),
        tiny_metadataset(tasks=7, configs=16),
        constant_metadataset(),
    ],
    ids=["one task", "two configurations", "seven tasks", "nothing learned"],
)
def test_every_figure_can_be_drawn_of_every_shape(draw, meta):
    from metahpo_jax.evaluation.plots import figure_svg

    svg = figure_svg(draw(meta), "x")
    assert svg.startswith("<svg") and "<image" not in svg, "the policy of a page shows no bitmaps"


def test_many_tasks_are_drawn_without_their_names():
    meta = tiny_metadataset(tasks=survey.MANY_NAMES + 1, configs=8)
    axes = survey.rank_correlation_figure(meta).axes[0]
    assert axes.get_xlabel() == f"{survey.MANY_NAMES + 1} tasks" and len(axes.get_xticks()) == 0


def test_the_page_says_a_sentence_about_every_picture(tmp_path):
    meta = tiny_metadataset(configs=32)
    tasks = (replace(meta.tasks[0], name="<b>$bold$"), *meta.tasks[1:])
    survey.write_survey(tmp_path / "look.html", replace(meta, tasks=tasks))
    page = (tmp_path / "look.html").read_text()
    headings = re.findall("<h2>(.*?)</h2>", page)
    assert headings == [section.heading for section in survey.survey(meta)]
    assert page.count("<svg") == page.count("<figure") == len(FIGURES)
    notes = re.findall('<p class="note">(.*?)</p>', page)
    assert len(notes) == len(FIGURES) and all(note.endswith(".") and "nan" not in note for note in notes)
    assert "learning_rate alone explains" in page
    assert "&lt;b&gt;$bold$" in page and "<b>$bold$" not in page
    assert not re.search(r'(?:src|href)="(?!#)', page)


def test_a_page_of_nothing_learned_is_still_a_page(tmp_path):
    survey.write_survey(tmp_path / "look.html", constant_metadataset())
    assert "nan" not in "".join(re.findall('<p class="note">(.*?)</p>', (tmp_path / "look.html").read_text()))


def test_a_page_ends_in_html(tmp_path):
    with pytest.raises(ConfigError, match=r"\.html"):
        survey.write_survey(tmp_path / "look.txt", tiny_metadataset())
