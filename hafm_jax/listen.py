"""A blind listening test: which system's band goes better with the vocal?

  make      writes KIT/page, the folder to give to listeners, and KIT/key.json, which names the system behind each side:
            do not show it to listeners, and keep it to analyse their answers
  analyse   reads the answers that listeners saved from the page, and prints their preferences

Listeners open page/index.html in a browser, without a server or a network. For phones, put the folder page/ on a web
server: their file viewers show a page without the sounds beside it. Answers stay in the browser until the listener
saves them as a file and sends it to you.

    hafm listen make --report REPORT --systems model retrieval random truth --out KIT
    hafm listen analyse --kit KIT --answers answers-*.json
"""

from __future__ import annotations

import argparse
import sys

from hafm_jax.common.errors import run_command
from hafm_jax.common.options import local_path, number
from hafm_jax.common.outputs import check_apart, check_folder, check_own
from hafm_jax.common.text import printable


def parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    p = argparse.ArgumentParser(prog="hafm listen", description=__doc__, formatter_class=raw)
    commands = p.add_subparsers(dest="command", required=True)

    make = commands.add_parser(
        "make",
        formatter_class=raw,
        help="make blind pairs of mixes, and the page for listeners",
        description="Make a kit of blind pairs: the same vocal, mixed with the bands of two systems, at one loudness.\n"
        "Sides and order are random and balanced; --seed repeats them. If truth is among the systems, there are three\n"
        "checks with a known answer (the true band against no band). Give listeners KIT/page, but not KIT/key.json.",
    )
    make.add_argument("--report", type=local_path, required=True, help="a report folder of hafm evaluate, with clips/")
    make.add_argument("--systems", nargs="+", required=True, metavar="SYSTEM", help="two or more folders of clips/")
    make.add_argument("--against", metavar="SYSTEM", help="compare only with this system (default: every two systems)")
    make.add_argument(
        "--clips",
        type=number(int, 1),
        help="number of clips, each in every comparison (default: 10, or all if there are fewer)",
    )
    make.add_argument("--seed", type=number(int, 0), default=0, help="same seed, same kit (default: 0)")
    make.add_argument("--out", type=local_path, required=True, metavar="KIT", help="the folder to write; must be new")

    analyse = commands.add_parser(
        "analyse",
        formatter_class=raw,
        help="count the answers",
        description="Win rates of every two systems with exact binomial intervals and sign tests. Answers without a\n"
        "preference are counted, but both leave them out. Of a listener's answers to a pair the first one counts.",
    )
    analyse.add_argument("--kit", type=local_path, required=True, help="the kit's folder, with key.json")
    analyse.add_argument(
        "--answers", type=local_path, nargs="+", required=True, metavar="FILE", help="the files that listeners saved"
    )
    analyse.add_argument(
        "--out", type=local_path, help="folder for results.json and index.html (default: results, in the kit)"
    )
    return p


def make(arguments: argparse.Namespace) -> None:
    from tqdm import tqdm

    from hafm_jax.listening.kit import make_kit

    check_folder(arguments.out)
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
        print(printable(f"left out: clip {clip}, missing in {', '.join(systems)}"), file=sys.stderr)
    pairs = key["pairs"]
    checks = sum(pair["check"] for pair in pairs)
    print(f"kit {key['kit']}: {len(pairs)} pairs of {len({p['clip'] for p in pairs})} clips, {checks} of them checks")
    print(f"give listeners {arguments.out / 'page'}, but not {arguments.out / 'key.json'}")


def analyse(arguments: argparse.Namespace) -> None:
    from hafm_jax.common.files import make_folder, write_json
    from hafm_jax.listening import results as for_people
    from hafm_jax.listening.answers import count_preferences, read_answers, read_key

    out = arguments.out or arguments.kit / "results"
    written = [out / "results.json", out / "index.html"]
    check_apart(written, {"--kit": arguments.kit / "page"})  # not for listeners
    for path in arguments.answers:
        check_apart(written, {"--answers": path})
    check_own(out, "results.json", ["index.html"])
    key = read_key(arguments.kit)
    answers = [answer for path in arguments.answers for answer in read_answers(path, key)]
    results = count_preferences(key, answers)
    print(for_people.text(results))
    make_folder(out, "--out")
    write_json(out / "results.json", results)
    for_people.write_results_page(out / "index.html", results)
    print(f"\n{out / 'index.html'}  {out / 'results.json'}")


def main(argv: list[str] | None = None) -> None:
    arguments = parser().parse_args(argv)
    {"make": make, "analyse": analyse}[arguments.command](arguments)


if __name__ == "__main__":
    run_command(main)
