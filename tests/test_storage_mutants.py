"""The tests of the storage can fail: each of these mistakes is seen by the test named with it.

Slow: builds and runs the storage tests once for each mistake (`pytest -m slow`). As a program
this does the same and writes what came of it into mutations/storage-results.md:

    python tests/test_storage_mutants.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from cbuild import ROOT, build
from test_storage import BASE, RIG, STORAGE, WIRE

pytestmark = pytest.mark.slow

# (what is wrong, file of storage/, what stands there, what shall stand there, who must see it)
MUTANTS = [
    (
        "sync skipped",
        "journal.c",
        "enum status status = file_sync_data(&journal->active, error);",
        "enum status status = STATUS_OK;",
        "test_storage_faults",
    ),
    (
        "directory sync skipped",
        "file.c",
        "if (directory->sync && sync_retrying(calls->fsync, directory->fd) != 0) {",
        "if (directory->fd < 0) {",
        "test_storage_faults",
    ),
    (
        "the sync of the parent directory is skipped",
        "file.c",
        "return sync ? sync_parent(directory, made, error) : STATUS_OK;",
        "(void)sync_parent; return STATUS_OK;",
        "test_storage_faults",
    ),
    (
        "checksum not checked",
        "recovery.c",
        "bool next = entry_read(line, recovery->seed, &entry, &crc) == STATUS_OK &&",
        "crc = 0; struct span body; bool next = entry_parse(line, &entry) == STATUS_OK &&"
        " line_peek_crc(line, &body, &crc) == STATUS_OK &&",
        "test_storage_damage",
    ),
    (
        "middle corruption cut as a tail",
        "recovery.c",
        "enum torn_verdict verdict = TORN_DAMAGE;",
        "enum torn_verdict verdict = TORN_WRITE;",
        "test_storage_damage",
    ),
    (
        "any bad end is taken for torn",
        "torn.c",
        "return begins_as_expected(text, expect) && !holds_control(text) &&"
        " !ends_sealed(text) &&",
        "return begins_as_expected(text, (struct span){0}) || !holds_control(text) ||",
        "test_storage",
    ),
    (
        "sync error retried",
        "file.c",
        "    RETRY(result, sync(fd));\n",
        "    RETRY(result, sync(fd)); if (result != 0) { RETRY(result, sync(fd)); }\n",
        "test_storage_faults",
    ),
    (
        "page cache trusted",
        "file.c",
        "(void)calls->forget(file->fd);",
        "(void)file;",
        "test_storage_faults",
    ),
    (
        "a failed store goes on",
        "store.c",
        "    if (store->broken.status == STATUS_OK) {\n        return false;",
        "    if (store->broken.status != STATUS_PYTHON) {\n        return false;",
        "test_storage_faults",
    ),
    (
        "old snapshot removed first",
        "snapfile.c",
        "    enum status status = file_sync(&slot->file, error);\n",
        "    enum status status = snapfile->file.fd >= 0"
        " ? file_remove(snapfile->directory, snapfile->file.name, error) : STATUS_OK;\n",
        "test_storage_faults",
    ),
    (
        "a snapshot is renamed before it is synced",
        "snapfile.c",
        "    enum status status = file_sync(&slot->file, error);\n",
        "    enum status status = STATUS_OK;\n",
        "test_storage_faults",
    ),
    (
        "lines are written before the filling is durable",
        "journal.c",
        "    return status == STATUS_OK ? file_sync(file, error) : status;\n",
        "    return status;\n",
        "test_storage_faults",
    ),
    (
        "a segment is trimmed before it is synced",
        "journal.c",
        "    enum status status = journal_sync(journal, error);\n"
        "    if (status == STATUS_OK) {\n"
        "        status = file_cut(",
        "    enum status status = STATUS_OK;\n    if (status == STATUS_OK) {\n"
        "        status = file_cut(",
        "test_storage_faults",
    ),
    (
        "a truncation is not synced",
        "journal.c",
        "    if (status == STATUS_OK) {\n"
        "        status = file_sync(&journal->active, error);\n    }\n"
        "    if (status == STATUS_OK) {\n        journal_peek_last(journal)->filled = bytes;",
        "    if (status == STATUS_OK) {\n        journal_peek_last(journal)->filled = bytes;",
        "test_storage_faults",
    ),
    (
        "later segments go without a sync between them",
        "journal.c",
        "status = remove_last(journal, true, error);",
        "status = remove_last(journal, false, error);",
        "test_storage_faults",
    ),
    (
        "what was found is not synced before it is shown",
        "recovery.c",
        "        status = file_sync(&journal->active, error);\n    }\n    journal->floor",
        "    }\n    journal->floor",
        "test_storage_faults",
    ),
    (
        "term and vote are not synced",
        "metafile.c",
        "            status = file_sync_data(&metafile->file, error);\n",
        "            status = STATUS_OK;\n",
        "test_storage_faults",
    ),
    (
        "vote and term in two records",
        "store.c",
        "    return finish(store, metafile_save(&store->metafile, &next, &why), &why, error);",
        "    struct meta half = next;\n    half.voted_for = 0;\n"
        "    (void)!metafile_save(&store->metafile, &half, &why);\n"
        "    return finish(store, metafile_save(&store->metafile, &next, &why), &why, error);",
        "test_storage_faults",
    ),
    (
        "a forgotten vote is passed over",
        "metafile.c",
        "    if (!sound || torn_judge(&tail) == TORN_DAMAGE) {",
        "    if (!sound && reading->records == 0) {",
        "test_storage",
    ),
    (
        "an older copy of meta.jsonl is taken",
        "opening.c",
        "if (log.last_term > store->metafile.meta.term) {",
        "if (log.last_term > NUMBER_MAX) {",
        "test_storage_damage",
    ),
    (
        "quarantine is forgotten at the next start",
        "opening.c",
        "    if (status == STATUS_OK && contents->has_mark) {",
        "    if (status == STATUS_OK && contents->has_mark && options->path == NULL) {",
        "test_storage_damage",
    ),
]


def failure(program: Path) -> str:
    """How the test program failed; "" when it did not."""
    done = subprocess.run(
        [str(program)],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=300,
        check=False,
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def see(mutant: tuple[str, str, str, str, str], folder: Path) -> str:
    """Make the mistake in a copy of its file; what the test named with it says about it."""
    _, name, before, after, test = mutant
    text = (ROOT / "csrc" / "storage" / name).read_text()
    assert text.count(before) == 1, f"{name} has changed: the mistake has no place any more"
    changed = folder / name
    changed.write_text(text.replace(before, after))
    sources = [source for source in STORAGE if not source.endswith(f"/{name}")]
    program = build(
        f"mutant-{test}",
        [f"tests/c/{test}.c", str(changed), *RIG, *sources, *WIRE, *BASE],
        sanitize=False,
        flags=["-Wno-error", "-w"],
    )
    return failure(program)


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant[0] for mutant in MUTANTS])
def test_mistake_is_seen(mutant: tuple[str, str, str, str, str], tmp_path: Path) -> None:
    assert see(mutant, tmp_path), "nobody noticed"


def record() -> int:
    """Try all of them and write the table; the number that nobody noticed."""
    rows = []
    missed = 0
    for mutant in MUTANTS:
        with tempfile.TemporaryDirectory() as folder:
            said = see(mutant, Path(folder)).replace(f"{ROOT}/", "").replace("|", "/")
            said = " ".join(said.split())[:140]
        missed += not said
        rows.append(f"| {mutant[0]} | `{mutant[1]}` | `{mutant[4]}` | {said or 'NOT SEEN'} |")
        print(rows[-1], flush=True)
    table = Path(__file__).with_name("mutations") / "storage-results.md"
    table.write_text(
        "# Mistakes in the storage, and who sees them\n\n"
        "Made on purpose, one at a time, by `python tests/test_storage_mutants.py`, which "
        "writes this table;\n`pytest -m slow tests/test_storage_mutants.py` checks the same. "
        f"{len(MUTANTS)} mistakes, {len(MUTANTS) - missed} seen.\n\n"
        "| mistake | in `csrc/storage/` | seen by | what it says |\n"
        "| --- | --- | --- | --- |\n" + "\n".join(rows) + "\n"
    )
    return missed


if __name__ == "__main__":
    sys.exit(record())
