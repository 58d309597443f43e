"""Speed, as ratios to others measured in the same run. Only ratios mean anything: all share this machine.

python -m benchmarks [sync] [quality] [objects] [million] [webhooks] [corrections] [coverage] [truth] [golden]
                     [soak]
"""

from __future__ import annotations

import argparse

from benchmarks import corrections, coverage, golden, million, objects, quality, soak, sync, truth, webhooks

BENCHMARKS = {
    "sync": sync.main,
    "quality": quality.main,
    "objects": objects.main,
    "million": million.main,
    "webhooks": webhooks.main,
    "corrections": corrections.main,
    "coverage": coverage.main,
    "truth": truth.main,
    "golden": golden.main,
    "soak": soak.main,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", nargs="*", choices=[*BENCHMARKS, []], help="by default all")
    for name in parser.parse_args().which or BENCHMARKS:
        print(f"== {name}", flush=True)
        BENCHMARKS[name]()


if __name__ == "__main__":
    main()
