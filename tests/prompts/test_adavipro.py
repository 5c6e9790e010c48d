"""Every formula of AdaViPro against a loop in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vprompt_jax.parts import Canvas, Context, Progress
from vprompt_jax.prompts import adavipro, fused_policy
from vprompt_jax.prompts.edges import EDGES, laplacian, sobel
from vprompt_jax.prompts.generator import MaskGenerator
from vprompt_jax.prompts.lean import Lean
from vprompt_jax.prompts.marks import (
    best_marks,
    dilate,
    regions_with,
    sampled_marks,
    temperature_at,
)
from vprompt_jax.prompts.vp import support

RNG = np.random.default_rng(0)


def loop_filter(x, kernel):
    """Correlation with a 3x3 kernel per channel, zeros beyond the border."""
    batch, height, width, channels = x.shape
    y = np.zeros_like(x, np.float64)
    for b in range(batch):
        for i in range(height):
            for j in range(width):
                for c in range(channels):
                    for di in (-1, 0, 1):
                        for dj in (-1, 0, 1):
                            if 0 <= i + di < height and 0 <= j + dj < width:
                                y[b, i, j, c] += kernel[di + 1][dj + 1] * x[b, i + di, j + dj, c]
    return y


def test_laplacian():
    x = RNG.normal(size=(2, 6, 5, 3)).astype(np.float32)
    expected = loop_filter(x, [[0, 1, 0], [1, -4, 1], [0, 1, 0]])
    np.testing.assert_allclose(laplacian(x), expected, rtol=1e-5, atol=1e-5)


def test_sobel():
    x = RNG.normal(size=(2, 6, 5, 3)).astype(np.float32)
    across = loop_filter(x, [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    down = loop_filter(x, [[-1, -2, -1], [0, 0, 0], [1, 2, 1]])
    np.testing.assert_allclose(sobel(x), np.hypot(across, down), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("edge", EDGES)
def test_policy_logits(edge):
    """Convergence convolution, ReLU, policy convolution of kernel and stride `region`."""
    side, region, width = 8, 4, 5
    generator = MaskGenerator(region, width, edge)
    x = RNG.normal(size=(2, side, side, 3)).astype(np.float32)
    params = generator.init(jax.random.key(0), x)
    p = jax.tree.map(np.asarray, params["params"])
    edges = np.asarray(EDGES[edge](x))
    hidden = np.zeros((2, side, side, width))
    for o in range(width):
        for c in range(3):
            kernel = p["convergence_kernel"][:, :, c, o]
            hidden[..., o] += loop_filter(edges[..., c : c + 1], kernel)[..., 0]
        hidden[..., o] += p["convergence_bias"][o]
    hidden = np.maximum(hidden, 0)
    expected = np.zeros((2, side // region, side // region, 2))
    for b, g, h, o in np.ndindex(expected.shape):
        patch = hidden[b, g * region : (g + 1) * region, h * region : (h + 1) * region]
        expected[b, g, h, o] = (patch * p["policy_kernel"][..., o]).sum() + p["policy_bias"][o]
    np.testing.assert_allclose(generator.apply(params, x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("at_once", [None, 1, 5, 100])
def test_logits_and_gradients_are_those_of_convolutions(at_once):
    """However many of the 27 regions are computed at a time."""
    x = RNG.normal(size=(3, 12, 12, 3)).astype(np.float32)
    weights = RNG.normal(size=(3, 3, 3, 2)).astype(np.float32)
    generator = MaskGenerator(4, 6, "none", at_once=at_once)
    params = generator.init(jax.random.key(0), x)["params"]

    def plain(p):
        layout = ("NHWC", "HWIO", "NHWC")
        convolve = jax.lax.conv_general_dilated
        hidden = convolve(x, p["convergence_kernel"], (1, 1), "SAME", dimension_numbers=layout)
        hidden = jax.nn.relu(hidden + p["convergence_bias"][None, None, None])
        made = convolve(hidden, p["policy_kernel"], (4, 4), "VALID", dimension_numbers=layout)
        return jnp.sum((made + p["policy_bias"][None, None, None]) * weights)

    def ours(p):
        return jnp.sum(generator.apply({"params": p}, x) * weights)

    expected, expected_gradient = jax.value_and_grad(plain)(params)
    value, gradient = jax.value_and_grad(ours)(params)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for name, leaf in expected_gradient.items():
        np.testing.assert_allclose(gradient[name], leaf, rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("bfloat16", 2e-2)])
@pytest.mark.parametrize(
    "batch, side, region, width", [(2, 32, 8, 16), (3, 12, 4, 5), (2, 14, 7, 20)]
)
def test_the_gpu_s_kernel_gives_the_same_logits_and_gradients(
    monkeypatch, batch, side, region, width, dtype, tolerance
):
    """Interpreted here; with numbers of regions, pixels and channels that fill no tile."""
    x = RNG.normal(size=(batch, side, side, 3)).astype(np.float32)
    upstream = RNG.normal(size=(batch, side // region, side // region, 2)).astype(np.float32)
    generator = MaskGenerator(region, width, "laplacian", jnp.dtype(dtype))
    params = generator.init(jax.random.key(0), x)

    def loss(params):
        logits = generator.apply(params, x)
        return jnp.sum(logits * upstream), logits

    expected_gradient, expected = jax.grad(loss, has_aux=True)(params)
    kernel = functools.partial(fused_policy.logits, interpret=True)
    monkeypatch.setattr(fused_policy.devices, "has_tensor_cores", lambda: True)
    monkeypatch.setattr(fused_policy, "logits", kernel)
    gradient, made = jax.grad(loss, has_aux=True)(params)
    np.testing.assert_allclose(made, expected, atol=tolerance)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        other = functools.reduce(lambda tree, key: tree[key.key], path, expected_gradient)
        error = np.linalg.norm(leaf - other) / np.linalg.norm(other)
        assert error < tolerance, path


def test_the_gpu_s_kernel_can_be_lowered_for_it():
    """Short of running: up to JAX 0.11 no GPU is needed to write the program for one."""
    regions = jax.ShapeDtypeStruct((98, 34, 34, 3), jnp.float32)
    shapes = (3, 3, 3, 64), (64,), (32, 32, 64, 2)
    weights = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]

    def loss(weights, regions):
        return fused_policy.logits(regions, *weights, jnp.bfloat16).sum()

    traced = jax.jit(jax.value_and_grad(loss)).trace(weights, regions)
    try:
        lowered = traced.lower(lowering_platforms=("cuda",))
    except RuntimeError as error:
        if "No supported GPU devices found" not in str(error):
            raise
        pytest.skip("this version of JAX wants to see the GPU")
    assert "triton" in lowered.as_text()


def test_marks_are_gumbel_max_and_exactly_0_or_1():
    logits = RNG.normal(size=(3, 4, 4, 2)).astype(np.float32)
    noise = RNG.gumbel(size=logits.shape).astype(np.float32)
    marks = np.asarray(sampled_marks(logits, noise, jnp.float32(0.3)))
    assert set(np.unique(marks)) == {0.0, 1.0}
    for at in np.ndindex(marks.shape):
        log_p = logits[at] - np.log(np.exp(logits[at]).sum())
        assert marks[at] == np.argmax(log_p + noise[at])


@pytest.mark.parametrize("temperature", [5.0, 0.5])
def test_straight_through_gradient_is_the_relaxations(temperature):
    logits = RNG.normal(size=(2, 3, 3, 2)).astype(np.float32)
    noise = RNG.gumbel(size=logits.shape).astype(np.float32)
    weight = RNG.normal(size=(2, 3, 3)).astype(np.float32)

    def through_marks(z):
        return (weight * sampled_marks(z, noise, temperature)).sum()

    ours = np.asarray(jax.grad(through_marks)(jnp.asarray(logits)))
    # By hand: s = softmax((log p + g) / tau)[on]; ds/dz_on = s (1 - s) / tau, ds/dz_off = -that,
    # since the normaliser of log p cancels between the two scores.
    scores = logits - np.log(np.exp(logits).sum(-1, keepdims=True)) + noise
    s = 1 / (1 + np.exp(-(scores[..., 1] - scores[..., 0]) / temperature))
    slope = weight * s * (1 - s) / temperature
    np.testing.assert_allclose(ours, np.stack([-slope, slope], -1), rtol=1e-4, atol=1e-6)


def test_marks_at_the_papers_last_temperature_are_finite():
    logits = jnp.array([[3.0, 3.0], [2.0, -9.0], [1e4, -1e4]])
    last = temperature_at(jnp.int32(999), 5.0, 0.98, 0.0)
    grad = jax.grad(lambda z: sampled_marks(z, jnp.zeros_like(z), last).sum())(logits)
    assert float(last) == pytest.approx(8.6e-9, rel=0.02)
    assert np.isfinite(np.asarray(grad)).all()


def test_inference_is_argmax_without_noise():
    logits = RNG.normal(size=(5, 4, 4, 2)).astype(np.float32)
    np.testing.assert_array_equal(best_marks(logits), np.argmax(logits, -1))


def test_dilation_repeats_each_mark_over_its_region():
    marks = RNG.integers(0, 2, (2, 3, 3)).astype(np.float32)
    pixels = np.asarray(dilate(marks, 4))
    assert pixels.shape == (2, 12, 12, 1)
    for b, i, j in np.ndindex(2, 12, 12):
        assert pixels[b, i, j, 0] == marks[b, i // 4, j // 4]


@pytest.mark.parametrize("epoch", [0, 1, 10, 100, 999])
def test_temperature_schedule_and_its_floor(epoch):
    at = temperature_at(jnp.int32(epoch), 5.0, 0.98, 0.0)
    assert float(at) == pytest.approx(5 * 0.98**epoch, rel=1e-3)
    floored = temperature_at(jnp.int32(epoch), 5.0, 0.98, 0.5)
    assert float(floored) == pytest.approx(max(5 * 0.98**epoch, 0.5), rel=1e-3)


@pytest.mark.parametrize(
    "region, width, count", [(32, 64, 132_866), (32, 8, 16_610), (16, 64, 34_562)]
)
def test_parameter_counts(region, width, count):
    shapes = jax.eval_shape(
        MaskGenerator(region, width).init,
        jax.random.key(0),
        jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32),
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count


def test_initialisation_is_torchs():
    params = MaskGenerator(8, 64).init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    for value, fan_in in [
        (params["params"]["convergence_kernel"], 27),
        (params["params"]["policy_kernel"], 8 * 8 * 64),
    ]:
        bound = fan_in**-0.5
        assert np.abs(value).max() <= bound
        assert np.abs(value).max() > 0.98 * bound
        assert float(jnp.std(value)) == pytest.approx(bound / 3**0.5, rel=0.05)


def test_24_of_49_regions_hold_a_padding_of_30_at_224():
    active = regions_with(jnp.asarray(support("padding", 30, 224))[None], 32)
    assert int(active.sum()) == 24


def test_regions_without_template_are_not_computed_and_nothing_else_changes():
    """A support that is known while the step is traced, against one that is not."""
    side, region, width = 28, 4, 8
    x = RNG.normal(size=(2, side, side, 3)).astype(np.float32)
    added = RNG.normal(size=(1, side, side, 3)).astype(np.float32)
    weight = RNG.normal(size=x.shape).astype(np.float32)
    known = support("padding", 4, side)[None]
    added = added * known[..., None]
    mask = adavipro.RegionalMask(region, width)
    params = mask.init(jax.random.key(0), x)["params"]
    values = {"temperature": jnp.float32(2)}
    context = Context(jax.random.key(1), jnp.arange(2), jnp.int32(3), values)

    def loss(params, where):
        canvas = Canvas(x, added=added, support=where)
        done = mask.apply({"params": params}, canvas, context, method="prompted")
        return jnp.sum(done.added * weight), done

    everywhere = jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(params, known).compile()
    some = jax.jit(lambda p: jax.value_and_grad(loss, has_aux=True)(p, known))
    some = some.lower(params).compile()
    (value, done), gradient = some(params)
    (expected, whole), expected_gradient = everywhere(params, known)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_array_equal(done.added, whole.added)
    np.testing.assert_array_equal(done.metrics["regions_on"], whole.metrics["regions_on"])
    for name, leaf in expected_gradient.items():
        np.testing.assert_allclose(gradient[name], leaf, rtol=1e-4, atol=1e-5, err_msg=name)
        assert np.abs(leaf).max() > 0
    logits = mask.apply({"params": params}, x, known.reshape(1, 7, 4, 7, 4).any((2, 4)))
    inner = np.array(mask.apply({"params": params}, x))
    inner[:, 1:-1, 1:-1] = 0
    np.testing.assert_allclose(logits, inner, rtol=1e-5, atol=1e-6)


def test_a_padding_leaves_half_of_the_generators_work():
    x = jax.ShapeDtypeStruct((4, 224, 224, 3), jnp.float32)
    mask = MaskGenerator(32, 8, at_once=1)
    params = jax.eval_shape(mask.init, jax.random.key(0), x)
    wanted = regions_with(support("padding", 30, 224)[None], 32)

    def loops(wanted):
        """How often the loop over groups of one region runs."""
        jaxpr = jax.make_jaxpr(lambda p, x: mask.apply(p, x, wanted))(params, x)
        return [e.params["length"] for e in jaxpr.eqns if e.primitive.name == "scan"]

    assert loops(wanted) == [4 * 24]
    assert loops(None) == [4 * 49]


def test_a_region_that_does_not_divide_names_the_nearest():
    with pytest.raises(ValueError, match=r"mask.region=30 .* 224; nearest that do: 28, 32"):
        adavipro.check_region(30, 224)


@pytest.mark.parametrize("resolution, region", [(224, 32), (336, 48), (32, 4)])
def test_default_region_is_about_a_seventh(resolution, region):
    assert adavipro.default_region(resolution) == region


def test_a_generator_that_starts_on_marks_nineteen_regions_in_twenty():
    """Only its bias differs from the published start; noise decides as it always does."""
    x = RNG.normal(size=(64, 32, 32, 3)).astype(np.float32)
    noise = jax.random.gumbel(jax.random.key(1), (64, 8, 8, 2))
    usual, on = (MaskGenerator(4, 16, starts_on=starts) for starts in (False, True))
    params = [g.init(jax.random.key(0), x)["params"] for g in (usual, on)]
    difference = jax.tree.map(lambda a, b: np.asarray(b - a), *params)
    np.testing.assert_allclose(difference.pop("policy_bias"), [-1.5, 1.5], atol=1e-6)
    assert all((leaf == 0).all() for leaf in difference.values())
    share = sampled_marks(on.apply({"params": params[1]}, x), noise, jnp.float32(5)).mean()
    assert 0.9 < share < 0.98
    assert best_marks(on.apply({"params": params[1]}, x)).mean() > 0.98


SIDE = 8
IMAGES = jnp.asarray(RNG.normal(size=(40, SIDE, SIDE, 3)).astype(np.float32))


def masked(params, values, step):
    """What a mask leaves of a prompt of ones: pixels [40, 8, 8, 3], and its metrics."""
    canvas = Canvas(
        IMAGES, added=jnp.ones((1, SIDE, SIDE, 3)), support=jnp.ones((1, SIDE, SIDE), bool)
    )
    index = jnp.arange(40, dtype=jnp.int32).at[-3:].set(-1)  # three are padding
    values = {name: jnp.float32(value) for name, value in values.items()}
    context = Context(jax.random.key(0), index, step, values)
    mask = adavipro.RegionalMask(4, 4)
    done = mask.apply({"params": params}, canvas, context, method="prompted")
    return done.added, done.metrics


@pytest.fixture(scope="module")
def generator():
    return adavipro.RegionalMask(4, 4).init(jax.random.key(2), IMAGES)["params"]


@pytest.mark.parametrize("held", [0.0, 1.0])
def test_masks_that_are_held_back_leave_the_prompt_whole(generator, held):
    """Every region is marked, and the generator gets no gradient, until the share is reached."""

    def added(params):
        pixels, metrics = masked(params, {"temperature": 5, "held": held}, jnp.int32(7))
        return pixels.sum(), metrics["regions_on"]

    (_, on), gradient = jax.value_and_grad(added, has_aux=True)(generator)
    moves = any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))
    assert moves == (not held)
    assert (on.mean() == 1) == bool(held)


def test_masks_are_held_back_and_then_drawn_for_shares_of_the_run():
    section = adavipro.MaskSection(kind="adavipro", hold=0.25, sampled=0.6)
    schedules = adavipro.PART.schedules(section)
    shares = [0.0, 0.24, 0.25, 0.59, 0.6, 0.9]
    at = [Progress(jnp.int32(0), jnp.float32(s)) for s in shares]
    assert [float(schedules["held"](p)) for p in at] == [1, 1, 0, 0, 0, 0]
    assert [float(schedules["noise"](p)) for p in at] == [1, 1, 1, 1, 0, 0]
    usual = adavipro.MaskSection(kind="adavipro")
    assert set(adavipro.PART.schedules(usual)) == {"temperature"}


def test_without_noise_the_likelier_marks_are_trained(generator):
    """As at inference, but with the relaxation's gradient."""
    values = {"temperature": 5, "noise": 0}
    ours, _ = masked(generator, values, jnp.int32(7))
    at_inference, _ = masked(generator, {}, None)
    drawn, _ = masked(generator, values | {"noise": 1}, jnp.int32(7))
    np.testing.assert_array_equal(ours, at_inference)
    assert (np.asarray(drawn) != np.asarray(ours)).any()
    gradient = jax.grad(lambda p: masked(p, values, jnp.int32(7))[0].sum())(generator)
    assert any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))


