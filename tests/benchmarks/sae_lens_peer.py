"""Train a sparse autoencoder with sae-lens 6 and measure speed and quality.

    python sae_lens_peer.py ACTIVATIONS.safetensors SETTINGS.json OUT.json

Runs in an environment of its own, since sae-lens 6 needs transformer-lens below 4. ACTIVATIONS holds the float32
tensors "activations" [n, d] and "held_out" [m, d]. SETTINGS holds any of the keys of `DEFAULTS` below; unknown keys are
errors. Training is sae-lens's own `SAETrainer.fit()` on batches drawn without replacement from the activations; only
`fit()` is timed, after a warm-up run of a few steps on the same object, whose weights are then put back.

Only what has "patch" in its name leaves sae-lens's public interface; it is off unless asked for.
"""

import json
import math
import os
import sys
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path

DEFAULTS = {
    "architecture": "topk",  # topk, batchtopk, matryoshka, standard (or l1), jumprelu, gated
    "n_latents": 1024,
    "k": 8,
    "batch_size": 1024,
    "n_samples": 2_048_000,  # total training samples; rounded down to whole batches
    "lr": 1e-3,
    "lr_warm_up": 0.05,  # share of the steps
    "lr_decay": 0.3,  # share of the steps, linear to 0
    "lr_scheduler": "constant",  # before the decay
    "seed": 0,
    "threads": 1,
    "repeats": 1,  # whole trainings that are timed; all times are written, samples_per_s is the best
    "warm_up_steps": 10,  # untimed steps before each
    # sae-lens's own settings; None keeps its default
    "normalize_activations": "none",  # or expected_average_only_in, layer_norm, constant_norm_rescale, ...
    "norm_batches": 20,  # for the estimate of the mean norm or covariance (outside the time)
    "decoder_init_norm": 0.1,
    "b_dec_init": "zeros",  # zeros (sae-lens's default) or mean (of the activations; set through sae.b_dec before fit)
    "apply_b_dec_to_input": True,
    "rescale_acts_by_decoder_norm": None,  # its default: True
    "aux_loss_coefficient": None,  # its default: 1.0
    "use_sparse_activations": None,  # its default: False; topk only
    "dead_after": None,  # samples; None keeps its default of 1000 steps, whatever the batch size
    "matryoshka_widths": None,  # None: n_latents / 8, / 4, / 2, and n_latents
    "penalty": None,  # l1_coefficient (standard, gated) or l0_coefficient (jumprelu); its default: 1.0
    "penalty_warm_up": 0.2,  # share of the steps
    "architecture_options": {},  # further arguments of the architecture's config class, e.g. jumprelu_bandwidth
    # speed
    "autocast": False,  # its own setting: forward pass in bfloat16
    "compile": False,  # as its LanguageModelSAETrainingRunner does: torch.compile of sae.training_forward_pass
    "compile_mode": None,
    "patch_fused_adam": False,  # not a setting of sae-lens: its trainer builds Adam without fused=True
}


def read_settings(path):
    given = json.loads(Path(path).read_text())
    if unknown := set(given) - set(DEFAULTS):
        raise SystemExit(f"unknown settings: {sorted(unknown)}; known: {sorted(DEFAULTS)}")
    return DEFAULTS | given


