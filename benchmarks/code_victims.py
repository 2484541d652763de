"""Victims of code for the benchmarks, made of data that bbox does not ship.

``python benchmarks/code_victims.py DATA`` prints their accuracy; DATA is a clone of ALERT's public repository (MIT; its
programs are of Google Code Jam's participants). Needs scikit-learn.
"""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import torch

from bbox.code.program import Program, Programs
from bbox.data.base import CodeSet
from bbox.targets.code import CodeTarget, wrap

GCJ = Path("CodeXGLUE/Authorship-Attribution/dataset/data_folder/processed_gcjpy")
FEATURES = {
    "tokens": {"token_pattern": r"\w+|[^\w\s]", "ngram_range": (1, 2)},
    "characters": {"analyzer": "char", "ngram_range": (2, 4), "max_features": 100_000},
}


def read_gcj(root: Path, split: str) -> CodeSet:
    """Authorship attribution: 66 authors of Python programs, 8 each in ``train`` and 2 in ``valid``."""
    lines = (root / GCJ / f"{split}.txt").read_text(encoding="utf-8").splitlines()
    found = [line.rpartition(" <CODESPLIT> ") for line in lines if line.strip()]
    labels = [int(label) for _, _, label in found]
    return CodeSet(
        name=f"gcj-{split}",
        inputs=Programs(Program(code.replace("\\n", "\n"), "python") for code, _, _ in found),
        labels=torch.tensor(labels),
        indices=torch.arange(len(found)),
        ids=tuple(f"{split}-{place}" for place in range(len(found))),
        class_names=tuple(f"author-{label:02d}" for label in range(max(labels) + 1)),
    )


def gcj_victim(root: Path, features: str = "tokens") -> CodeTarget:
    """TF-IDF and logistic regression: the factory for ``code:benchmarks.code_victims:gcj_victim``."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    data = read_gcj(Path(root), "train")
    vectors = TfidfVectorizer(lowercase=False, sublinear_tf=True, **FEATURES[features])
    pipeline = make_pipeline(vectors, LogisticRegression(C=30, tol=1e-3))
    pipeline.fit(data.inputs.codes(), data.labels.tolist())
    return wrap(pipeline, name=f"gcj-{features}", classes=data.class_names, language="python", version=features)


def main(root: Path) -> None:
    data = read_gcj(root, "valid")
    words = [len(re.findall(r"\w+", code)) for code in data.inputs.codes()]
    print(f"{len(data)} programs, {len(data.class_names)} authors, median {sorted(words)[len(words) // 2]} words")
    for features in FEATURES:
        start = time.process_time()
        target = gcj_victim(root, features)
        right = (target(data.inputs).argmax(1) == data.labels).float().mean()
        print(f"{target.name}: accuracy {right:.3f}, {time.process_time() - start:.1f} CPU-s")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
