"""Gradient descent on a noisy valley: `python3 simulate.py --lr LR --seed SEED`.

Writes losses.csv and metrics.json into the task's results folder. With a learning rate too
high for its noise the descent diverges, and the program fails as programs do: one point of
sweep.yaml does so on purpose.
"""

import argparse
import csv
import json
import os
import random
import time
from pathlib import Path

STEPS = 40
LIMIT = 1e9


def descend(lr: float, seed: int) -> list[float]:
    noise = random.Random(seed)
    x, losses = 3.0, []
    for step in range(STEPS):
        slope = 2 * x + noise.gauss(0, 1)
        x -= lr * slope * (1 + abs(x) / 10)
        losses.append(x * x)
        if x * x > LIMIT:
            raise ValueError(f"diverged at step {step}: loss {x * x:.2g}, try a smaller --lr")
        time.sleep(0.01)  # a real simulation would take longer
    return losses


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args()
    losses = descend(options.lr, options.seed)

    # Outside umpteen there is no such variable, and the files land here.
    results = Path(os.environ.get("UMPTEEN_RESULTS_DIR", "."))
    with (results / "losses.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "loss"])
        writer.writerows(enumerate(losses))
    metrics = {"lr": options.lr, "seed": options.seed, "loss": losses[-1]}
    (results / "metrics.json").write_text(json.dumps(metrics) + "\n")
    print(f"loss {losses[-1]:.4f} after {STEPS} steps")


if __name__ == "__main__":
    main()
