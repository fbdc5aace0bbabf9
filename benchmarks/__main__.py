"""``python -m benchmarks``: measures dwebsocket and its peers side by side, and says which goals are met.

Each measurement has a fresh server on one core and the load client on another. In each round every contender of a row
has its turn, in the opposite order every second time, and only what was measured in the same round is compared.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from pathlib import Path

from tests.left_out import has_compiler

from . import chart, report
from .load import LoadFailed
from .measure import Bench
from .processes import choose_cores, pinned
from .report import Measurement, Measurements
from .rows import ALL_ROWS, BEFORE, ROWS, SERVERS, Contender, Row, narrow

CONTENDERS = sorted({contender.name for row in ROWS.values() for contender in row.contenders})


def main() -> int:
    """The exit status: 0 when everything could be measured, goals met or not."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # by way of every finally
    options = arguments()
    if options.quick and not has_compiler():
        say("Nothing is measured: there is no C compiler, or no Python.h.")
        return 0
    rows = list(BEFORE) if options.before else with_what_they_need(options.rows)
    narrow(lambda row, contender: is_wanted(options, row, contender))
    cores = choose_cores()
    say(f"The server runs on core {cores.server}, the load client on core {cores.client}: {cores.remark}.")
    with tempfile.TemporaryDirectory(prefix="dwebsocket-benchmarks-") as folder:
        say("Building dwebsocket and the load client ...")
        bench = Bench(
            Path(folder), cores, {each.server for name in rows for each in ALL_ROWS[name].contenders}, options.before
        )
        for words in sorted({f"{SERVERS[server].label} (no {lack})" for server, lack in bench.left_out.items()}):
            say(f"Left out: {words}.")
        narrow(lambda row, contender: contender.server not in bench.left_out)
        with pinned(cores.client):
            measurements = measure_all(bench, rows, options)
        environment = report.environment(cores) | bench.versions()
    write(measurements, rows, environment, options)
    for each in measurements.failed():
        say(f"FAILED: {each.row}, round {each.round}, {each.contender}: {each.failed}")
    return 1 if measurements.failed() else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    parser.add_argument(
        "--contenders", nargs="+", choices=CONTENDERS, metavar="NAME", help="only these, by their names in rows.py"
    )
    parser.add_argument("--rounds", type=int, default=5, help="of each row (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=3, help="of each measurement (default: %(default)s)")
    parser.add_argument(
        "--before", default="", metavar="REVISION", help="measure our own rows beside that commit, and nothing else"
    )
    parser.add_argument("--quick", action="store_true", help="one round of one second, of some rows fewer contenders")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measurement there")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw the chart there, a PNG")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there, too")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 1
    return options


def is_wanted(options: argparse.Namespace, row: Row, contender: Contender) -> bool:
    if options.contenders:
        return contender.name in options.contenders
    return not (options.quick and row.quick) or contender.name in row.quick


def with_what_they_need(chosen: list[str]) -> list[str]:
    """The rows in the order of their table; the load of some follows from another."""
    needed = {*chosen, *(ROWS[name].half_of for name in chosen)}
    return [name for name in ROWS if name in needed]


def measure_all(bench: Bench, rows: list[str], options: argparse.Namespace) -> Measurements:
    measurements = Measurements()
    count = options.rounds * sum(len(ALL_ROWS[name].contenders) for name in rows)
    for name in rows:
        load = (f"--seconds={options.seconds}", *rate(ALL_ROWS[name], measurements))
        for round_ in range(1, options.rounds + 1):
            for contender in ALL_ROWS[name].contenders[:: 1 if round_ % 2 else -1]:
                one = contender.small() if options.quick else contender
                measurement = measure(bench, name, round_, one, load)
                measurements.append(measurement)
                say(f"[{len(measurements)}/{count}] {progress(measurement)}")
    return measurements


def rate(row: Row, measurements: Measurements) -> tuple[str, ...]:
    """Half, or another part, of what the slowest of these contenders reached in the row that this one follows."""
    if row.half_of is None:
        return ()
    key = ALL_ROWS[row.half_of].value.key
    reached = [measurements.median(row.half_of, each.name, key) for each in row.contenders]
    return (f"--rate={min(filter(None, reached), default=0) * row.part:.0f}",)


def measure(bench: Bench, name: str, round_: int, contender: Contender, load: tuple[str, ...]) -> Measurement:
    values, failed = {}, ""
    try:
        values = bench.measure(contender, *load)
    except LoadFailed as error:
        failed = str(error)
    all_of_load = (*contender.load, *load) if contender.load else ()
    return Measurement(name, round_, contender.name, contender.server, all_of_load, contender.idle, values, failed)


def progress(measurement: Measurement) -> str:
    row, values = ALL_ROWS[measurement.row], measurement.values
    start = f"{measurement.row}, round {measurement.round}, {report.label(row, measurement.contender)}"
    if measurement.failed:
        return f"{start}: FAILED: {measurement.failed.splitlines()[0]}"
    words = [value.words(values[value.key]) for value in (row.value, *row.also) if value.key in values]
    if "client_busy" in values:
        words.append(f"cores busy: server {values['server_busy']:.0%}, client {values['client_busy']:.0%}")
    return f"{start}: {', '.join(words)}{''.join(f' (!) {remark}' for remark in measurement.remarks)}"


def write(
    measurements: Measurements, rows: list[str], environment: dict[str, str], options: argparse.Namespace
) -> None:
    tables = report.markdown(measurements, rows, environment)
    say(f"\n{tables}")
    if options.markdown:
        options.markdown.write_text(tables)
    if options.json:
        found = report.as_json(measurements, rows, environment)
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if options.chart and not chart.draw(measurements, options.chart):
        say("There is nothing to draw: the chart shows the rows echo and memory.")


def say(words: str) -> None:
    print(words, flush=True)


if __name__ == "__main__":
    sys.exit(main())
