"""Fits a line by gradient descent and leaves the loss where the runner collects it."""

import argparse
import json
import os
import random

parser = argparse.ArgumentParser()
parser.add_argument("--rate", type=float, required=True)
parser.add_argument("--steps", type=int, required=True)
options = parser.parse_args()

random.seed(7)
points = [(x / 20, 3 * x / 20 + 1 + random.gauss(0, 0.1)) for x in range(40)]
slope = offset = 0.0
for _ in range(options.steps):
    errors = [(slope * x + offset - y, x) for x, y in points]
    slope -= options.rate * sum(error * x for error, x in errors) / len(points)
    offset -= options.rate * sum(error for error, _ in errors) / len(points)
loss = sum((slope * x + offset - y) ** 2 for x, y in points) / len(points)

with open(os.path.join(os.environ["MITO_RESULT_DIR"], "result.json"), "w") as result:
    json.dump({"loss": round(loss, 6), "slope": round(slope, 3)}, result)
