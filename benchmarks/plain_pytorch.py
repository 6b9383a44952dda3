"""Frozen features by a plain PyTorch loop, and plain heads on them; a separate process for B9.

`python -m benchmarks.plain_pytorch ROOT TABLE ARCHITECTURE SIZE` prints its results as JSON. The
package's way and Keras' run in a process shared with TensorFlow; this one has its own threads.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cytology.machine import cores

BATCH = 32
# torchvision's names, and the arguments for random weights without a second output.
NETWORKS = {
    "mobilenetv2": ("mobilenet_v2", {}),
    "inceptionv3": ("inception_v3", {"aux_logits": False, "init_weights": False}),
    "densenet121": ("densenet121", {}),
}


def plain_heads(features: np.ndarray, malignant: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Out-of-fold logits of standardized features by scikit-learn's default regression."""
    head = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    folds = PredefinedSplit(fold)
    return cross_val_predict(head, features, malignant, cv=folds, method="decision_function")


def rows_of(table: pd.DataFrame, files: list[str]) -> pd.DataFrame:
    """The rows of the table in the order of the files, which are named by their rows."""
    return table.iloc[[int(Path(file).stem) for file in files]]


def features_of(root: Path, architecture: str, size: int) -> tuple[np.ndarray, list[str]]:
    """Features of the images below `root`, shape (images, width), and their files."""
    import torch
    from torchvision import datasets, models, transforms

    torch.set_num_threads(cores())
    prepare = transforms.Compose(
        [
            transforms.Resize((size, size)),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    images = datasets.ImageFolder(root, prepare)
    loader = torch.utils.data.DataLoader(images, batch_size=BATCH, num_workers=cores())
    name, settings = NETWORKS[architecture]
    model = models.get_model(name, weights=None, **settings)
    setattr(model, "fc" if hasattr(model, "fc") else "classifier", torch.nn.Identity())
    model.eval()
    with torch.inference_mode():
        features = torch.cat([model(batch) for batch, _ in loader]).numpy()
    return features, [file for file, _ in images.samples]


def main(root: Path, table: Path, architecture: str, size: int) -> dict:
    """Seconds from the files to the logits; importing PyTorch is not counted."""
    import torch
    import torchvision

    rows, started = pd.read_csv(table), time.perf_counter()
    features, files = features_of(root, architecture, size)
    rows = rows_of(rows, files)
    logits = plain_heads(features, rows["malignant"].to_numpy(), rows["fold"].to_numpy())
    taken = time.perf_counter() - started
    assert (
        np.isfinite(logits).all() and features.std(axis=0).max() > 0
    )  # the signal has not vanished
    return {"seconds": taken, "versions": [torch.__version__, torchvision.__version__]}


if __name__ == "__main__":
    root, table, architecture, size = sys.argv[1:]
    print(json.dumps(main(Path(root), Path(table), architecture, int(size))))
