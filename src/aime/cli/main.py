"""The `aime` command: runs a verb and reports errors in one line."""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import sys
import traceback
from types import ModuleType

from aime.cli.failures import EXIT_BROKEN_PIPE, EXIT_DEFECT, EXIT_USER_ERROR, explain, explain_defect
from aime.cli.output import discard, make_safe
from aime.errors import AimeError
from aime.primitives.signals import exit_status, handled

VERBS = {
    "train": "train a world model",
    "evaluate": "compute scores of predictions on held-out episodes",
    "inspect": "measure the effect of each part of a trained model",
    "predict": "make a film of true and predicted frames",
    "ablate": "train and compare variants without one part",
    "agent": "train and evaluate agents on a world model",
    "benchmark": "run the DMC-VB protocol on data with distractors",
    "report": "write one HTML page about a run",
    "collect": "record episodes of DeepMind Control or gymnasium",
    "import": "convert a data set: DMC-VB, LeRobot, Minari, videos, …",
    "export": "write a data set in the format of another project",
    "data": "check and describe a data set",
    "doctor": "check what is installed on this machine",
}
"""Summary of each verb. A verb is a module of this package with `main(arguments) -> status`."""

MODULES = {"import": "importing"}
"""Modules of verbs whose names are Python keywords."""


RUN_TO_THE_END = ("train", "ablate", "agent", "benchmark", "collect", "import", "export")
"""Verbs whose results are files: they continue if their standard output is closed."""


def entry() -> None:
    """Run the command line of the process and exit with its status."""
    arguments = sys.argv[1:]
    make_safe(lasting=any(argument in RUN_TO_THE_END for argument in arguments[:2]))
    with handled(until_exit=True) as interruption:
        try:
            status = main(arguments)
            interruption.over = True
            sys.stdout.flush()
        except KeyboardInterrupt as error:
            status = exit_status(error)
        except BrokenPipeError:
            status = EXIT_BROKEN_PIPE
        except OSError as error:
            print(f"aime: standard output cannot be written: {error.strerror}", file=sys.stderr)
            status = EXIT_USER_ERROR
        interruption.over = True
        try:
            sys.stdout.flush()
        except OSError:  # at exit Python would write what is left, and fail once more
            discard(1)
    sys.exit(status)


def main(arguments: list[str]) -> int:
    """Run one command line, without the program's name, and return the exit status.

    The status is 0 after success, 2 after a user error, 1 after a bug, and 128 plus the number after a signal (130 for
    Ctrl-C). Errors are one line on stderr; `--debug` adds the traceback.
    """
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"aime {version()}")
        return 0
    verb, rest = arguments[0], arguments[1:]
    try:
        return _module(verb).main(rest)
    except KeyboardInterrupt as error:
        print(f"aime {verb}: interrupted", file=sys.stderr)
        return exit_status(error)
    except BrokenPipeError:
        raise
    except Exception as error:
        message, status = explain(error), EXIT_USER_ERROR
        if message is None:
            message, status = explain_defect(error), EXIT_DEFECT
        if debug:
            traceback.print_exc()
        print(f"aime {verb}: {message}" if verb in VERBS else f"aime: {message}", file=sys.stderr)
        return status


def overview() -> str:
    """The help of `aime`: one line per verb."""
    width = max(map(len, VERBS))
    lines = [
        "usage: aime VERB [ARGUMENTS]",
        "",
        "Train world models on videos with actions, and use them for prediction and control.",
        "",
    ]
    lines += [f"  {verb:<{width}}  {summary}" for verb, summary in VERBS.items()]
    lines += [
        "",
        "aime VERB --help lists a verb's options. --version prints the version, --debug shows tracebacks.",
    ]
    return "\n".join(lines)


def version() -> str:
    """The version of the installed package."""
    return importlib.metadata.version("aime")


def _module(verb: str) -> ModuleType:
    # imported on demand: a verb imports its own libraries only
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"did you mean {near[0]}?" if near else "see `aime --help`"
        raise AimeError(f"there is no verb '{verb}'; expected {', '.join(VERBS)}: {hint}")
    return importlib.import_module(f"aime.cli.{MODULES.get(verb, verb)}")