def test_exchanged_masks_are_those_of_the_next_image(generator):
    """Of the last one, the first's; padding has no part in it."""
    ours, _ = masked(generator, {}, None)
    others, _ = masked(generator, {"exchanged": 1}, None)
    assert len(np.unique(np.asarray(ours), axis=0)) > 3
    np.testing.assert_array_equal(others[:36], ours[1:37])
    np.testing.assert_array_equal(others[36], ours[0])


@pytest.mark.parametrize("tried", [0, 1])
def test_a_lean_is_found_by_trying_the_prompt_everywhere_and_nowhere(generator, tried):
    added, metrics = masked(generator, {"tried": tried}, None)
    assert (np.asarray(added) == tried).all()
    assert (np.asarray(metrics["regions_on"]) == tried).all()


def test_a_lean_takes_a_prompt_that_helps_by_more_than_a_standard_error():
    rule = Lean(0.5)
    assert [step for step in range(12) if rule.is_due(step, 4, 11)] == [6]  # the first after half
    # Without the prompt, images 0 and 1 are recognised, with it 1, 2, 3 and 4; 4 is padding.
    batch = {"label": jnp.zeros(5, int), "weight": jnp.array([1.0, 1.0, 1.0, 1.0, 0.0])}
    without, everywhere = (
        jnp.stack([jnp.array(right, float), 0.5 * jnp.ones(5)], -1)
        for right in ([1, 1, 0, 0, 0], [0, 1, 1, 1, 1])
    )
    counts = rule.counts([(without, {}), (everywhere, {})], batch)
    assert counts.tolist() == [2, 1]
    assert rule.initial(0)["lean"] == 0
    # A gain of 5 in 25 images that differ is one standard error.
    for helped, harmed, lean in ((16, 9, 3), (15, 10, -3), (9, 16, -3), (0, 0, -3)):
        assert rule.assigned(np.array([helped, harmed]))["lean"] == lean


def test_a_lean_raises_the_logit_of_on(generator):
    canvas = Canvas(IMAGES, jnp.ones((1, SIDE, SIDE, 3)), jnp.ones((1, SIDE, SIDE), bool))
    mask = adavipro.RegionalMask(4, 4)
    index = jnp.arange(40, dtype=jnp.int32)
    logits = np.asarray(mask.apply({"params": generator}, IMAGES))
    for lean in (-3.0, 0.0, 3.0):
        leaning = canvas.replace(assigned={"lean": jnp.float32(lean)})
        done = mask.apply(
            {"params": generator}, leaning, Context(jax.random.key(0), index), method="prompted"
        )
        expected = logits[..., 1] + lean > logits[..., 0]
        np.testing.assert_array_equal(done.shown["marks"], expected)
