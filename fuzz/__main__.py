"""``python -m fuzz [TARGET …]``: fuzz every target, or these, each for FUZZ_SECONDS (20 if not set).

As many run at a time as there are processors. What is found to be worth keeping goes to FUZZ_HOME (a temporary folder
if not set), and so does what ends in a fault.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dwebsocket.protocol import COMPILED
from fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
OPTIONS = ["-max_len=1500", "-timeout=30", "-print_final_stats=1"]


def fuzz(target: str, home: Path, seconds: int) -> bool:
    """Fuzz one target; whether no fault was found."""
    inputs, log = home / target, home / f"{target}.log"
    inputs.mkdir(parents=True, exist_ok=True)
    prefix = home / f"fault-{target}-"
    command = [
        *(sys.executable, "-m", "fuzz.one", target),
        *(*OPTIONS, f"-max_total_time={seconds}", f"-artifact_prefix={prefix}"),
        *(str(inputs), str(CORPUS / target)),
    ]
    with log.open("w") as output:
        done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, timeout=seconds + 300)
    said = log.read_text(errors="replace")
    executed = re.search(r"number_of_executed_units: (\d+)", said)
    rate = re.search(r"average_exec_per_sec: +(\d+)", said)
    if done.returncode == 0 and executed and rate:
        print(f"{target}: {executed[1]} executions, {rate[1]} a second, no fault", flush=True)
        return True
    print(said[-4000:])
    for fault in sorted(home.glob(f"{prefix.name}*")):
        print(f"{target}: a fault. Again with: python -m fuzz.replay {target} {fault}")
    return False


def main() -> int:
    if COMPILED:
        sys.exit("the fuzzer is led by the lines of Python: install with DWEBSOCKET_COMPILE=0")
    seconds = int(os.environ.get("FUZZ_SECONDS", "20"))
    home = Path(os.environ.get("FUZZ_HOME") or tempfile.mkdtemp(prefix="fuzz-"))
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        results = list(threads.map(lambda target: fuzz(target, home, seconds), sys.argv[1:] or TARGETS))
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
