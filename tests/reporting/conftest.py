"""A made-up run folder with everything a report can show."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest


@pytest.fixture
def made_up_run(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    run = tmp_path / "run"
    (run / "report").mkdir(parents=True)
    (run / "recipe.yaml").write_text("model:\n  encoder: {width: 96, layers: 2}\noptim: {lr: 0.002}\n")
    store = {"name": "baron", "cells": 1886, "genes": 200, "species": ["mus_musculus"], "fingerprint": "ab12"}
    facts = {
        "lexicell": "0.1.0",
        "torch": "2.13.0",
        "stores": [store],
        "lexicon_fingerprint": "cd34",
        "genes": 200,
        "training_cells": 822,
        "validation_cells": 1064,
        "held_out": "donor mouse2",
        "parameters": 1_740_000,
        "cells_per_second": 612.4,
        "seconds": 248.0,
    }
    (run / "run.json").write_text(json.dumps(facts))
    steps = np.arange(10, 401, 10)
    fall = np.exp(-steps / 120)
    val = np.where(steps % 100 == 0, 1.0, np.nan)
    metrics = pd.DataFrame({"step": steps, "lr-AdamW": 0.001, "train/loss": 1.2 + 2 * fall, "train/skill": 0.2 - fall})
    metrics["train/counts"] = 0.4 + fall
    metrics["val/loss"], metrics["val/counts"] = val * (1.3 + 2 * fall), val * (0.45 + fall)
    metrics["val/skill"], metrics["val/ce"], metrics["val/baseline_ce"] = val * (0.2 - fall), val * 0.4, val * 0.5
    for name, skill in (("0", 0.31), ("1", -0.08), ("2-4", 0.02), ("5-19", 0.22), ("20+", 0.4)):
        metrics[f"val/skill/{name}"] = val * skill
    metrics["val/skill/mean<0.01"], metrics["val/skill/mean>=1"] = val * 0.02, val * 0.3
    metrics.to_csv(run / "metrics.csv", index=False)
    exposure = rng.poisson(rng.gamma(1.0, [[40.0, 60.0, 90.0]], size=(200, 3)))
    exposure[:3, 0] = 0
    np.save(run / "exposure.npy", exposure)
    lexicon = pd.DataFrame({"species": "mus_musculus", "gene_id": [f"g{i}" for i in range(200)], "symbol": ""})
    lexicon.loc[1, "symbol"] = "Ins1"
    lexicon.to_parquet(run / "lexicon.parquet")
    scores = pd.DataFrame({"method": ["knn", "label_head", "logistic_regression", "pca_knn"], "level": "cell_type"})
    scores["accuracy"], scores["macro_f1"] = [0.95, 0.96, 0.957, 0.911], [0.87, 0.89, 0.883, 0.743]
    scores.to_parquet(run / "report" / "annotation_scores.parquet")
    names = ["alpha", "beta", "delta"]
    confusion = pd.DataFrame(
        [
            {"method": method, "level": "cell_type", "truth": a, "predicted": b, "n": 90 if a == b else 5}
            for method in ("label_head", "pca_knn")
            for a in names
            for b in [*names, "gamma"]
        ]
    )
    confusion.to_parquet(run / "report" / "confusion.parquet")
    cells = pd.DataFrame(rng.normal(size=(120, 2)), columns=["x", "y"])
    cells["label"], cells["split"] = np.repeat([*names, None], 30), np.tile(["training", "held out"], 60)
    cells.to_csv(run / "report" / "embedding.csv", index=False)
    return run
