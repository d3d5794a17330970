"""Against pytorch-fid, torch-fidelity and clean-fid, with random weights. Needs the extra `parity`.

The published weights would add nothing: a network that computes the same with any weights does so with those.
"""

import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.evaluation.frechet import frechet_distance
from imagen_jax.evaluation.inception import network as inception
from imagen_jax.evaluation.inception import weights as inception_weights
from imagen_jax.evaluation.inception.features import inception_features
from imagen_jax.evaluation.inception.network import IMAGE_SIZE, TAPS, Inception
from imagen_jax.evaluation.inception.weights import load_inception
from imagen_jax.evaluation.inception_score import inception_score
from imagen_jax.evaluation.kernel_distance import kernel_distance
from imagen_jax.evaluation.precision_recall import precision_recall
from imagen_jax.resize import FLAVOURS, Flavour, half_pixel_bilinear, prepare
from imagen_jax.sampling.images import save_png
from tests.evaluation import references
from tests.evaluation.torch_files import random_tensors
from tests.mains import run

MODULES = references.import_references()
torch = MODULES["torch"]
pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

SIZES = (64, 256, 299)
# Of the largest feature of a tap.
TOLERANCE = 1e-5


def photos(count, size, *, seed):
    """Blobs of colour with noise: low frequencies, edges of the range, and what antialiasing would remove."""
    rng = np.random.default_rng(seed)
    blobs = np.kron(rng.uniform(-60, 315, (count, 4, 4, 3)), np.ones((1, -(-size // 4), -(-size // 4), 1)))
    noise = rng.normal(0, rng.uniform(5, 50, (count, 1, 1, 1)), (count, size, size, 3))
    return np.clip(blobs[:, :size, :size] + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory):
    tensors = {name: torch.from_numpy(tensor) for name, tensor in random_tensors(0).items()}
    counters = {name.replace("weight", "num_batches_tracked"): torch.tensor(3) for name in tensors if "bn.wei" in name}
    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.save(tensors | counters, path)
    return path


@pytest.fixture(scope="module")
def weights(weights_file):
    return load_inception(weights_file)


@pytest.fixture(scope="module")
def network(weights):
    """Compiled once for all sizes and flavours."""
    run = jax.jit(lambda params, x: Inception().apply({"params": params}, x))
    return lambda x, params=weights.params: jax.device_get(run(params, x))


@pytest.fixture(scope="module")
def expected(weights_file):
    """Two images of each size, and their features by tap, of each flavour."""
    images = {size: photos(2, size, seed=size) for size in SIZES}
    averages = ["64", "192", "768", "2048"]
    found = {}
    for flavour, make, taps in (
        ("tf_legacy", references.torch_fidelity, list(TAPS)),
        ("pytorch", references.pytorch_fid, averages),
        ("clean", references.clean_fid, averages),
    ):
        run = make(MODULES, weights_file, taps)
        found |= {(flavour, size): dict(zip(taps, run(images[size]), strict=True)) for size in SIZES}
    return images, found


def error(found, expected):
    """The largest, of all taps, as a share of the tap's largest feature."""
    return max(float(np.abs(found[tap] - x).max() / np.abs(x).max()) for tap, x in expected.items())


def prepared(images, flavour):
    return jax.jit(lambda x: prepare(x, flavour=flavour, size=IMAGE_SIZE))(images)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_features_are_theirs(network, expected, flavour, size):
    images, theirs = expected
    found = error(network(prepared(images[size], FLAVOURS[flavour])), theirs[flavour, size])
    print(f"{flavour} {size}: {found:.1e}")
    assert found < TOLERANCE


MISTAKES = ("scale", "half_pixels", "bfloat16", "epsilon", "counted_padding", "average_pool_in_7c")


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_comparison_sees_what_ports_get_wrong(mistake, weights, weights_file, network, expected, monkeypatch):
    legacy = FLAVOURS["tf_legacy"]
    images, theirs = expected
    run, params = network, weights.params
    if mistake == "scale":
        legacy = Flavour(legacy.weights, lambda x: x / 127.5 - 1.0)
    elif mistake == "half_pixels":
        legacy = Flavour(half_pixel_bilinear, legacy.scale)
    elif mistake == "bfloat16":
        # The least of it: the parameters alone, once.
        params = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16).astype(jnp.float32), params)
    elif mistake == "epsilon":
        monkeypatch.setattr(inception_weights, "BATCH_NORM_EPS", 1e-5)
        params = load_inception(weights_file).params
    else:
        if mistake == "counted_padding":
            monkeypatch.setattr(inception, "average_pool", lambda x: inception.nn.avg_pool(x, (3, 3), padding="SAME"))
        else:
            monkeypatch.setattr(inception, "max_pool", inception.average_pool)
        run = jax.jit(lambda x, params: Inception().apply({"params": params}, x))
    found = error(run(prepared(images[64], legacy), params), theirs["tf_legacy", 64])
    print(f"{mistake}: {found:.1e}")
    assert found > 100 * TOLERANCE


# Of 120 images against 120, of which 105 are in both.
REAL, SAMPLES = slice(0, 120), slice(15, 135)
# 192 for the two that define nothing but distances: a quarter of the network's time, and dimensions in which
# scipy.linalg.sqrtm, which they use, is quick.
CASES = {
    "tf_legacy": (references.torch_fidelity, ["2048", "logits_unbiased"]),
    "pytorch": (references.pytorch_fid, ["192"]),
    "clean": (references.clean_fid, ["192"]),
}


@pytest.fixture(scope="module", params=CASES)
def features(request, weights, weights_file):
    """(flavour, ours by tap, theirs by tap): float32 [135,width]."""
    make, taps = CASES[request.param]
    images = photos(135, 64, seed=1)
    # Far enough from the others that what their square roots lose in singular covariances is small beside it.
    images[120:] //= 3
    run = make(MODULES, weights_file, taps)
    parts = [run(images[start : start + 5]) for start in range(0, 135, 5)]
    theirs = dict(zip(taps, map(np.concatenate, zip(*parts, strict=True)), strict=True))
    extractor = inception_features(weights, resize=request.param, taps=taps, batch_size=48)
    batches = list(extractor(images))
    ours = {tap: np.concatenate([batch[tap] for batch in batches]) for tap in taps}
    return request.param, ours, theirs


def test_metrics_are_theirs(features):
    flavour, ours, theirs = features
    assert error(ours, theirs) < TOLERANCE
    found, wanted = our_metrics(ours), their_metrics(flavour, theirs)
    for name, value in wanted.items():
        print(f"{flavour} {name}: {found[name]:.8g} {value:.8g} {abs(found[name] / value - 1):.1e}")
    assert {name: found[name] for name in wanted} == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("features", ["tf_legacy"], indirect=True)
def test_the_command_measures_two_folders_with_torch_fidelitys_features(features, weights_file, tmp_path):
    _, _, theirs = features
    images = photos(135, 64, seed=1)
    images[120:] //= 3
    real, samples = slice(0, 30), slice(105, 135)
    for name, rows in (("real", real), ("samples", samples)):
        for number, image in enumerate(images[rows]):
            save_png(image, tmp_path / name / f"{number:03}.png")
    folders = (f"--images={tmp_path}/samples", f"--reference={tmp_path}/real", f"--data_dir={tmp_path}/data")
    chosen = ("--metrics=fid,kid,precision_recall,inception_score", f"--inception_weights={weights_file}")
    run("evaluate", *folders, *chosen, f"--out={tmp_path}/out")
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    # Whose own metrics the test above compares with these.
    pair = theirs["2048"][real], theirs["2048"][samples]
    precision, recall = precision_recall(*pair)
    score, deviation = inception_score(theirs["logits_unbiased"][samples], seed=0)
    suffix = f"inception_{hashlib.sha256(weights_file.read_bytes()).hexdigest()[:8]}"
    wanted = {"fd": frechet_distance(*pair), "kd": kernel_distance(*pair, seed=0).mean}
    wanted |= {"precision": precision, "recall": recall}
    wanted |= {"inception_score": score, f"inception_score_{suffix}_deviation": deviation}
    found = {name: results[name if suffix in name else f"{name}_{suffix}"] for name in wanted}
    assert found == pytest.approx(wanted, rel=1e-4)
    assert not any(key.startswith(("fid", "kid")) for key in results)
    assert results["num_samples"] == 30 and results["num_unreadable"] == 0


def our_metrics(ours):
    first = next(iter(ours.values()))
    real, samples = first[REAL], first[SAMPLES]
    found = {"frechet": frechet_distance(real, samples), "kernel": kernel_distance(real, samples, seed=0).mean}
    found["precision"], found["recall"] = precision_recall(real, samples)
    if "logits_unbiased" in ours:
        found["score"], found["score_deviation"] = inception_score(ours["logits_unbiased"], seed=None)
    return found


def their_metrics(flavour, theirs):
    """Each package's own; precision, recall and Inception Score by torch-fidelity, which alone has them."""
    first = next(iter(theirs.values())).astype(np.float64)
    real, samples = first[REAL], first[SAMPLES]
    pair = torch.from_numpy(samples), torch.from_numpy(real)
    moments = [x for part in (real, samples) for x in (part.mean(0), np.cov(part, rowvar=False))]
    kid = MODULES["torch_fidelity.metric_kid"].kid_features_to_metric
    found = {"kernel": kid(*pair, kid_subsets=3, kid_subset_size=120, verbose=False)["kernel_inception_distance_mean"]}
    if flavour == "tf_legacy":
        statistics = [dict(zip(("mu", "sigma"), moments[i : i + 2], strict=True)) for i in (0, 2)]
        fid = MODULES["torch_fidelity.metric_fid"].fid_statistics_to_metric
        found["frechet"] = fid(*statistics, False)["frechet_inception_distance"]
        scores = MODULES["torch_fidelity.metric_isc"].isc_features_to_metric
        score = scores(torch.from_numpy(theirs["logits_unbiased"]), splits=10, shuffle=False)
        found["score"], found["score_deviation"] = score.values()
    elif flavour == "pytorch":
        found["frechet"] = MODULES["pytorch_fid.fid_score"].calculate_frechet_distance(*moments)
    else:
        found["frechet"] = MODULES["cleanfid.fid"].frechet_distance(*moments)
        found["kernel"] = MODULES["cleanfid.fid"].kernel_distance(samples, real, num_subsets=3)
    manifolds = MODULES["torch_fidelity.metric_prc"].prc_features_to_metric(*pair, verbose=False)
    return found | {name: manifolds[name] for name in ("precision", "recall")}
