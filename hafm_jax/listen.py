"""A blind listening test: which system's band goes better with the vocal?

  make      writes KIT/page (give this folder to listeners, as it is) and KIT/key.json (keep it from them: it says which
            system is which, and is needed to read the answers)
  analyse   reads the answers that listeners saved from the page, and prints who preferred what

Listeners open page/index.html in a browser: no server, no network. On phones put the folder page/ on any web space,
since their file viewers show a page without the sounds beside it. Answers stay in the browser until the listener saves
them as a file, which you collect.

    python -m hafm_jax.listen make --report REPORT --systems model retrieval random truth --out KIT
    python -m hafm_jax.listen analyse --kit KIT --answers answers-*.json
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from hafm_jax.common.errors import InputError, run_command


def parser() -> argparse.ArgumentParser:
    def whole(low: int):
        def parse(text: str) -> int:
            if not text.isdecimal() or int(text) < low:
                raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number from {low}")
            return int(text)

        return parse

    raw = argparse.RawDescriptionHelpFormatter
    p = argparse.ArgumentParser(prog="python -m hafm_jax.listen", description=__doc__, formatter_class=raw)
    commands = p.add_subparsers(dest="command", required=True)

    make = commands.add_parser(
        "make",
        formatter_class=raw,
        help="make blind pairs of mixes and the page that asks about them",
        description="Make a kit of blind pairs: the same vocal, mixed with the bands of two systems, at one loudness.\n"
        "Sides and order are drawn and balanced; --seed repeats them. Where truth is among the systems, three checks\n"
        "are put in whose answer is known (the true band against none). Give listeners KIT/page; keep KIT/key.json\n"
        "from them.",
    )
    make.add_argument("--report", type=Path, required=True, help="a report folder of hafm_jax.evaluate, with clips/")
    make.add_argument("--systems", nargs="+", required=True, metavar="SYSTEM", help="two or more folders of clips/")
    make.add_argument("--against", metavar="SYSTEM", help="only compare with this one (default: every two systems)")
    make.add_argument(
        "--clips", type=whole(1), help="how many clips, each in every comparison (default: 10, or all where fewer)"
    )
    make.add_argument("--seed", type=whole(0), default=0, help="same seed, same kit (default: 0)")
    make.add_argument("--out", type=Path, required=True, metavar="KIT", help="the folder to write; must be new")

    analyse = commands.add_parser(
        "analyse",
        formatter_class=raw,
        help="count the answers",
        description="Win rates of every two systems with exact binomial intervals and sign tests; answers without a\n"
        "preference are counted and left out of both. Where a listener answered a pair twice, the first answer counts.",
    )
    analyse.add_argument("--kit", type=Path, required=True, help="the kit's folder, with key.json")
    analyse.add_argument("--answers", type=Path, nargs="+", required=True, metavar="FILE", help="what listeners saved")
    analyse.add_argument(
        "--out", type=Path, help="folder for results.json and index.html (default: results, in the kit)"
    )
    return p


def make(arguments: argparse.Namespace) -> None:
    from tqdm import tqdm

    from hafm_jax.listening.kit import make_kit

    key, lacking = make_kit(
        arguments.report,
        arguments.systems,
        arguments.out,
        arguments.clips,
        arguments.against,
        arguments.seed,
        progress=lambda pairs: tqdm(pairs, desc="pairs", leave=False),
    )
    for clip, systems in lacking.items():
        print(f"left out: clip {clip}, which {', '.join(systems)} lacks", file=sys.stderr)
    pairs = key["pairs"]
    checks = sum(pair["check"] for pair in pairs)
    print(f"kit {key['kit']}: {len(pairs)} pairs of {len({p['clip'] for p in pairs})} clips, {checks} of them checks")
    print(f"give listeners {arguments.out / 'page'}; keep {arguments.out / 'key.json'} from them")


def analyse(arguments: argparse.Namespace) -> None:
    from hafm_jax.common.files import write_bytes
    from hafm_jax.listening import report
    from hafm_jax.listening.answers import count_preferences, read_answers, read_key

    key = read_key(arguments.kit)
    answers = [answer for path in arguments.answers for answer in read_answers(path, key)]
    results = count_preferences(key, answers)
    print(report.text(results))
    out = arguments.out or arguments.kit / "results"
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {out} ({error.strerror}); give another --out") from error
    write_bytes(out / "results.json", (json.dumps(results, indent=1) + "\n").encode())
    write_bytes(out / "index.html", report.page(results).encode())
    print(f"\n{out / 'index.html'}  {out / 'results.json'}")


def main(argv: list[str] | None = None) -> None:
    arguments = parser().parse_args(argv)
    {"make": make, "analyse": analyse}[arguments.command](arguments)


if __name__ == "__main__":
    run_command(main)
