"""A replicated counter. Run it on three addresses: python counter.py 127.0.0.1:4000 [DATA]"""

import sys

import raftpico


class Counter(raftpico.Machine):
    def __init__(self) -> None:
        self.value = 0

    def apply(self, ctx: raftpico.ApplyContext, input: int) -> int:
        if ctx.kind is raftpico.ApplyKind.COMMAND:
            self.value += input
        return self.value


if __name__ == "__main__":
    raftpico.Server(Counter(), *sys.argv[1:]).run()
