from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from zeroetl_dagster.local.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "aws.sqlite")


def test_what_was_put_is_got(store: Store) -> None:
    store.put("rds.cluster", "1/r/a", {"Status": "creating", "n": [1, {"ü": None}]})
    assert store.get("rds.cluster", "1/r/a") == {"Status": "creating", "n": [1, {"ü": None}]}
    assert store.get("rds.cluster", "1/r/b") is None
    assert store.get("rds.instance", "1/r/a") is None


def test_insert_does_not_replace(store: Store) -> None:
    assert store.insert("k", "a", {"v": 1})
    assert not store.insert("k", "a", {"v": 2})
    assert store.get("k", "a") == {"v": 1}


def test_delete_says_whether_there_was_one(store: Store) -> None:
    store.put("k", "a", {})
    assert store.delete("k", "a")
    assert not store.delete("k", "a")


def test_list_is_ordered_and_takes_the_prefix_literally(store: Store) -> None:
    for key in ("1/r/b", "1/r/a", "1_r/c", "1/rr/d"):
        store.put("k", key, {"key": key})
    assert [doc["key"] for doc in store.list("k", "1/r/")] == ["1/r/a", "1/r/b"]
    assert [doc["key"] for doc in store.list("k", "1_")] == ["1_r/c"]
    assert len(store.list("k")) == 4


def test_update_in_place_or_by_value(store: Store) -> None:
    store.put("k", "a", {"n": 1})
    assert store.update("k", "a", lambda doc: doc.update(n=2)) == {"n": 2}
    assert store.update("k", "a", lambda doc: {"n": doc["n"] + 1}) == {"n": 3}
    assert store.get("k", "a") == {"n": 3}


def test_update_of_nothing_is_a_key_error(store: Store) -> None:
    with pytest.raises(KeyError, match="no k a"):
        store.update("k", "a", lambda doc: None)


def test_a_failed_update_changes_nothing(store: Store) -> None:
    store.put("k", "a", {"n": 1})

    def change(doc: dict[str, int]) -> None:
        doc["n"] = 2
        raise ValueError

    with pytest.raises(ValueError):
        store.update("k", "a", change)
    assert store.get("k", "a") == {"n": 1}


def test_updates_of_many_threads_are_all_there(store: Store) -> None:
    store.put("k", "a", {"n": 0})

    def add() -> None:
        for _ in range(50):
            store.update("k", "a", lambda doc: {"n": doc["n"] + 1})

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.get("k", "a") == {"n": 200}


def test_what_was_put_survives_a_kill(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from zeroetl_dagster.local.store import Store\n"
        "Store(Path(sys.argv[1])).put('k', 'a', {'n': 1}); os.kill(os.getpid(), signal.SIGKILL)"
    )
    path = tmp_path / "aws.sqlite"
    subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert Store(path).get("k", "a") == {"n": 1}


def test_only_the_owner_may_read_the_file(store: Store) -> None:
    assert stat.S_IMODE(os.stat(store.path).st_mode) == 0o600
