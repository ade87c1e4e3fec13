"""Online code length: against closed forms of codes whose probabilities are known."""

import math

import pytest
import torch
from scipy.special import gammaln

from utils.probes.codelength import DEFAULT_FRACTIONS, online_codelength


class Fixed:
    """A probe that says the same of every row."""

    def __init__(self, probabilities):
        self.log = torch.tensor(probabilities).log()

    def log_prob(self, x):
        return self.log.expand(*x.shape[:-1], -1)


class Planted:
    """The true posterior where column 0 is the class, told wrongly with probability `noise`."""

    def __init__(self, noise):
        self.noise = noise

    def log_prob(self, x):
        one = torch.where(x[..., 0] > 0.5, 1 - self.noise, self.noise)
        return torch.stack([1 - one, one], -1).log()


def rows(n, seed=0, classes=2):
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (n,), generator=generator)
    return torch.cat([y[:, None].float(), torch.arange(n)[:, None]], -1), y


def test_cost_of_a_known_distribution():
    x, y = rows(800, classes=3)
    q = [0.5, 0.3, 0.2]
    code = online_codelength(x, y, lambda x, y: Fixed(q), fractions=(0.25, 0.5, 1.0))
    assert code.ends == (200, 400, 800)
    assert code.uniform_bits == pytest.approx(800 * math.log2(3))
    assert code.per_block[0] == pytest.approx(200 * math.log2(3), rel=1e-5)
    assert code.bits == pytest.approx(float(code.per_block.sum()), rel=1e-5)
    sent = online_codelength(x, y, lambda x, y: Fixed(q), fractions=(0.25, 1.0))
    assert sent.bits == pytest.approx(float(code.bits), rel=1e-5)
    uniform = online_codelength(x, y, lambda x, y: Fixed([1 / 3] * 3))
    assert uniform.compression == pytest.approx(1, rel=1e-5)


def test_laplace_rule_sent_row_by_row_has_its_closed_form():
    x, y = rows(60)
    first = []

    def laplace(x, y):
        counts = torch.bincount(y, minlength=2)
        first.append(counts)
        return Fixed(((counts + 1) / (len(y) + 2)).tolist())

    ends = [i / 60 for i in range(1, 61)]
    code = online_codelength(x, y, laplace, fractions=ends, min_block=1)
    start = first[0].double()
    total = torch.bincount(y).double()

    def log_sequential(counts):  # nats of all sequences with these counts under Laplace's rule, together
        return float(gammaln(counts.numpy() + 1).sum() - gammaln(counts.numpy().sum() + 2))

    expected = start.sum() - (log_sequential(total) - log_sequential(start)) / math.log(2)
    assert code.bits == pytest.approx(float(expected), rel=1e-5)


def test_last_block_costs_the_entropy_of_the_noise():
    x, y = rows(20_000)
    flips = torch.rand(20_000, generator=torch.Generator().manual_seed(5)) < 0.1
    code = online_codelength(x, torch.where(flips, 1 - y, y), lambda x, y: Planted(0.1))
    entropy = -(0.1 * math.log2(0.1) + 0.9 * math.log2(0.9))
    assert code.bits_per_row[-1] == pytest.approx(entropy, abs=0.02)
    assert code.bits_per_row[0] == pytest.approx(1)
    assert code.compression == pytest.approx(20_000 / float(code.bits))


def test_each_block_is_coded_by_a_probe_of_all_rows_before_and_of_no_other():
    x, y = rows(500)
    x = x.repeat(3, 1, 1)
    fitted, coded = [], []

    class Spy(Fixed):
        def log_prob(self, x):
            coded.append(x)
            return super().log_prob(x)

    def fit(x, y):
        assert torch.equal(x[:, :, 0], y.float().expand(3, -1))  # rows and labels are permuted together
        fitted.append(x[0, :, 1])
        return Spy([0.5, 0.5])

    code = online_codelength(x, y, fit)
    assert [len(rows) for rows in fitted] == list(code.ends[:-1])
    for before, block, end in zip(fitted, coded, code.ends[1:], strict=True):
        assert len(before) + block.shape[1] == end
        assert not set(before.tolist()) & set(block[0, :, 1].tolist())
    everything = torch.cat([fitted[-1], coded[-1][0, :, 1]])
    assert sorted(everything.tolist()) == list(range(500))
    assert everything.tolist() != list(range(500))


def test_blocks_follow_the_paper_where_rows_are_many_and_merge_where_few():
    x, y = rows(40_000)
    code = online_codelength(x, y, lambda x, y: Fixed([0.5, 0.5]))
    assert code.ends == tuple(round(f * 40_000) for f in DEFAULT_FRACTIONS)
    x, y = rows(600)
    assert online_codelength(x, y, lambda x, y: Fixed([0.5, 0.5])).ends == (10, 38, 75, 150, 300, 600)


def test_the_first_block_waits_for_every_class():
    n = 400
    y = torch.zeros(n, dtype=torch.long)
    y[:12] = 1
    x = torch.stack([y, torch.arange(n)], -1).float()
    seen = []

    def fit(x, y):
        seen.append(set(y.tolist()))
        return Fixed([0.5, 0.5])

    starts = {online_codelength(x, y, fit, seed=seed).ends[0] for seed in range(8)}
    assert seen
    assert all(classes == {0, 1} for classes in seen)
    assert len(starts) > 1


def test_probes_of_this_package_learn_and_sites_are_independent():
    from utils.probes.logistic import fit_multinomial

    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 400, 8, generator=generator), torch.randint(3, (400,), generator=generator)
    x[0] += 6 * torch.eye(3, 8)[y]

    def fit(x, y):
        return fit_multinomial(x, y, C=0.1)

    code = online_codelength(x, y, fit)
    assert code.compression[0] > 2.5
    assert 0.8 < code.compression[1] < 1.1
    assert code.bits[0] == pytest.approx(float(online_codelength(x[0], y, fit).bits), rel=1e-3)


def test_seed_decides_the_order_and_the_global_state_is_left_alone():
    x, y = rows(300)

    def order(seed):
        orders = []
        online_codelength(x, y, lambda x, y: orders.append(x[:, 1]) or Fixed([0.5, 0.5]), seed=seed)
        return orders[-1]

    before = torch.random.get_rng_state()
    assert torch.equal(order(0), order(0))
    assert not torch.equal(order(0), order(1))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": torch.full((100, 2), torch.nan)}, "x holds 200 NaN"),
        ({"y": torch.arange(99) % 2}, "y has shape"),
        ({"y": torch.ones(100, dtype=torch.long)}, "y has one class only"),
        ({"y": torch.arange(100)}, "no first block"),
        ({"n_classes": 2, "y": torch.arange(100) % 3}, "n_classes is 2"),
        ({"n_classes": 3}, "expected .* 3"),
        ({"fit": lambda x, y: Fixed([1.0, 0.0])}, "probability 0"),
        ({"fit": lambda x, y: Fixed([0.5, 0.4])}, "no log-probability"),
        ({"fractions": (0.5, 0.25, 1.0)}, "fractions is"),
        ({"fractions": (0.5, 0.9)}, "fractions is"),
        ({"min_block": 60}, "no first block"),
    ],
)
def test_bad_input_is_named(changes, message):
    arguments = {"x": torch.rand(100, 2), "y": torch.arange(100) % 2, "fit": lambda x, y: Fixed([0.5, 0.5])} | changes
    with pytest.raises(ValueError, match=message):
        online_codelength(arguments.pop("x"), arguments.pop("y"), arguments.pop("fit"), **arguments)
