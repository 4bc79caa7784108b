"""A replicated key-value store: python -m raftpico.kvs ADDR [DATA]

It is a program to use and the package's larger example of a machine.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import sys
from collections.abc import Iterator, Sequence

import raftpico
from raftpico.address import split_address
from raftpico.types import Json

PIECE_ENTRIES = 256
"""Keys in one line of a snapshot."""

EXPECTED = (
    'expected {"Put":{"key":K,"value":V}}, {"Get":{"key":K}}, {"Delete":{"key":K}} or "List", '
    "with K a string"
)


class KeyValueStore(raftpico.Machine):
    """Strings to JSON values, in the order in which the keys came.

    | input | also | output |
    | --- | --- | --- |
    | `{"Put":{"key":K,"value":V}}` | `{"Put":[K,V]}` | the value that K had before, or None |
    | `{"Get":{"key":K}}` | `{"Get":K}` | the value, or None |
    | `{"Delete":{"key":K}}` | `{"Delete":K}` | the value that was removed, or None |
    | `"List"` | `{"List":{}}` | the keys |

    Members of the objects that are not in the table are ignored.
    """

    commands = frozenset({"Put", "Delete"})
    queries = frozenset({"Get", "List"})

    def __init__(self) -> None:
        self.entries: dict[str, Json] = {}

    def apply(self, ctx: raftpico.ApplyContext, input: Json) -> Json:
        """One line of the table. Raises InvalidInput for anything else."""
        try:
            if "Put" in input:
                put = input["Put"]
                if type(put) is dict:
                    key, value = put["key"], put["value"]
                elif type(put) is list:
                    key, value = put
                else:
                    raise TypeError
                if type(key) is str:
                    entries = self.entries
                    before = entries.get(key)
                    entries[key] = value
                    return before
            elif "Get" in input:
                get = input["Get"]
                key = get["key"] if type(get) is dict else get
                if type(key) is str:
                    return self.entries.get(key)
            elif "Delete" in input:
                delete = input["Delete"]
                key = delete["key"] if type(delete) is dict else delete
                if type(key) is str:
                    return self.entries.pop(key, None)
            elif input == "List" or (type(input) is dict and "List" in input):
                return list(self.entries)
        except (KeyError, TypeError, ValueError):
            pass
        raise raftpico.InvalidInput(EXPECTED)

    def snapshot(self) -> Iterator[Json]:
        """Pieces: objects of some keys each."""
        items = iter(self.entries.items())
        while piece := dict(itertools.islice(items, PIECE_ENTRIES)):
            yield piece

    def restore(self, state: Iterator[dict[str, Json]]) -> None:
        """Take the pieces."""
        entries: dict[str, Json] = {}
        for piece in state:
            entries.update(piece)
        self.entries = entries


DESCRIPTION = """\
Run one member of a replicated key-value store. It listens on ADDR for clients and for the other
members. With DATA, a directory, everything that was answered survives a crash; without it the
state lives in memory only, and a member that was restarted comes back as a new one."""

EPILOG = """\
examples:
  three members, each in a terminal of its own
      python -m raftpico.kvs 127.0.0.1:4000 data/4000
      python -m raftpico.kvs 127.0.0.1:4001 data/4001
      python -m raftpico.kvs 127.0.0.1:4002 data/4002

  make them a cluster (jlot is a JSON-RPC client: cargo install jlot)
      jlot req CreateCluster | jlot call :4000
      jlot req AddServer --params '{"addr":"127.0.0.1:4001"}' | jlot call :4000
      jlot req AddServer --params '{"addr":"127.0.0.1:4002"}' | jlot call :4000

  write on one member, read on another: any member takes any request
      jlot req Apply --params '{"kind":"Command","input":{"Put":{"key":"foo","value":1}}}' \\
          | jlot call :4000
      jlot req Apply --params '{"kind":"Query","input":{"Get":{"key":"foo"}}}' | jlot call :4001

  the same from Python
      >>> import raftpico
      >>> client = raftpico.Client(":4000", ":4001", ":4002")
      >>> client.command({"Put": {"key": "foo", "value": 1}})
      >>> client.query({"Get": {"key": "foo"}})
      1

inputs:
  {"Put":{"key":K,"value":V}}   kind Command   answers the value before, or null
  {"Delete":{"key":K}}          kind Command   answers the value removed, or null
  {"Get":{"key":K}}             kind Query     answers the value, or null
  "List"                        kind Query     answers the keys
  The kind LocalQuery reads at once from one member, which may be behind the others.

Ctrl-C or SIGTERM stops it gracefully: leadership is handed over, what is pending answered. A
second one stops it at once. Exit status: 0 stopped, 1 it could not start or its disk failed."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m raftpico.kvs",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "addr",
        metavar="ADDR",
        help="HOST:PORT to listen on and to be known by; :4000 is 127.0.0.1:4000, port 0: the "
        "system chooses",
    )
    made.add_argument(
        "data", metavar="DATA", nargs="?", help="directory of its own; made if it is not there"
    )
    made.add_argument(
        "--insecure",
        action="store_true",
        help="allow an ADDR that other machines can reach: there is neither encryption nor a "
        "password, so anybody who can connect can read and change everything",
    )
    made.add_argument(
        "--no-sync",
        action="store_true",
        help="never wait for the disk (benchmarks): a power failure loses what was answered",
    )
    made.add_argument(
        "--snapshot-log-mb",
        metavar="MB",
        type=positive,
        help="take a snapshot when the log has grown by that much (default: 64)",
    )
    made.add_argument(
        "--quiet", action="store_true", help="say only what is wrong, nothing at the start"
    )
    made.add_argument("--version", action="version", version=f"raftpico {raftpico.__version__}")
    return made


def positive(text: str) -> float:
    """A number above 0."""
    number = float(text)
    if not 0 < number < 1e9:
        raise argparse.ArgumentTypeError("must be more than 0")
    return number


def greeting(address: str, data: str | None, sync: bool) -> str:
    """What a person should know when it starts."""
    _, port = split_address(address)
    if data is None:
        durable = "in memory only: when this process ends, its state is gone"
    elif not sync:
        durable = f"written to {data} but never synced: a power failure loses it"
    else:
        durable = f"durable, in {data}"
    create = '{"jsonrpc":"2.0","id":1,"method":"CreateCluster"}'
    return "\n".join(
        [
            f"raftpico kvs {raftpico.__version__}: listening on {address}",
            f"state: {durable}",
            "next:  make it a cluster, unless it is a member of one already",
            f"         jlot req CreateCluster | jlot call :{port}",
            f"         echo '{create}' | nc -N {address.rpartition(':')[0]} {port}",
            "       --help shows how to add members, write and read; Ctrl-C stops",
        ]
    )


def run(options: argparse.Namespace) -> None:
    """Serve until it is stopped."""
    megabytes = options.snapshot_log_mb
    server = raftpico.Server(
        KeyValueStore(),
        options.addr,
        options.data,
        insecure=options.insecure,
        sync=not options.no_sync,
        snapshot_log_bytes=None if megabytes is None else int(megabytes * 1024 * 1024),
    )
    if not options.quiet:
        print(greeting(server.addr, options.data, not options.no_sync), flush=True)
    server.run()
    if not options.quiet:
        print("stopped", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit status."""
    options = parser().parse_args(arguments)
    logging.basicConfig(
        stream=sys.stdout,
        format="%(asctime)s %(message)s",
        level=logging.WARNING if options.quiet else logging.INFO,
    )
    try:
        run(options)
    except (raftpico.RaftpicoError, ValueError, OSError) as error:
        print(f"raftpico kvs: {error}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
