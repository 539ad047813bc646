"""The process in which a learner's code runs. It is given inputs and says what came of them; it knows nothing else.

One request on standard input (JSON): some questions, each with code and inputs. One line of JSON per input on standard output. Limits are set before any
of the learner's code runs, and hard: they cannot be raised again from inside.
"""

import base64
import json
import linecache
import os
import resource
import sys

MEGABYTE = 1 << 20


def limit(seconds: float, megabytes: int) -> None:
    """Limit what this process may use from now on, `megabytes` beyond what it holds already."""
    for what, most in ((resource.RLIMIT_CPU, int(seconds) + 1), (resource.RLIMIT_FSIZE, 16 * MEGABYTE),
                       (resource.RLIMIT_NOFILE, 64), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(what, (most, most))
    allow(megabytes)


def allow(megabytes: float) -> None:
    """Let this process take at most so much more memory (private pages; the limit only ever falls). Linux only."""
    if not os.path.exists("/proc/self/status"):
        return
    with open("/proc/self/status") as status:
        held = next(int(line.split()[1]) for line in status if line.startswith("VmData")) * 1024
    most = held + int(megabytes * MEGABYTE)
    before = resource.getrlimit(resource.RLIMIT_DATA)[1]
    most = most if before == resource.RLIM_INFINITY else min(most, before)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def execute(parts: list[str], space: dict, label: str = "part") -> None:
    """Run pieces of source one after the other in one namespace; each can be read back by `inspect`."""
    for number, text in enumerate(parts):
        filename = f"<{label} {number}>"
        linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
        exec(compile(text, filename, "exec"), space)


def main() -> None:
    """Serve one request."""
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    request = json.loads(sys.stdin.buffer.read())
    sys.path += request["packages"]                         # Python was started without its site, which is faster
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)                            # what the learner prints goes nowhere
    if request["kind"] == "survey":
        limit(request["seconds"], 512)
        from coursework.grading import slicing

        try:
            found = slicing.survey(base64.b64decode(request["data"]), request["suffix"], request["names"])
        except slicing.Unreadable as error:
            found = {"unreadable": str(error)}
        print(json.dumps(found), file=replies, flush=True)
        return
    import warnings

    warnings.filterwarnings("ignore")
    from coursework import wire
    from coursework.running import Outcome, call

    for name in request["needs"]:
        __import__(name)
    jobs = [(job, [(number, wire.decode(args), wire.decode(kwargs), memory, kernel_limit)
                   for number, args, kwargs, memory, kernel_limit in job["cases"]]) for job in request["jobs"]]
    limit(request["seconds"], request["megabytes"])

    def failed(error: BaseException, stage: str) -> Outcome:
        return Outcome(error=type(error).__name__, message=f"{stage}{error}"[:300],
                       bases=tuple(kind.__name__ for kind in type(error).__mro__))

    def serve(job: dict, cases: list) -> None:
        """Define one answer and call it on its inputs, each reply written as soon as it is there."""
        space: dict = {"__name__": "submission"}
        driver: dict = {"__name__": "drive"}
        function, stopped = None, None
        try:
            execute(job["parts"], space, f"{job['name']} part")
            function = space[job["name"]]
        except BaseException as error:
            stopped = failed(error, "before any call: ")
        execute(job["drive"], driver, f"{job['name']} drive")
        for number, args, kwargs, memory, kernel_limit in cases:
            outcome = stopped
            if outcome is None:
                try:
                    if kernel_limit:
                        allow(kernel_limit)
                    outcome = call(function, args, kwargs, driver.get("drive"), memory)
                except BaseException as error:                  # SystemExit, KeyboardInterrupt
                    outcome = failed(error, "")
            try:
                line = json.dumps([job["name"], number, wire.encode_outcome(outcome)])
            except (TypeError, MemoryError):
                line = json.dumps([job["name"], number, wire.encode_outcome(Outcome(error="MemoryError", bases=("MemoryError",)))])
            replies.write(line + "\n")
            replies.flush()

    for job, cases in jobs:
        serve(job, cases)
    replies.close()
    os._exit(0)                                             # no thread of the learner's delays the end


if __name__ == "__main__":
    main()