def batches(activations, batch_size, seed):
    """Rows without replacement until fewer than a batch are left, then all again, endlessly."""
    drawing = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(activations), generator=drawing)
        for rows in order[: len(order) // batch_size * batch_size].split(batch_size):
            yield activations.index_select(0, rows)


def make_sae(s, activations, steps):
    """The training autoencoder of sae-lens, from a fixed seed."""
    kinds = {
        "topk": (sae_lens.TopKTrainingSAE, sae_lens.TopKTrainingSAEConfig),
        "batchtopk": (sae_lens.BatchTopKTrainingSAE, sae_lens.BatchTopKTrainingSAEConfig),
        "matryoshka": (sae_lens.MatryoshkaBatchTopKTrainingSAE, sae_lens.MatryoshkaBatchTopKTrainingSAEConfig),
        "standard": (sae_lens.StandardTrainingSAE, sae_lens.StandardTrainingSAEConfig),
        "l1": (sae_lens.StandardTrainingSAE, sae_lens.StandardTrainingSAEConfig),
        "jumprelu": (sae_lens.JumpReLUTrainingSAE, sae_lens.JumpReLUTrainingSAEConfig),
        "gated": (sae_lens.GatedTrainingSAE, sae_lens.GatedTrainingSAEConfig),
    }
    kind, config = kinds[s["architecture"]]
    options = {name: s[name] for name in ("normalize_activations", "decoder_init_norm", "apply_b_dec_to_input")}
    if "topk" in s["architecture"] or s["architecture"] == "matryoshka":
        options["k"] = s["k"]
        for name in ("rescale_acts_by_decoder_norm", "aux_loss_coefficient"):
            if s[name] is not None:
                options[name] = s[name]
        if s["use_sparse_activations"] is not None and s["architecture"] == "topk":
            options["use_sparse_activations"] = s["use_sparse_activations"]
        if s["architecture"] == "matryoshka":
            n = s["n_latents"]
            options["matryoshka_widths"] = list(s["matryoshka_widths"] or (n // 8, n // 4, n // 2, n))
    else:
        name = "l0" if s["architecture"] == "jumprelu" else "l1"
        options[f"{name}_warm_up_steps"] = int(s["penalty_warm_up"] * steps)
        if s["penalty"] is not None:
            options[f"{name}_coefficient"] = s["penalty"]
    torch.manual_seed(s["seed"])
    sae = kind(config(d_in=activations.shape[1], d_sae=s["n_latents"], **options | s["architecture_options"]))
    return sae


def make_trainer(s, sae, data, steps, **changes):
    """sae-lens's trainer with everything off that is not training."""
    batch_size = s["batch_size"]
    warm_up, decay = int(s["lr_warm_up"] * steps), int(s["lr_decay"] * steps)
    settings = {
        "total_training_samples": steps * batch_size,
        "train_batch_size_samples": batch_size,
        "lr": s["lr"],
        "lr_scheduler_name": s["lr_scheduler"],
        "lr_end": s["lr"] if s["lr_scheduler"] == "constant" else s["lr"] / 10,
        "lr_warm_up_steps": warm_up if warm_up > 1 else 0,
        "lr_decay_steps": decay,
        "autocast": s["autocast"],
        "feature_sampling_window": 2**31,  # otherwise a wandb histogram is built every 2000 steps, even without wandb
        "n_checkpoints": 0,
        "save_final_checkpoint": False,
        "n_batches_for_norm_estimate": s["norm_batches"],
        "logger": LoggingConfig(log_to_wandb=False),
    }
    if s["dead_after"] is not None:
        settings["dead_feature_window"] = max(1, math.ceil(s["dead_after"] / batch_size))
    trainer = SAETrainer(cfg=SAETrainerConfig(**settings | changes), sae=sae, data_provider=data)
    if s["patch_fused_adam"]:
        for group in trainer.optimizer.param_groups:
            group["fused"] = True
    return trainer


def estimate_norms(s, trainer, activations):
    """What fit() would do first; done beforehand so that it is outside the time. From batches of its own."""
    data = batches(activations, s["batch_size"], s["seed"] + 1)
    wanted = {"d_in": activations.shape[1], "data_provider": data, "n_batches_for_norm_estimate": s["norm_batches"]}
    if s["normalize_activations"] == "expected_average_only_in":
        trainer.activation_scaler.estimate_scaling_factor(**wanted)
    elif s["normalize_activations"] == "covariance_whitening":
        trainer.activation_scaler.estimate_whitening(**wanted)


def set_b_dec(s, sae, trainer, activations):
    """sae-lens 6 starts b_dec at zero; its older versions offered the mean and the geometric median."""
    if s["b_dec_init"] == "mean":
        with torch.no_grad():
            sae.b_dec.copy_(trainer.activation_scaler(activations[:65536]).mean(0))
    elif s["b_dec_init"] != "zeros":
        raise SystemExit("b_dec_init is zeros or mean")


def train(s, activations):
    """A trained autoencoder, its trainer and the seconds that fit() took."""
    steps = s["n_samples"] // s["batch_size"]
    sae = make_sae(s, activations, steps)
    if s["compile"]:
        sae.training_forward_pass = torch.compile(sae.training_forward_pass, mode=s["compile_mode"])
    start = {name: value.clone() for name, value in sae.state_dict().items()}
    for window in (10**9, 0):  # without and with the dead latents' loss: both are warm (and compiled)
        data = batches(activations, s["batch_size"], s["seed"])
        warm = make_trainer(
            s,
            sae,
            data,
            max(1, s["warm_up_steps"] // 2),
            lr_warm_up_steps=0,
            lr_decay_steps=0,
            dead_feature_window=window,
        )
        estimate_norms(s, warm, activations)
        warm.fit()
        sae.cfg.normalize_activations = s["normalize_activations"]  # fit() folded it into the weights
        if "rescale_acts_by_decoder_norm" in vars(sae.cfg):
            sae.cfg.rescale_acts_by_decoder_norm = s["rescale_acts_by_decoder_norm"] is not False
    sae.load_state_dict(start)
    trainer = make_trainer(s, sae, batches(activations, s["batch_size"], s["seed"]), steps)
    estimate_norms(s, trainer, activations)
    set_b_dec(s, sae, trainer, activations)
    began, cpu = time.perf_counter(), time.process_time()
    trainer.fit()
    return sae, trainer, time.perf_counter() - began, time.process_time() - cpu


def measure(sae, held_out):
    """FVU, L0 and share of latents never active, of the inference autoencoder that sae-lens saves."""
    with torch.no_grad():
        error, l0, fired = 0.0, 0.0, 0
        for x in held_out.split(8192):
            z = sae.encode(x)
            z = z.to_dense() if z.is_sparse else z
            error += (x - sae.decode(z)).double().pow(2).sum().item()
            l0 += (z != 0).sum().item()
            fired = fired + (z != 0).sum(0)
        deviation = (held_out.double() - held_out.double().mean(0)).pow(2).sum().item()
    return {"fvu": error / deviation, "l0": l0 / len(held_out), "dead_on_held_out": (fired == 0).float().mean().item()}


def main(activations_path, settings_path, out_path):
    s = read_settings(settings_path)
    tensors = load_file(activations_path)
    activations, held_out = tensors["activations"].float().contiguous(), tensors["held_out"].float().contiguous()
    steps = s["n_samples"] // s["batch_size"]
    times, cpu_times = [], []
    for _ in range(s["repeats"]):
        sae, trainer, seconds, cpu = train(s, activations)
        times.append(seconds)
        cpu_times.append(cpu)
    with tempfile.TemporaryDirectory() as folder:
        sae.save_inference_model(folder)
        inference = sae_lens.SAE.load_from_disk(folder)
    result = measure(inference, held_out)
    n = steps * s["batch_size"]
    out = {
        "samples_per_s": n / min(times),
        "samples_per_cpu_s": n / min(cpu_times),
        **result,
        "dead_by_trainer": trainer.dead_neurons.float().mean().item(),  # by its own rule, at the end
        "dead_feature_window": trainer.cfg.dead_feature_window,
        "seconds": times,
        "cpu_seconds": cpu_times,
        "steps": steps,
        "n_samples": n,
        "inference_architecture": inference.cfg.architecture(),
        "versions": {name: version(name) for name in ("sae-lens", "torch", "transformer-lens", "transformers")},
        "threads": torch.get_num_threads(),
        "settings": s,
    }
    Path(out_path).write_text(json.dumps(out, indent=1) + "\n")
    print(
        {
            name: out[name]
            for name in ("samples_per_s", "samples_per_cpu_s", "fvu", "l0", "dead_on_held_out", "dead_by_trainer")
        }
    )


if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    threads = str(read_settings(sys.argv[2])["threads"])
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = threads
    os.environ |= {
        "TQDM_DISABLE": "1",
        "WANDB_MODE": "disabled",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    warnings.filterwarnings("ignore")
    import torch

    torch.set_num_threads(int(threads))
    import sae_lens
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer
    from safetensors.torch import load_file

    main(*sys.argv[1:])
